//! What a boot does before anything else: restore (R1 to R11), stay shut, or
//! go on cold.

use crate::look::{Place, is_connected};
use crate::run::{Limits, Run};
use crate::{Disk, Fault, Host, Link, Step, Trouble, cold};
use alloc::vec::Vec;
use core::convert::Infallible;
use core::future::pending;
use firn_block::DiskId;
use firn_image::{
    Binding, Damage, Generation, Header, Key, Loaded, Machine, Refusal, SlotId, Store, Table,
    Target, Verdict,
};
use firn_task::{Either, race, yield_now};

/// Which image to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// The only one there is.
    #[default]
    Auto,
    /// None; should there be one all the same, that is a refusal.
    None,
    /// The one on this disk; others are given up once it is consumed.
    On(DiskId),
}

/// What to do when there is an image and it cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnRefusal {
    /// Change nothing, keep every gate shut: somebody will decide.
    #[default]
    Shell,
    /// Give it up and go on.
    Cold,
}

/// How to boot.
#[derive(Clone, Debug, Default)]
pub struct BootOptions {
    /// Which image.
    pub image: Choice,
    /// What if it is refused.
    pub on_refusal: OnRefusal,
    /// The key of sealed images.
    pub key: Option<Key>,
    /// How long each step may take.
    pub limits: Limits,
}

/// A memory that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where it came from.
    pub image: DiskId,
    /// Which one.
    pub generation: Generation,
    /// What was read.
    pub loaded: Loaded,
    /// Where the jobs' disks are now.
    pub disks: Vec<Binding>,
    /// Other images, which were given up for this one.
    pub gone: Vec<(DiskId, Generation)>,
    /// What did not work after the image was consumed: it goes on without.
    pub left: Vec<Trouble>,
}

/// How a boot begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// No image. Gates are open.
    Cold(Cold),
    /// Jobs of an image go on. Gates are open.
    Restored(Restored),
    /// There is something to decide. Every image is as it was, job memory is
    /// empty, gates are shut; [`cold`] opens them.
    Refused(Refused),
}

/// A boot without an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cold {
    /// Why an image was refused, if there was one: [`OnRefusal::Cold`].
    pub refused: Option<Trouble>,
    /// What was given up.
    pub gone: Vec<(DiskId, Generation)>,
}

/// Why nothing was decided yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is in the way.
    pub trouble: Trouble,
    /// What was in the way of a restore, where `trouble` is what was in the way
    /// of giving the image up for that.
    pub first: Option<Trouble>,
    /// Disks that hold, or may hold, an image: for [`cold`].
    pub undecided: Vec<DiskId>,
}

/// Looks for an image and restores it. Every gate is shut and job memory is
/// empty when this is called.
pub async fn boot<H: Host>(host: &H, options: &BootOptions) -> Boot {
    let run = Run {
        host,
        limits: options.limits,
    };
    let (places, unread) = run.look_at_all().await;
    let asking: Vec<Place> = places.into_iter().filter(Place::asks).collect();
    let asked = asking.iter().map(|place| place.disk);
    let undecided: Vec<DiskId> = asked.chain(unread.iter().filter_map(|t| t.disk)).collect();
    let trouble = match unread.into_iter().next() {
        // A disk that cannot be read may hold an image.
        Some(trouble) => trouble,
        None => match decide(&run, options, &asking).await {
            Ok(boot) => return boot,
            Err(trouble) => trouble,
        },
    };
    let refused = |trouble, first| {
        Boot::Refused(Refused {
            trouble,
            first,
            undecided: undecided.clone(),
        })
    };
    match options.on_refusal {
        OnRefusal::Shell => refused(trouble, None),
        OnRefusal::Cold => match cold(host, options.limits, &undecided).await {
            Ok(gone) => Boot::Cold(Cold {
                refused: Some(trouble),
                gone,
            }),
            Err(also) => refused(also, Some(trouble)),
        },
    }
}

async fn decide<H: Host>(
    run: &Run<'_, H>,
    options: &BootOptions,
    asking: &[Place],
) -> Result<Boot, Trouble> {
    let Some(place) = choose(asking, options.image)? else {
        open_all(run)?;
        return Ok(Boot::Cold(Cold::default()));
    };
    let others = asking.iter().filter(|other| other.disk != place.disk);
    let others: Vec<Place> = others.copied().collect();
    let restored = restore(run, options, &place, &others).await?;
    Ok(Boot::Restored(restored))
}

/// Opens every gate, and lets jobs run.
pub(crate) fn open_all<H: Host>(run: &Run<'_, H>) -> Result<(), Trouble> {
    for disk in run.host.disks().iter().filter(|disk| is_connected(disk)) {
        run.at_once(Step::Open, Some(disk.id), || run.host.open(disk.id))?;
    }
    run.at_once(Step::Unpark, None, || run.host.unpark())
}

/// The image to restore, of those disks that ask for a decision.
fn choose(asking: &[Place], choice: Choice) -> Result<Option<Place>, Trouble> {
    let no = |disk, fault| {
        let step = Step::Look;
        Err(Trouble { step, disk, fault })
    };
    match (choice, asking) {
        (_, []) => Ok(None),
        (Choice::Auto, [one]) => Ok(Some(*one)),
        (Choice::Auto, all) => {
            let disks = all.iter().map(|place| place.disk).collect();
            no(None, Fault::Several(disks))
        }
        (Choice::None, [first, ..]) => no(Some(first.disk), Fault::NotWanted),
        (Choice::On(disk), all) => match all.iter().find(|place| place.disk == disk) {
            Some(place) => Ok(Some(*place)),
            None => no(Some(all[0].disk), Fault::NotWanted),
        },
    }
}

/// What is valid in a place.
fn valid(place: &Place) -> Result<(Header, SlotId), Fault> {
    match place.slots.verdict() {
        Verdict::Valid(header, slot) => Ok((header, slot)),
        Verdict::Damaged(damage) => Err(Fault::Refusal(Refusal::Damaged(damage))),
        Verdict::Version(_) => Err(Fault::Refusal(Refusal::Damaged(Damage::Table(
            "of another format",
        )))),
        Verdict::Blank | Verdict::Foreign | Verdict::Ended(..) => {
            Err(Fault::NoImageDisk { found: 0 })
        }
    }
}

async fn restore<H: Host>(
    run: &Run<'_, H>,
    options: &BootOptions,
    place: &Place,
    others: &[Place],
) -> Result<Restored, Trouble> {
    let disk = place.disk;
    let (table, bindings) = accept(run, options, place).await?;
    for other in others {
        can_be_given_up(run, other.disk).await?;
    }
    let loaded = match load(run, disk, &table, &bindings).await {
        Ok(loaded) => loaded,
        Err(trouble) => return Err(give_up(run, disk, trouble).await),
    };
    let gone = match use_up(run, disk, &table, others).await {
        Ok(gone) => gone,
        Err(trouble) => return Err(give_up(run, disk, trouble).await),
    };
    // From here on there is no way back, and none is needed.
    let left = go_on(run, disk, &table).await;
    Ok(Restored {
        image: disk,
        generation: table.header().generation,
        loaded,
        disks: bindings,
        gone,
        left,
    })
}

/// R3: everything that can be known before a byte is loaded. Nothing is written
/// here, nor while loading: a refusal leaves every disk as it was (ADR 8).
async fn accept<H: Host>(
    run: &Run<'_, H>,
    options: &BootOptions,
    place: &Place,
) -> Result<(Table, Vec<Binding>), Trouble> {
    let (disk, host) = (place.disk, run.host);
    let machine = Machine {
        has_key: options.key.is_some(),
        ..host.machine()
    };
    run.at_once(Step::Compare, Some(disk), || {
        let (header, _) = valid(place)?;
        firn_image::check(&header, place.area, &machine).map_err(Fault::Refusal)
    })?;
    let read = async |store: &mut Store<H::Device>| {
        let key = options.key.as_ref();
        store.read_table(place.area, &place.slots, key).await
    };
    let table = run.store(Step::Compare, disk, read).await;
    let table = table.map_err(damaged)?;
    let present = run.present(table.disks()).await;
    let bindings = run.at_once(Step::Compare, Some(disk), || {
        Ok(firn_image::bind(table.disks(), &present)?)
    })?;
    Ok((table, bindings))
}

/// Whether another image could be given up, as far as can be known without
/// doing it: once this one is consumed it has to be.
async fn can_be_given_up<H: Host>(run: &Run<'_, H>, disk: DiskId) -> Result<(), Trouble> {
    let step = Step::Compare;
    let read_only = |one: &Disk| one.info.as_ref().is_some_and(|info| info.read_only);
    run.at_once(step, Some(disk), || {
        match run.host.disks().iter().find(|one| one.id == disk) {
            Some(one) if !read_only(one) => Ok(()),
            Some(_) => Err(Fault::Cannot(
                "it holds another image, and cannot be written to give that up",
            )),
            None => Err(Fault::Gone),
        }
    })?;
    let flush = async |store: &mut Store<H::Device>| store.flush().await;
    run.store(step, disk, flush).await
}

/// Damage is a refusal, with a hint of its own.
fn damaged(trouble: Trouble) -> Trouble {
    match trouble.fault {
        Fault::Image(firn_image::Error::Damaged(damage)) => Trouble {
            fault: Fault::Refusal(Refusal::Damaged(damage)),
            ..trouble
        },
        _ => trouble,
    }
}

/// R5 to R8: the whole memory, verified, adopted, bound; nothing runs yet.
async fn load<H: Host>(
    run: &Run<'_, H>,
    disk: DiskId,
    table: &Table,
    bindings: &[Binding],
) -> Result<Loaded, Trouble> {
    let host = run.host;
    let memory = host.memory();
    let pages = usize::try_from(table.header().heap.bytes).unwrap_or(usize::MAX) / firn_block::PAGE;
    let target = run.at_once(Step::Compare, Some(disk), || {
        match pages <= memory.page_count() {
            true => Ok(Target::new(table, &memory.pages(0, pages))?),
            false => Err(Fault::Image(firn_image::Error::Memory(
                "the image is larger",
            ))),
        }
    })?;
    let closed = zeroing_meanwhile(&target, host.disconnect(disk));
    run.within(Step::DisconnectImage, Some(disk), closed)
        .await?;
    let connected = zeroing_meanwhile(&target, host.connect(disk, Link::Image));
    run.within(Step::ConnectImage, Some(disk), connected)
        .await?;
    let mut store = run.at_once(Step::Load, Some(disk), || run.open(disk))?;
    let loaded = read(run, disk, &mut store, (table, &target)).await;
    run.close(disk, store);
    let loaded = loaded.map_err(damaged)?;
    run.at_once(Step::Adopt, None, || host.adopt())?;
    let pairs: Vec<_> = bindings.iter().map(|b| (b.saved, b.present)).collect();
    run.at_once(Step::Bind, None, || host.bind(&pairs))?;
    Ok(loaded)
}

/// R5 over the image's connection.
async fn read<H: Host>(
    run: &Run<'_, H>,
    disk: DiskId,
    store: &mut Store<H::Device>,
    (table, target): (&Table, &Target<'_>),
) -> Result<Loaded, Trouble> {
    if store.keeps_mapped() {
        let pages = usize::try_from(table.header().pages).unwrap_or(usize::MAX);
        let mapped = zeroing_meanwhile(target, store.map_lanes(table.area(), pages));
        run.image(Step::MapLanes, disk, mapped).await?;
    }
    run.image(Step::Load, disk, store.load(target)).await
}

/// The backend takes its time: pages that the image does not hold become zero
/// while `work` waits for it.
async fn zeroing_meanwhile<T>(target: &Target<'_>, work: impl Future<Output = T>) -> T {
    let zeroing = async {
        while target.zero_some() {
            yield_now().await;
        }
        pending::<Infallible>().await
    };
    match race(work, zeroing).await {
        Either::First(done) => done,
        Either::Second(never) => match never {},
    }
}

/// R9: the image is consumed, and then others are given up: none is lost for one
/// that does not go on. Nobody outside has seen anything before, and nothing
/// goes on before all of it is durable. Returns what was given up.
async fn use_up<H: Host>(
    run: &Run<'_, H>,
    disk: DiskId,
    table: &Table,
    others: &[Place],
) -> Result<Vec<(DiskId, Generation)>, Trouble> {
    let consume = async |store: &mut Store<H::Device>| store.consume(table).await;
    run.insist(Step::Consume, disk, Link::Image, consume)
        .await?;
    let mut gone = Vec::new();
    for other in others {
        let give_up =
            async |store: &mut Store<H::Device>| store.abandon(other.area, &other.slots).await;
        let given_up = run.insist(Step::Abandon, other.disk, Link::Ordinary, give_up);
        let given_up = given_up.await.inspect_err(|_| {
            let generation = table.header().generation;
            log::error!("image {} on {disk} is used up, and lost", generation.0);
        });
        gone.push((other.disk, given_up?));
    }
    Ok(gone)
}

/// R9 to R11, after CONSUMED: what fails is noted, and the rest goes on.
async fn go_on<H: Host>(run: &Run<'_, H>, disk: DiskId, table: &Table) -> Vec<Trouble> {
    let mut left = Vec::new();
    let retire = async |store: &mut Store<H::Device>| store.retire(table).await;
    left.extend(run.store(Step::Retire, disk, retire).await.err());
    left.extend(reconnect(run, disk).await.err());
    for disk in run.host.disks().iter().filter(|disk| is_connected(disk)) {
        let opened = run.at_once(Step::Open, Some(disk.id), || run.host.open(disk.id));
        left.extend(opened.err());
    }
    let unparked = run.at_once(Step::Unpark, None, || run.host.unpark());
    left.extend(unparked.err());
    left
}

/// The image disk becomes an ordinary one again.
async fn reconnect<H: Host>(run: &Run<'_, H>, disk: DiskId) -> Result<(), Trouble> {
    let closed = run.host.disconnect(disk);
    let closed = run.within(Step::DisconnectImage, Some(disk), closed).await;
    let connected = run.host.connect(disk, Link::Ordinary);
    let connected = run.within(Step::Reconnect, Some(disk), connected).await;
    closed.and(connected)
}

/// A restore that failed: job memory is empty again, the image disk as it was
/// found. Returns what it failed for; what cannot be brought back is logged.
async fn give_up<H: Host>(run: &Run<'_, H>, disk: DiskId, trouble: Trouble) -> Trouble {
    // Only when the backend holds none of it any more may it be used again.
    let back = reconnect(run, disk).await;
    run.host.empty();
    if let Err(also) = back {
        log::warn!("{also}");
    }
    trouble
}
