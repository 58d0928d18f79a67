//! Freeze: F0 to F14 of the protocol, in their order.

use crate::look::{Place, is_connected};
use crate::run::{Limits, Run};
use crate::undo::{Begun, Done};
use crate::{Disk, Failure, Fault, Host, Link, Standing, Step, Then, Trouble};
use alloc::vec::Vec;
use firn_block::DiskId;
use firn_image::{
    Commit, DiskIdentity, Generation, How, Key, Meta, Reason, SavedDisk, Source, Verdict, Written,
};

/// How far a freeze goes before it turns back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Jobs are parked and gates shut.
    Gate,
    /// Nothing is in flight, and disks are flushed.
    Drain,
    /// The data disks are disconnected.
    Disconnect,
    /// Chunks and table are written and durable.
    Write,
    /// The header is written and durable, and the whole image is read back;
    /// then it is taken back.
    Verify,
    /// The image is valid, and [`FreezeOptions::then`] happens.
    Full,
}

impl Level {
    /// Every level, the nearest first.
    pub const ALL: [Self; 6] = [
        Self::Gate,
        Self::Drain,
        Self::Disconnect,
        Self::Write,
        Self::Verify,
        Self::Full,
    ];
}

/// What to freeze to, and how.
#[derive(Clone, Debug)]
pub struct FreezeOptions {
    /// The image disk; without, the only one there is.
    pub image: Option<DiskId>,
    /// How far to go.
    pub level: Level,
    /// What follows a valid image.
    pub then: Then,
    /// Compress chunks where that saves space.
    pub compress: bool,
    /// Seal the image with this key.
    pub key: Option<Key>,
    /// Who asks, for people.
    pub reason: Reason,
    /// How long each step may take.
    pub limits: Limits,
}

impl Default for FreezeOptions {
    fn default() -> Self {
        Self {
            image: None,
            level: Level::Full,
            then: Then::PowerOff,
            compress: false,
            key: None,
            reason: Reason::default(),
            limits: Limits::default(),
        }
    }
}

/// An image that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where to.
    pub image: DiskId,
    /// Which one.
    pub generation: Generation,
    /// What was written.
    pub written: Written,
}

/// What a freeze would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Where to.
    pub image: DiskId,
    /// Which image it would be.
    pub generation: Generation,
}

/// How a freeze ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// The machine was told to end. Only a simulator sees this.
    Off(Report),
    /// As far as was asked, and back: jobs run. The report is there from
    /// [`Level::Write`] on.
    Thawed(Option<Report>),
}

/// Whether a freeze would succeed: everything that can be known without any
/// side effect (F0).
///
/// # Errors
/// [`Trouble`] names the disk and the reason.
pub async fn check<H: Host>(host: &H, options: &FreezeOptions) -> Result<Freeze, Trouble> {
    let run = Run {
        host,
        limits: options.limits,
    };
    let step = Step::Check;
    for disk in host.disks().iter().filter(|disk| is_connected(disk)) {
        run.at_once(step, Some(disk.id), || host.can_freeze(disk.id))?;
    }
    let place = find_place(&run, options).await?;
    let saved = in_use(host);
    let placeholders = saved.iter().filter_map(|disk| {
        Some(saved_disk(
            disk.name,
            disk.info.as_ref()?,
            DiskIdentity::Print(0),
        ))
    });
    let meta = meta(host, options, placeholders.collect());
    let disk = Some(place.disk);
    let store = run.at_once(step, disk, || run.open(place.disk))?;
    let plan = plan(host, &store, place, &meta, options);
    run.close(place.disk, store);
    let plan = run.at_once(step, disk, || plan)?;
    Ok(Freeze {
        image: place.disk,
        generation: plan.generation(),
    })
}

/// Freezes. `Ok` means that the image was as valid as was asked for; an error,
/// that it is not, and that everything is undone, or stands still.
///
/// # Errors
/// [`Failure`] says which step failed and how the machine stands.
pub async fn freeze<H: Host>(host: &H, options: &FreezeOptions) -> Result<Frozen, Failure> {
    let run = Run {
        host,
        limits: options.limits,
    };
    let ready = match get_ready(&run, options).await {
        Ok(ready) => ready,
        // Nothing was done yet.
        Err(trouble) => return Err(failure(trouble, Standing::Live, Vec::new())),
    };
    let disks = host.disks();
    let mut done = Done::nothing(disks.len());
    let result = go(&run, options, ready.image, &disks, &mut done).await;
    if let Ok(Some(report)) = result
        && options.level == Level::Full
        && options.then != Then::Thaw
    {
        return Ok(Frozen::Off(report));
    }
    let mut left = Vec::new();
    let undone = done.undo(&run, &mut left).await;
    let standing = standing(&undone, &left);
    match (result, undone) {
        (Ok(report), Ok(())) if left.is_empty() => Ok(Frozen::Thawed(report)),
        (Ok(_), _) => {
            let first = left.remove(0);
            Err(failure(first, standing, left))
        }
        (Err(trouble), _) => Err(failure(trouble, standing, left)),
    }
}

/// Jobs that do not run again stand still, whatever their disks do.
fn standing<T, E>(undone: &Result<T, E>, left: &[Trouble]) -> Standing {
    let parked = left.iter().any(|trouble| trouble.step == Step::Unpark);
    match undone {
        Ok(_) if !parked => Standing::Live,
        _ => Standing::Stopped,
    }
}

fn failure(trouble: Trouble, standing: Standing, left: Vec<Trouble>) -> Failure {
    Failure {
        trouble,
        standing,
        left,
    }
}

async fn get_ready<H: Host>(run: &Run<'_, H>, options: &FreezeOptions) -> Result<Freeze, Trouble> {
    let ready = check(run.host, options).await?;
    run.at_once(Step::Reserve, None, || run.host.reserve())?;
    Ok(ready)
}

/// The steps up to the level that was asked for.
async fn go<H: Host>(
    run: &Run<'_, H>,
    options: &FreezeOptions,
    image: DiskId,
    disks: &[Disk],
    done: &mut Done<H>,
) -> Result<Option<Report>, Trouble> {
    let connected: Vec<DiskId> = disks
        .iter()
        .filter(|disk| is_connected(disk))
        .map(|disk| disk.id)
        .collect();
    shut(run, &connected, done).await?;
    if options.level == Level::Gate {
        return Ok(None);
    }
    let saved = come_to_rest(run, &connected).await?;
    if options.level == Level::Drain {
        return Ok(None);
    }
    disconnect(run, &connected, image, done).await?;
    if options.level == Level::Disconnect {
        return Ok(None);
    }
    let written = write(run, options, image, saved, done).await?;
    let Some(generation) = done.plan.as_ref().map(firn_image::Plan::generation) else {
        return Ok(None); // writing made it
    };
    let report = Report {
        image,
        generation,
        written,
    };
    if options.level >= Level::Verify {
        commit(run, image, done).await?;
    }
    if options.level == Level::Verify {
        verify(run, options, image, done).await?;
    }
    if options.level == Level::Full && options.then != Then::Thaw {
        end(run, options.then, &report, done).await?;
    }
    Ok(Some(report))
}

/// F2: producers first, then the gates.
async fn shut<H: Host>(
    run: &Run<'_, H>,
    disks: &[DiskId],
    done: &mut Done<H>,
) -> Result<(), Trouble> {
    done.begin(Begun::Park);
    run.within(Step::Park, None, run.host.park()).await?;
    for disk in disks {
        done.begin(Begun::Shut(*disk));
        run.at_once(Step::Shut, Some(*disk), || run.host.shut(*disk))?;
    }
    Ok(())
}

/// F3 and F4, and what the disks are known by, now that nobody writes.
async fn come_to_rest<H: Host>(
    run: &Run<'_, H>,
    disks: &[DiskId],
) -> Result<Vec<SavedDisk>, Trouble> {
    let host = run.host;
    for disk in disks {
        run.within(Step::Drain, Some(*disk), host.drain(*disk))
            .await?;
    }
    for disk in disks {
        run.within(Step::Flush, Some(*disk), host.flush(*disk))
            .await?;
    }
    let mut saved = Vec::new();
    for disk in in_use(host) {
        saved.push(run.identify(&disk).await?);
    }
    for disk in disks {
        run.at_once(Step::Idle, Some(*disk), || host.idle(*disk))?;
    }
    Ok(saved)
}

/// F5 and F7: every disk, the image disk last; then that one for the image.
async fn disconnect<H: Host>(
    run: &Run<'_, H>,
    disks: &[DiskId],
    image: DiskId,
    done: &mut Done<H>,
) -> Result<(), Trouble> {
    let others = disks.iter().copied().filter(|disk| *disk != image);
    for disk in others.chain([image]) {
        done.begin(Begun::Disconnect(disk));
        run.within(Step::Disconnect, Some(disk), run.host.disconnect(disk))
            .await?;
    }
    done.begin(Begun::ConnectImage(image));
    let connected = run.host.connect(image, Link::Image);
    run.within(Step::ConnectImage, Some(image), connected).await
}

/// F8 to F10.
async fn write<H: Host>(
    run: &Run<'_, H>,
    options: &FreezeOptions,
    image: DiskId,
    saved: Vec<SavedDisk>,
    done: &mut Done<H>,
) -> Result<Written, Trouble> {
    let step = Step::Plan;
    let opened = run.at_once(step, Some(image), || run.open(image))?;
    let store = done.store.insert(opened);
    // What is on the disk is asked anew: only this connection counts.
    let place = run.image(step, image, async {
        let area = store.area().await?.ok_or(firn_image::Error::Gone)?;
        let slots = store.look(area).await?;
        Ok::<_, firn_image::Error>(Place {
            disk: image,
            area,
            slots,
        })
    });
    let place = place.await?;
    let meta = meta(run.host, options, saved);
    let planned = plan(run.host, store, place, &meta, options);
    let plan = done
        .plan
        .insert(run.at_once(step, Some(image), || planned)?);
    let memory = run.host.memory();
    let free = run.host.free_pages();
    let source = Source {
        memory: &memory,
        free: &free,
    };
    if store.keeps_mapped() {
        let mapped = store.map_lanes(&place.area, source.pages());
        run.image(Step::MapLanes, image, mapped).await?;
    }
    let written = run
        .image(Step::WriteChunks, image, store.write_chunks(plan, &source))
        .await?;
    run.image(Step::WriteTable, image, store.write_table(plan))
        .await?;
    run.image(Step::FlushImage, image, store.flush()).await?;
    Ok(written)
}

/// F11 to F13. From the first of these on the image may be valid, whatever is
/// reported.
async fn commit<H: Host>(
    run: &Run<'_, H>,
    image: DiskId,
    done: &mut Done<H>,
) -> Result<(), Trouble> {
    done.begin(Begun::Header(image));
    let (Some(store), Some(plan)) = (&mut done.store, &mut done.plan) else {
        return Ok(()); // the steps before made both
    };
    let committed = run.image(Step::WriteHeader, image, async {
        store.commit(plan).await.map_err(|commit| match commit {
            Commit::Untouched(error) | Commit::Unknown(error) => error,
        })
    });
    committed.await?;
    run.image(Step::FlushHeader, image, store.flush()).await?;
    run.image(Step::ReadBack, image, store.read_back(plan))
        .await
}

/// Reads everything as a restore would, into nowhere.
async fn verify<H: Host>(
    run: &Run<'_, H>,
    options: &FreezeOptions,
    image: DiskId,
    done: &mut Done<H>,
) -> Result<(), Trouble> {
    let Some(store) = &mut done.store else {
        return Ok(()); // the steps before made it
    };
    let read = async {
        let area = store.area().await?.ok_or(firn_image::Error::Gone)?;
        let slots = store.look(area).await?;
        let table = store.read_table(area, &slots, options.key.as_ref()).await?;
        store.verify(&table).await.map(drop)
    };
    run.image(Step::Verify, image, read).await
}

/// F14.
async fn end<H: Host>(
    run: &Run<'_, H>,
    then: Then,
    report: &Report,
    done: &mut Done<H>,
) -> Result<(), Trouble> {
    let disk = report.image;
    if let Some(store) = done.store.take() {
        run.close(disk, store);
    }
    run.within(Step::DisconnectImage, Some(disk), run.host.disconnect(disk))
        .await?;
    run.host.frozen(report);
    run.within(Step::PowerOff, None, run.host.power_off(then))
        .await
}

/// Disks that jobs use: those that an image names.
fn in_use<H: Host>(host: &H) -> Vec<Disk> {
    let mut disks = host.disks();
    disks.retain(|disk| disk.in_use && is_connected(disk));
    disks
}

fn saved_disk(id: DiskId, info: &firn_block::DiskInfo, identity: DiskIdentity) -> SavedDisk {
    SavedDisk {
        id,
        capacity: info.capacity,
        logical_block: info.logical_block,
        read_only: info.read_only,
        identity,
    }
}

fn meta<H: Host>(host: &H, options: &FreezeOptions, disks: Vec<SavedDisk>) -> Meta {
    let machine = host.machine();
    Meta {
        build: machine.build,
        heap: machine.heap,
        cpu: machine.cpu,
        disks,
        time: host.wall_clock(),
        reason: options.reason,
    }
}

fn plan<H: Host>(
    host: &H,
    store: &firn_image::Store<H::Device>,
    place: Place,
    meta: &Meta,
    options: &FreezeOptions,
) -> Result<firn_image::Plan, Fault> {
    let memory = host.memory();
    let free = host.free_pages();
    let source = Source {
        memory: &memory,
        free: &free,
    };
    let how = How {
        compress: options.compress,
        key: options.key.clone(),
        salt: host.salt(),
    };
    store
        .plan(place.area, &place.slots, &source, meta, how)
        .map_err(Fault::WhyNot)
}

/// The image disk: the one that was named, or the only one that is ours.
async fn find_place<H: Host>(run: &Run<'_, H>, options: &FreezeOptions) -> Result<Place, Trouble> {
    let step = Step::Check;
    let trouble = |disk, fault| Trouble { step, disk, fault };
    let disks = run.host.disks();
    let usable = |disk: &&Disk| is_connected(disk);
    if let Some(id) = options.image {
        let disk = disks.iter().filter(usable).find(|disk| disk.id == id);
        let disk = disk.ok_or(trouble(Some(id), Fault::Gone))?;
        let place = run.look(step, id).await?;
        let place = place.ok_or(trouble(Some(id), Fault::NoImageDisk { found: 0 }))?;
        if disk.in_use && place.area.partition.is_none() {
            return Err(trouble(Some(id), Fault::InUse));
        }
        return Ok(place);
    }
    let mut ours = Vec::new();
    // A disk that jobs use is not looked at without need: its queue is theirs.
    for disk in disks.iter().filter(usable).filter(|disk| !disk.in_use) {
        let place = run.look(step, disk.id).await?;
        ours.extend(place.filter(|place| {
            matches!(
                place.slots.verdict(),
                Verdict::Ended(..) | Verdict::Valid(..) | Verdict::Damaged(_)
            )
        }));
    }
    match ours[..] {
        [place] => Ok(place),
        _ => Err(trouble(None, Fault::NoImageDisk { found: ours.len() })),
    }
}
