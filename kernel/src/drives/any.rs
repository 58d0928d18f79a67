//! The disks of whichever machine it is: the code of freeze and restore is there
//! once, for all hypervisors.

use alloc::rc::Rc;
use alloc::vec::Vec;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DiskId, DiskInfo, Queue};
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time, Timers};

use super::{Drive, Drives, ScsiDrive, ScsiDrives, XenDrive, XenDrives};

/// All disks, on a Xen of `X` or a Hyper-V of `H`.
pub enum AnyDrives<X: firn_xen::Hal, H: firn_hyperv::Hal> {
    /// On Xen.
    Xen(XenDrives<X>),
    /// On Hyper-V.
    Scsi(ScsiDrives<H>),
}

/// One disk.
pub enum AnyDrive<X: firn_xen::Hal, H: firn_hyperv::Hal> {
    /// On Xen.
    Xen(XenDrive<X>),
    /// On Hyper-V.
    Scsi(ScsiDrive<H>),
}

impl<X: firn_xen::Hal, H: firn_hyperv::Hal> Clone for AnyDrives<X, H> {
    fn clone(&self) -> Self {
        match self {
            Self::Xen(drives) => Self::Xen(drives.clone()),
            Self::Scsi(drives) => Self::Scsi(drives.clone()),
        }
    }
}

impl<X: firn_xen::Hal, H: firn_hyperv::Hal> Clone for AnyDrive<X, H> {
    fn clone(&self) -> Self {
        match self {
            Self::Xen(drive) => Self::Xen(drive.clone()),
            Self::Scsi(drive) => Self::Scsi(drive.clone()),
        }
    }
}

/// Does the same with whichever it is.
macro_rules! on {
    ($self:expr, $it:ident => $work:expr) => {
        match $self {
            Self::Xen($it) => $work,
            Self::Scsi($it) => $work,
        }
    };
}

impl<X: firn_xen::Hal, H: firn_hyperv::Hal> Time for AnyDrives<X, H> {
    fn now(&self) -> Instant {
        on!(self, drives => drives.now())
    }

    fn timers(&self) -> &Timers {
        on!(self, drives => drives.timers())
    }
}

impl<X: firn_xen::Hal + 'static, H: firn_hyperv::Hal + 'static> Drives for AnyDrives<X, H> {
    type Drive = AnyDrive<X, H>;

    fn all(&self) -> Vec<Self::Drive> {
        match self {
            Self::Xen(drives) => drives.all().into_iter().map(AnyDrive::Xen).collect(),
            Self::Scsi(drives) => drives.all().into_iter().map(AnyDrive::Scsi).collect(),
        }
    }

    fn unseen(&self) -> Option<&'static str> {
        on!(self, drives => drives.unseen())
    }

    fn find(&self, id: DiskId) -> Option<Self::Drive> {
        match self {
            Self::Xen(drives) => drives.find(id).map(AnyDrive::Xen),
            Self::Scsi(drives) => drives.find(id).map(AnyDrive::Scsi),
        }
    }

    fn changed(&self) -> Rc<Signal> {
        on!(self, drives => drives.changed())
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        on!(self, drives => drives.alloc_shared(pages))
    }

    fn free_shared(&self, region: Region) {
        on!(self, drives => drives.free_shared(region));
    }
}

impl<X: firn_xen::Hal, H: firn_hyperv::Hal> Drive for AnyDrive<X, H> {
    fn with_private<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Option<R> {
        // The work is there once, whatever the driver.
        let (mut work, mut result) = (Some(work), None);
        let mut once = |queue: &mut dyn Queue| {
            if let Some(work) = work.take() {
                result = Some(work(queue));
            }
        };
        let once: &mut dyn FnMut(&mut dyn Queue) = &mut once;
        on!(self, drive => drive.with_private(once))?;
        result
    }

    fn id(&self) -> DiskId {
        on!(self, drive => drive.id())
    }

    fn state(&self) -> Lifecycle {
        on!(self, drive => drive.state())
    }

    fn info(&self) -> DiskInfo {
        on!(self, drive => drive.info())
    }

    fn is_away(&self) -> bool {
        on!(self, drive => drive.is_away())
    }

    fn unanswered(&self) -> usize {
        on!(self, drive => drive.unanswered())
    }

    fn answers(&self) -> u64 {
        on!(self, drive => drive.answers())
    }

    fn events(&self) -> Option<Rc<Signal>> {
        on!(self, drive => drive.events())
    }

    fn kick(&self) {
        on!(self, drive => drive.kick());
    }

    fn ask(&self) -> Result<(), Fault> {
        on!(self, drive => drive.ask())
    }

    fn shut(&self) -> Result<(), Fault> {
        on!(self, drive => drive.shut())
    }

    fn open(&self) -> Result<(), Fault> {
        on!(self, drive => drive.open())
    }

    async fn drain(&self, until: Instant) -> Result<(), Fault> {
        on!(self, drive => drive.drain(until).await)
    }

    async fn flush(&self, until: Instant) -> Result<(), Fault> {
        on!(self, drive => drive.flush(until).await)
    }

    fn idle(&self) -> Result<(), Fault> {
        on!(self, drive => drive.idle())
    }

    async fn disconnect(&self, until: Instant) -> Result<(), Fault> {
        on!(self, drive => drive.disconnect(until).await)
    }

    async fn connect(&self, link: Link, until: Instant) -> Result<(), Fault> {
        on!(self, drive => drive.connect(link, until).await)
    }

    fn adopt(&self, queue: u32, buffers: Vec<Adopted>) -> Result<(), Fault> {
        on!(self, drive => drive.adopt(queue, buffers))
    }
}
