//! The disks of a guest on Xen.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DataPath, DiskId, DiskInfo, Queue};
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time, Timers};
use firn_xen::blkfront::{StepError, Terms, Vbd, WhyNot};
use firn_xen::bus::Bus;
use firn_xen::{Hal, Xen};

use super::{Drive, Drives};

/// All block devices of a domain.
pub struct XenDrives<H: Hal> {
    xen: Rc<Xen<H>>,
    bus: Rc<Bus<H>>,
}

impl<H: Hal> XenDrives<H> {
    /// Those of `bus`.
    #[must_use]
    pub fn new(xen: &Rc<Xen<H>>, bus: &Rc<Bus<H>>) -> Self {
        Self {
            xen: xen.clone(),
            bus: bus.clone(),
        }
    }
}

impl<H: Hal> Clone for XenDrives<H> {
    fn clone(&self) -> Self {
        Self::new(&self.xen, &self.bus)
    }
}

impl<H: Hal> Time for XenDrives<H> {
    fn now(&self) -> Instant {
        self.xen.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.xen.timers
    }
}

impl<H: Hal + 'static> Drives for XenDrives<H> {
    type Drive = XenDrive<H>;

    fn all(&self) -> Vec<Self::Drive> {
        let vbds = self.bus.vbds().into_iter();
        vbds.map(|vbd| XenDrive::new(&self.xen, vbd)).collect()
    }

    fn unseen(&self) -> Option<&'static str> {
        let scanned = self.bus.is_scanned();
        (!scanned).then_some("xenstore has not said which disks there are")
    }

    fn find(&self, id: DiskId) -> Option<Self::Drive> {
        let vbd = self.bus.find(id)?;
        Some(XenDrive::new(&self.xen, vbd))
    }

    fn changed(&self) -> Rc<Signal> {
        self.bus.changed().clone()
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        self.xen.hal.alloc_shared(pages)
    }

    fn free_shared(&self, region: Region) {
        self.xen.hal.free_shared(region);
    }
}

/// One block device.
pub struct XenDrive<H: Hal> {
    xen: Rc<Xen<H>>,
    vbd: Rc<Vbd<H>>,
}

impl<H: Hal> XenDrive<H> {
    fn new(xen: &Rc<Xen<H>>, vbd: Rc<Vbd<H>>) -> Self {
        let xen = xen.clone();
        Self { xen, vbd }
    }
}

impl<H: Hal> Clone for XenDrive<H> {
    fn clone(&self) -> Self {
        Self::new(&self.xen, self.vbd.clone())
    }
}

impl<H: Hal> Drive for XenDrive<H> {
    fn id(&self) -> DiskId {
        self.vbd.id()
    }

    fn state(&self) -> Lifecycle {
        self.vbd.state()
    }

    fn info(&self) -> DiskInfo {
        self.vbd.front.borrow().info().clone()
    }

    fn is_away(&self) -> bool {
        self.vbd.is_away()
    }

    fn with_private<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Option<R> {
        let mut front = self.vbd.front.try_borrow_mut().ok()?;
        front.port()?;
        Some(work(&mut front.private()))
    }

    fn unanswered(&self) -> usize {
        self.vbd.front.borrow_mut().private().unanswered()
    }

    fn answers(&self) -> u64 {
        let front = self.vbd.front.try_borrow();
        front.map_or(0, |front| front.stats().ring_responses)
    }

    fn events(&self) -> Option<Rc<Signal>> {
        let port = self.vbd.front.try_borrow().ok()?.port()?;
        Some(self.xen.events.signal(port))
    }

    fn kick(&self) {
        self.vbd.front.borrow_mut().kick();
    }

    fn ask(&self) -> Result<(), Fault> {
        self.vbd.ask().map_err(fault)
    }

    fn shut(&self) -> Result<(), Fault> {
        self.vbd.shut().map_err(fault)
    }

    fn open(&self) -> Result<(), Fault> {
        self.vbd.open().map_err(fault)
    }

    async fn drain(&self, until: Instant) -> Result<(), Fault> {
        self.vbd.drain(until).await.map_err(fault)
    }

    async fn flush(&self, until: Instant) -> Result<(), Fault> {
        self.vbd.flush(until).await.map_err(fault)
    }

    fn idle(&self) -> Result<(), Fault> {
        self.vbd.check_idle().map_err(fault)
    }

    async fn disconnect(&self, until: Instant) -> Result<(), Fault> {
        self.vbd.disconnect(until).await.map_err(fault)
    }

    async fn connect(&self, link: Link, until: Instant) -> Result<(), Fault> {
        let terms = match link {
            Link::Ordinary => Terms::Ordinary,
            Link::Image => Terms::Image,
        };
        self.vbd.connect(terms, until).await.map_err(fault)
    }

    fn adopt(&self, queue: u32, buffers: Vec<Adopted>) -> Result<(), Fault> {
        let adopted = self.vbd.front.borrow_mut().adopt(queue, 0, buffers);
        adopted.map_err(|error| Fault::Other(format!("{}: {error}", self.id())))
    }
}

fn fault(error: StepError) -> Fault {
    log::warn!("{error}");
    match error.why {
        WhyNot::Deadline { .. } => Fault::Timeout,
        WhyNot::Io(error) => error.into(),
        WhyNot::NoFlush => Fault::Cannot(
            "its backend offers no flush: what was written is not known to be durable",
        ),
        WhyNot::Removed => Fault::Gone,
        why => Fault::Other(format!("{why}")),
    }
}
