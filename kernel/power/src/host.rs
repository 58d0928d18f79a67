//! What the sequences ask of the machine they run on.

use alloc::vec::Vec;
use core::future::Future;
use core::ops::Range;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{DiskId, DiskInfo};
use firn_task::Time;

use crate::{Fault, Report, Step};

/// The machine, as freeze and restore see it.
///
/// One vCPU calls it; nothing here runs at the same time as something else.
/// Everything that waits is an `async fn`. The sequences put a deadline on each
/// of them and **drop** what is late, so a dropped future must leave its disk
/// in a state from which [`Host::connect`] or [`Host::open`] still works, or
/// fails.
///
/// No call allocates job memory, and none but [`Host::adopt`],
/// [`Host::empty`], [`Host::bind`] and [`Host::unpark`] changes it.
pub trait Host: Time {
    /// One disk as the image code sees it.
    type Device: firn_image::Device;

    /// Every disk, connected or not, in the order of names.
    fn disks(&self) -> Vec<Disk>;

    /// What keeps the hypervisor's disks from being known: then there may be
    /// more than [`Host::disks`] names.
    fn unseen(&self) -> Option<&'static str>;

    /// The image code's handle to a disk. It reaches the queue whether the
    /// gate is open for jobs or not, as long as the disk is connected. While
    /// such a handle lives, nobody else takes completions of that queue, and
    /// what it takes of jobs' goes to the jobs.
    ///
    /// # Errors
    /// [`Fault::Gone`] when there is no such disk or it is not connected,
    /// [`Fault::Timeout`] when the host has not answered requests of an earlier
    /// handle: it may still read and write their memory.
    fn device(&self, disk: DiskId) -> Result<Self::Device, Fault>;

    /// Whether a disk could be frozen now; without any effect.
    ///
    /// # Errors
    /// What is in the way: a driver that cannot, a pulled disk with requests.
    fn can_freeze(&self, disk: DiskId) -> Result<(), Fault>;

    /// Takes whatever memory of the machine's own the steps up to power-off
    /// will need, so that none of them can run out. Called again, it has it
    /// already.
    ///
    /// # Errors
    /// [`Fault::NoMemory`].
    fn reserve(&self) -> Result<(), Fault>;

    /// Stops polling jobs, on every vCPU. From here to [`Host::unpark`] job
    /// memory is still, but for buffers of requests in flight.
    fn park(&self) -> impl Future<Output = Result<(), Fault>>;

    /// Wakes every job and lets them run again. Does nothing if they run.
    ///
    /// # Errors
    /// What keeps a vCPU from coming back.
    fn unpark(&self) -> Result<(), Fault>;

    /// Shuts a disk's gate: from now on requests of jobs are refused before
    /// they touch the ring. Those of the image code ([`Host::device`]) are not.
    ///
    /// # Errors
    /// A state of the disk that has no such step.
    fn shut(&self, disk: DiskId) -> Result<(), Fault>;

    /// Opens a disk's gate; the disk is connected. Does nothing if it is open.
    ///
    /// # Errors
    /// A state of the disk that has no such step.
    fn open(&self, disk: DiskId) -> Result<(), Fault>;

    /// Ends when nothing is in flight, and every completion was delivered to
    /// its job's channel.
    fn drain(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>>;

    /// Makes everything that completed durable. A disk that has no cache to
    /// flush succeeds; one that has, and no flush, is [`Fault::Cannot`].
    fn flush(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>>;

    /// Whether the ring holds nothing: no unsent request, no unread response.
    ///
    /// # Errors
    /// [`Fault::Cannot`] names what is left.
    fn idle(&self, disk: DiskId) -> Result<(), Fault>;

    /// Disconnects a disk in good order, after which the host holds nothing of
    /// ours. What the host keeps mapped is quarantined, and an error. Does
    /// nothing if it is disconnected.
    fn disconnect(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>>;

    /// Connects a disk anew from whatever state it is in, gate shut;
    /// negotiates everything again. Does nothing if it is connected like this.
    /// The buffers of jobs are registered with an ordinary link by this.
    fn connect(&self, disk: DiskId, link: Link) -> impl Future<Output = Result<(), Fault>>;

    /// The whole of job memory, from its head page to its end. While it is
    /// empty, that is all the room there is; once adopted, the saved part.
    fn memory(&self) -> Region;

    /// Pages of [`Host::memory`] whose content does not matter, in rising
    /// order; jobs are parked.
    fn free_pages(&self) -> Vec<Range<usize>>;

    /// What a saved memory needs to find again: build, job memory, CPU. Of
    /// [`firn_image::Machine::has_key`] nothing is asked.
    fn machine(&self) -> firn_image::Machine;

    /// Wall clock in nanoseconds since 1970, as good as it is known.
    fn wall_clock(&self) -> u64;

    /// Fresh random bytes.
    fn salt(&self) -> [u8; 12];

    /// Lends memory outside job memory to the image code for work on a disk: at
    /// least [`firn_image::Store::MIN_SCRATCH`] pages for one that is connected
    /// by [`Link::Image`], 4 MiB are good; less for one that is only looked at.
    ///
    /// # Errors
    /// [`Fault::NoMemory`] when it is lent, or a disk still has it.
    fn scratch(&self, disk: DiskId) -> Result<Region, Fault>;

    /// Gives it back. If it is not `free`, `disk`'s backend still has some of
    /// it: it may be lent again once that disk has been disconnected.
    fn scratch_back(&self, disk: DiskId, free: bool);

    /// Takes what was loaded into job memory as this boot's jobs: checks the
    /// head page and the root, sets the clock so that it never goes back,
    /// mixes fresh randomness in. Nothing runs before [`Host::unpark`].
    ///
    /// # Errors
    /// What is wrong with it. Job memory is as it was loaded.
    fn adopt(&self) -> Result<(), Fault>;

    /// Makes job memory empty again: an adopted or half-loaded image is gone
    /// from it.
    fn empty(&self);

    /// Tells the jobs' disks where they are now: pairs of the name they were
    /// saved under and this boot's name. Registers the jobs' buffers with those
    /// disks that have an ordinary link.
    ///
    /// # Errors
    /// Which registration failed.
    fn bind(&self, disks: &[(DiskId, DiskId)]) -> Result<(), Fault>;

    /// Told when an image is valid, just before the power goes off.
    fn frozen(&self, report: &Report);

    /// Leaves the hypervisor and ends the machine. Returns only if that fails
    /// (a simulator returns `Ok` and is never polled again).
    fn power_off(&self, then: Then) -> impl Future<Output = Result<(), Fault>>;

    /// Told before each step, with the disk that it is about: for traces,
    /// progress, and faults that are injected there.
    fn enter(&self, step: Step, disk: Option<DiskId>);
}

/// How a disk is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// For jobs: with whatever both ends offer.
    Ordinary,
    /// For the image: the largest ring and requests. Where the host keeps grants
    /// mapped, the scratch memory alone is granted; otherwise any page of job
    /// memory is written and read in place.
    Image,
}

/// How the machine ends after a freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Off.
    PowerOff,
    /// Off and on again.
    Reboot,
    /// Not at all: the image is taken back, and everything goes on.
    Thaw,
}

/// One disk of the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its name in this boot; all calls take this one.
    pub id: DiskId,
    /// What jobs call it: an image names it so.
    pub name: DiskId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// What it is, once connected.
    pub info: Option<DiskInfo>,
    /// Whether jobs use it: it is named in the registry of job memory.
    pub in_use: bool,
}
