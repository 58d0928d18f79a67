//! The disks of either machine, for code that is written for one.

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DiskId, DiskInfo, Queue};
use firn_kernel::drives::{Drive, Drives, ScsiDrive, ScsiDrives, XenDrive, XenDrives};
use firn_peers::FakeMachine;
use firn_peers::hyperv::HvMachine;
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time, Timers};
use std::rc::Rc;

/// All disks of a machine.
#[derive(Clone)]
pub enum SimDrives {
    /// On Xen.
    Xen(XenDrives<FakeMachine>),
    /// On Hyper-V.
    HyperV(ScsiDrives<HvMachine>),
}

/// One of them.
#[derive(Clone)]
pub enum SimDrive {
    /// On Xen.
    Xen(XenDrive<FakeMachine>),
    /// On Hyper-V.
    HyperV(ScsiDrive<HvMachine>),
}

/// Asks whichever it is.
macro_rules! either {
    ($self:ident, $one:ident => $ask:expr) => {
        match $self {
            Self::Xen($one) => $ask,
            Self::HyperV($one) => $ask,
        }
    };
}

impl Time for SimDrives {
    fn now(&self) -> Instant {
        either!(self, drives => drives.now())
    }

    fn timers(&self) -> &Timers {
        either!(self, drives => drives.timers())
    }
}

impl Drives for SimDrives {
    type Drive = SimDrive;

    fn all(&self) -> Vec<SimDrive> {
        match self {
            Self::Xen(drives) => drives.all().into_iter().map(SimDrive::Xen).collect(),
            Self::HyperV(drives) => drives.all().into_iter().map(SimDrive::HyperV).collect(),
        }
    }

    fn find(&self, id: DiskId) -> Option<SimDrive> {
        match self {
            Self::Xen(drives) => drives.find(id).map(SimDrive::Xen),
            Self::HyperV(drives) => drives.find(id).map(SimDrive::HyperV),
        }
    }

    fn changed(&self) -> Rc<Signal> {
        either!(self, drives => drives.changed())
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        either!(self, drives => drives.alloc_shared(pages))
    }

    fn free_shared(&self, region: Region) {
        either!(self, drives => drives.free_shared(region));
    }
}

impl Drive for SimDrive {
    fn id(&self) -> DiskId {
        either!(self, drive => drive.id())
    }

    fn state(&self) -> Lifecycle {
        either!(self, drive => drive.state())
    }

    fn info(&self) -> DiskInfo {
        either!(self, drive => drive.info())
    }

    fn is_away(&self) -> bool {
        either!(self, drive => drive.is_away())
    }

    fn with_private<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Option<R> {
        either!(self, drive => drive.with_private(work))
    }

    fn unanswered(&self) -> usize {
        either!(self, drive => drive.unanswered())
    }

    fn answers(&self) -> u64 {
        either!(self, drive => drive.answers())
    }

    fn events(&self) -> Option<Rc<Signal>> {
        either!(self, drive => drive.events())
    }

    fn kick(&self) {
        either!(self, drive => drive.kick());
    }

    fn ask(&self) -> Result<(), Fault> {
        either!(self, drive => drive.ask())
    }

    fn shut(&self) -> Result<(), Fault> {
        either!(self, drive => drive.shut())
    }

    fn open(&self) -> Result<(), Fault> {
        either!(self, drive => drive.open())
    }

    async fn drain(&self, until: Instant) -> Result<(), Fault> {
        either!(self, drive => drive.drain(until).await)
    }

    async fn flush(&self, until: Instant) -> Result<(), Fault> {
        either!(self, drive => drive.flush(until).await)
    }

    fn idle(&self) -> Result<(), Fault> {
        either!(self, drive => drive.idle())
    }

    async fn disconnect(&self, until: Instant) -> Result<(), Fault> {
        either!(self, drive => drive.disconnect(until).await)
    }

    async fn connect(&self, link: Link, until: Instant) -> Result<(), Fault> {
        either!(self, drive => drive.connect(link, until).await)
    }

    fn adopt(&self, queue: u32, buffers: Vec<Adopted>) -> Result<(), Fault> {
        either!(self, drive => drive.adopt(queue, buffers))
    }
}
