//! The disks of a machine as its power code sees them, whatever driver has them:
//! blkfront on Xen, storvsc on Hyper-V. None of it depends on a bare machine.

mod any;
mod blkfront;
mod device;
mod storvsc;

pub use any::{AnyDrive, AnyDrives};
pub use blkfront::{XenDrive, XenDrives};
pub use device::DriveDevice;
pub use storvsc::{ScsiDrive, ScsiDrives};

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::Future;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DiskId, DiskInfo, Queue};
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time};

/// The disks of one machine: a handle, to be cloned freely. Its time is that of
/// the drivers.
pub trait Drives: Time + Clone + Unpin + 'static {
    /// One disk.
    type Drive: Drive;

    /// Every disk, connected or not.
    fn all(&self) -> Vec<Self::Drive>;

    /// [`firn_power::Host::unseen`].
    fn unseen(&self) -> Option<&'static str>;

    /// The disk of that name.
    fn find(&self, id: DiskId) -> Option<Self::Drive>;

    /// Notified when a disk came, went or changed its state.
    fn changed(&self) -> Rc<Signal>;

    /// Pages of boot memory that a host may be shown.
    fn alloc_shared(&self, pages: usize) -> Option<Region>;

    /// Takes them back; no host can reach them any more.
    fn free_shared(&self, region: Region);
}

/// One disk: a handle, to be cloned freely. The steps are those of
/// [`firn_power::Host`]; what is said there is not said again here. Those that
/// wait end at an instant, with [`Fault::Timeout`] if they are not done.
#[expect(
    clippy::missing_errors_doc,
    reason = "they are said where the trait of the sequences has them"
)]
pub trait Drive: Clone {
    /// Its name in this boot.
    fn id(&self) -> DiskId;

    /// Where it is in its life.
    fn state(&self) -> Lifecycle;

    /// What it is, as far as it is known.
    fn info(&self) -> DiskInfo;

    /// Whether a sequence left it where jobs cannot have it; only
    /// [`Drive::connect`] brings it back.
    fn is_away(&self) -> bool;

    /// Runs `work` on the kernel's own queue of the disk; `None` if it is not
    /// connected.
    fn with_private<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Option<R>;

    /// Requests of the kernel's own that the host has not answered.
    fn unanswered(&self) -> usize;

    /// How many answers have come for anything that was sent.
    fn answers(&self) -> u64;

    /// What is notified when the host answers something: by its event, which is
    /// not asked for by this.
    fn events(&self) -> Option<Rc<Signal>>;

    /// Shows the host what was submitted.
    fn kick(&self);

    /// [`firn_power::Host::can_freeze`].
    fn ask(&self) -> Result<(), Fault>;

    /// [`firn_power::Host::shut`].
    fn shut(&self) -> Result<(), Fault>;

    /// [`firn_power::Host::open`].
    fn open(&self) -> Result<(), Fault>;

    /// [`firn_power::Host::drain`].
    fn drain(&self, until: Instant) -> impl Future<Output = Result<(), Fault>>;

    /// [`firn_power::Host::flush`].
    fn flush(&self, until: Instant) -> impl Future<Output = Result<(), Fault>>;

    /// [`firn_power::Host::idle`].
    fn idle(&self) -> Result<(), Fault>;

    /// [`firn_power::Host::disconnect`].
    fn disconnect(&self, until: Instant) -> impl Future<Output = Result<(), Fault>>;

    /// [`firn_power::Host::connect`].
    fn connect(&self, link: Link, until: Instant) -> impl Future<Output = Result<(), Fault>>;

    /// Makes the buffers of an earlier boot's queue buffers of this disk.
    fn adopt(&self, queue: u32, buffers: Vec<Adopted>) -> Result<(), Fault>;
}
