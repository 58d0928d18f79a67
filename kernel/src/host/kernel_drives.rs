//! The disks of this machine as its power code sees them: those of the host that
//! it runs on.

use alloc::rc::Rc;
use alloc::vec::Vec;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DiskId, DiskInfo, Queue};
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time, Timers};

use super::hyperv::HyperVHal;
use super::xen::XenHal;
use crate::drives::{Drive, Drives, ScsiDrive, ScsiDrives, XenDrive, XenDrives};

/// All disks. One type for every host: the code of freeze and restore is there
/// once.
#[derive(Clone)]
pub(crate) enum KernelDrives {
    Xen(XenDrives<XenHal>),
    Scsi(ScsiDrives<HyperVHal>),
}

/// One disk.
#[derive(Clone)]
pub(crate) enum KernelDrive {
    Xen(XenDrive<XenHal>),
    Scsi(ScsiDrive<HyperVHal>),
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

impl Time for KernelDrives {
    fn now(&self) -> Instant {
        on!(self, drives => drives.now())
    }

    fn timers(&self) -> &Timers {
        on!(self, drives => drives.timers())
    }
}

impl Drives for KernelDrives {
    type Drive = KernelDrive;

    fn all(&self) -> Vec<KernelDrive> {
        match self {
            Self::Xen(drives) => drives.all().into_iter().map(KernelDrive::Xen).collect(),
            Self::Scsi(drives) => drives.all().into_iter().map(KernelDrive::Scsi).collect(),
        }
    }

    fn find(&self, id: DiskId) -> Option<KernelDrive> {
        match self {
            Self::Xen(drives) => drives.find(id).map(KernelDrive::Xen),
            Self::Scsi(drives) => drives.find(id).map(KernelDrive::Scsi),
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

impl Drive for KernelDrive {
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
