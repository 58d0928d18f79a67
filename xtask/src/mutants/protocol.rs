//! Guards of freeze and restore: the order of the steps, and what happens when
//! one fails.

use super::{Mutant, mutant};

const FREEZE: &str = "kernel/power/src/freeze.rs";
const UNDO: &str = "kernel/power/src/undo.rs";
const BOOT: &str = "kernel/power/src/boot.rs";
const COLD: &str = "kernel/power/src/cold.rs";
const LOOK: &str = "kernel/power/src/look.rs";
const LATE: &str = "kernel/src/power/late.rs";
const RUN: &str = "kernel/power/src/run.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "jobs run on during a freeze",
        FREEZE,
        "run.within(Step::Park, None, run.host.park()).await?;",
        "run.host.enter(Step::Park, None);",
    ),
    mutant(
        "gates stay open during a freeze",
        FREEZE,
        "run.at_once(Step::Shut, Some(*disk), || run.host.shut(*disk))?;",
        "run.host.enter(Step::Shut, Some(*disk));",
    ),
    mutant(
        "a freeze does not wait for requests in flight",
        FREEZE,
        "run.within(Step::Drain, Some(*disk), host.drain(*disk))\n            .await?;",
        "host.enter(Step::Drain, Some(*disk));",
    ),
    mutant(
        "data disks are not flushed before the snapshot",
        FREEZE,
        "run.within(Step::Flush, Some(*disk), host.flush(*disk))\n            .await?;",
        "host.enter(Step::Flush, Some(*disk));",
    ),
    mutant(
        "a ring that is not idle is disconnected",
        FREEZE,
        "run.at_once(Step::Idle, Some(*disk), || host.idle(*disk))?;",
        "host.enter(Step::Idle, Some(*disk));",
    ),
    mutant(
        "a disconnection that failed does not matter",
        FREEZE,
        "run.within(Step::Disconnect, Some(disk), run.host.disconnect(disk))\n            .await?;",
        "let _ = run.within(Step::Disconnect, Some(disk), run.host.disconnect(disk)).await;",
    ),
    mutant(
        "the barrier before the header is dropped",
        FREEZE,
        "run.image(Step::FlushImage, image, store.flush()).await?;",
        "run.host.enter(Step::FlushImage, Some(image));",
    ),
    mutant(
        "the barrier after the header is dropped",
        FREEZE,
        "run.image(Step::FlushHeader, image, store.flush()).await?;",
        "run.host.enter(Step::FlushHeader, Some(image));",
    ),
    mutant(
        "the header is not noted before it is written",
        FREEZE,
        "done.begin(Begun::Header(image));",
        "let _ = Begun::Header(image);",
    ),
    mutant(
        "the header is not read back",
        FREEZE,
        "run.image(Step::ReadBack, image, store.read_back(plan))\n        .await",
        "{ run.host.enter(Step::ReadBack, Some(image)); Ok(()) }",
    ),
    mutant(
        "a header that may be valid is not taken back",
        UNDO,
        "Begun::Header(disk) => match self.void(run, disk).await {",
        "Begun::Header(disk) => match Ok::<DiskId, Trouble>(disk).map(drop) {",
    ),
    mutant(
        "gates open although the header could not be taken back",
        UNDO,
        "return Err(StayStopped);",
        "Ok(())",
    ),
    mutant(
        "taking the header back is tried over the broken connection only",
        UNDO,
        "            return Ok(());\n        }\n        if let Err(trouble) = self.leave_image",
        "            return Ok(());\n        }\n        if true { return Err(Trouble { step: Step::Void, disk: Some(disk), fault: Fault::Gone }); }\n        if let Err(trouble) = self.leave_image",
    ),
    mutant(
        "what was begun is undone in the order it was begun",
        UNDO,
        "while let Some(begun) = self.begun.pop() {",
        "while let Some(begun) = (!self.begun.is_empty()).then(|| self.begun.remove(0)) {",
    ),
    mutant(
        "a disk is not connected again",
        UNDO,
        "let connected = run.host.connect(disk, Link::Ordinary);\n                    run.within(Step::Reconnect, Some(disk), connected).await",
        "run.host.enter(Step::Reconnect, Some(disk)); Ok(())",
    ),
    mutant(
        "gates open before CONSUMED is durable",
        BOOT,
        "let gone = match use_up(run, disk, &table, others).await {",
        "let _ = open_all(run);\n    let gone = match use_up(run, disk, &table, others).await {",
    ),
    mutant(
        "CONSUMED is written before the image is verified",
        BOOT,
        "let loaded = match load(run, disk, &table, &bindings).await {",
        "use_up(run, disk, &table, &[]).await?;\n    let loaded = match load(run, disk, &table, &bindings).await {",
    ),
    mutant(
        "a CONSUMED that failed does not matter",
        BOOT,
        "run.insist(Step::Consume, disk, Link::Image, consume)\n        .await?;",
        "let _ = run.insist(Step::Consume, disk, Link::Image, consume).await;",
    ),
    mutant(
        "the copy of a restored image may be restored, too",
        BOOT,
        "for other in others {\n        let give_up",
        "for other in others.iter().take(0) {\n        let give_up",
    ),
    mutant(
        "other images are given up before one is consumed",
        BOOT,
        "    run.insist(Step::Consume, disk, Link::Image, consume)\n        .await?;\n    let mut gone = Vec::new();",
        "    for other in others {\n        let give_up = async |store: &mut Store<H::Device>| store.abandon(other.area, &other.slots).await;\n        run.insist(Step::Abandon, other.disk, Link::Ordinary, give_up).await?;\n    }\n    run.insist(Step::Consume, disk, Link::Image, consume)\n        .await?;\n    let mut gone = Vec::new();",
    ),
    mutant(
        "an image that cannot be given up is noticed only once the other is consumed",
        BOOT,
        "can_be_given_up(run, other.disk).await?;",
        "let _ = can_be_given_up(run, other.disk).await;",
    ),
    mutant(
        "an image goes on although another could not be given up",
        BOOT,
        "gone.push((other.disk, given_up?));",
        "gone.extend(given_up.ok().map(|generation| (other.disk, generation)));",
    ),
    mutant(
        "disks are bound without being compared",
        BOOT,
        "Ok(firn_image::bind(table.disks(), &present)?)",
        "Ok(table.disks().iter().map(|d| Binding { saved: d.id, present: d.id }).collect::<Vec<_>>()).inspect(|_| drop(present.len()))",
    ),
    mutant(
        "another build's image is restored",
        BOOT,
        "firn_image::check(&header, place.area, &machine).map_err(Fault::Refusal)",
        "Ok(drop((header, &machine)))",
    ),
    mutant(
        "a disk that cannot be read holds no image",
        BOOT,
        "match unread.into_iter().next() {",
        "match unread.into_iter().find(|trouble| trouble.disk.is_none()) {",
    ),
    mutant(
        "a refusal gives the image up",
        BOOT,
        "OnRefusal::Shell => refused(trouble, None),",
        "OnRefusal::Shell => {\n            let _ = cold(host, options.limits, &undecided).await;\n            refused(trouble, None)\n        }",
    ),
    mutant(
        "going on cold leaves the image valid",
        COLD,
        "for place in places.iter().filter(|place| place.asks()) {",
        "for place in places.iter().filter(|place| place.asks() && false) {",
    ),
    mutant(
        "going on cold does not ask for the disk in question",
        COLD,
        "there.then_some(()).ok_or(Fault::Gone)",
        "if there { Ok(()) } else { Ok::<(), Fault>(()) }",
    ),
    mutant(
        "an end that stands in a cache only is believed",
        LOOK,
        "store.flush().await?;",
        "",
    ),
    mutant(
        "a deadline is ignored",
        RUN,
        "match timeout(self.host, limit, work).await {",
        "let _ = timeout(self.host, limit, core::future::ready(())).await;\n        match Ok(work.await) {",
    ),
    mutant(
        "the image code's memory is not given back",
        RUN,
        "self.host.scratch_back(disk, free);",
        "let _ = (disk, free);",
    ),
    mutant(
        "memory that the host may still use is lent again",
        "kernel/src/power/disks.rs",
        "if drive.unanswered() > 0 {",
        "if drive.unanswered() > usize::MAX - 1 {",
    ),
    mutant(
        "a disk that a freeze could not bring back stays away",
        LATE,
        "if may() {\n                let drives",
        "if may() && false {\n                let drives",
    ),
    mutant(
        "a boot goes on cold before every disk is connected",
        LOOK,
        "(Vec::new(), self.unseen());",
        "(Vec::new(), Vec::new());",
    ),
    mutant(
        "nobody looks at disks that came during a freeze",
        LATE,
        "self.0.drives.changed().notify();",
        "",
    ),
    mutant(
        "a token is completed twice",
        "kernel/jobs/src/io/table.rs",
        "let Some(token) = slot.token.take() else {",
        "let Some(token) = slot.token.as_ref().map(|t| Token::new(t.id())) else {",
    ),
];
