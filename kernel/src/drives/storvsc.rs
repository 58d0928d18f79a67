//! The disks of a guest on Hyper-V.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DataPath, DiskId, DiskInfo, Queue};
use firn_hyperv::storvsc::{Controller, ScsiBus, StepError, Unit, WhyNot};
use firn_hyperv::{Hal, HyperV};
use firn_power::{Fault, Link};
use firn_task::{Instant, Signal, Time, Timers};

use super::{Drive, Drives};

/// All SCSI disks of a guest.
pub struct ScsiDrives<H: Hal> {
    hv: Rc<HyperV<H>>,
    bus: Rc<ScsiBus<H>>,
}

impl<H: Hal> ScsiDrives<H> {
    /// Those of `bus`.
    #[must_use]
    pub fn new(hv: &Rc<HyperV<H>>, bus: &Rc<ScsiBus<H>>) -> Self {
        Self {
            hv: hv.clone(),
            bus: bus.clone(),
        }
    }
}

impl<H: Hal> Clone for ScsiDrives<H> {
    fn clone(&self) -> Self {
        Self::new(&self.hv, &self.bus)
    }
}

impl<H: Hal> Time for ScsiDrives<H> {
    fn now(&self) -> Instant {
        self.hv.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.hv.timers
    }
}

impl<H: Hal + 'static> Drives for ScsiDrives<H> {
    type Drive = ScsiDrive<H>;

    fn all(&self) -> Vec<Self::Drive> {
        let mut all = Vec::new();
        for controller in self.bus.controllers() {
            let units = controller.units().into_iter();
            all.extend(units.map(|unit| ScsiDrive {
                controller: controller.clone(),
                unit,
            }));
        }
        all
    }

    fn unseen(&self) -> Option<&'static str> {
        self.bus.unseen()
    }

    fn find(&self, id: DiskId) -> Option<Self::Drive> {
        let (controller, unit) = self.bus.find_with_controller(id)?;
        Some(ScsiDrive { controller, unit })
    }

    fn changed(&self) -> Rc<Signal> {
        self.bus.changed().clone()
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        self.hv.hal.alloc_shared(pages)
    }

    fn free_shared(&self, region: Region) {
        self.hv.hal.free_shared(region);
    }
}

/// One disk, and the controller whose channel it shares.
pub struct ScsiDrive<H: Hal> {
    controller: Rc<Controller<H>>,
    unit: Rc<Unit<H>>,
}

impl<H: Hal> Clone for ScsiDrive<H> {
    fn clone(&self) -> Self {
        Self {
            controller: self.controller.clone(),
            unit: self.unit.clone(),
        }
    }
}

impl<H: Hal> Drive for ScsiDrive<H> {
    fn id(&self) -> DiskId {
        self.unit.id()
    }

    fn state(&self) -> Lifecycle {
        self.unit.state()
    }

    fn info(&self) -> DiskInfo {
        self.unit.info()
    }

    fn is_away(&self) -> bool {
        match self.unit.state() {
            Lifecycle::Frozen => true,
            // A disconnect that failed; else its controller went, and comes back
            // by itself.
            Lifecycle::Closed => self.controller.can_connect(),
            _ => false,
        }
    }

    fn with_private<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Option<R> {
        let mut front = self.unit.front.try_borrow_mut().ok()?;
        if !front.state().uses_ring() {
            return None;
        }
        Some(work(&mut front.private()))
    }

    fn unanswered(&self) -> usize {
        self.unit.front.borrow_mut().private().unanswered()
    }

    fn answers(&self) -> u64 {
        let front = self.unit.front.try_borrow();
        front.map_or(0, |front| front.stats().ring_responses)
    }

    fn events(&self) -> Option<Rc<Signal>> {
        self.unit.front.try_borrow().ok()?.events()
    }

    fn kick(&self) {
        self.unit.front.borrow_mut().kick();
    }

    fn ask(&self) -> Result<(), Fault> {
        self.unit.ask().map_err(fault)
    }

    fn shut(&self) -> Result<(), Fault> {
        self.unit.shut().map_err(fault)
    }

    fn open(&self) -> Result<(), Fault> {
        match self.unit.state() {
            Lifecycle::Live => Ok(()),
            _ => self.unit.open().map_err(fault),
        }
    }

    async fn drain(&self, until: Instant) -> Result<(), Fault> {
        self.unit.drain(until).await.map_err(fault)
    }

    async fn flush(&self, until: Instant) -> Result<(), Fault> {
        self.unit.flush(until).await.map_err(fault)
    }

    fn idle(&self) -> Result<(), Fault> {
        self.unit.check_idle().map_err(fault)
    }

    async fn disconnect(&self, until: Instant) -> Result<(), Fault> {
        let detached = self.controller.detach(&self.unit, until).await;
        detached.map_err(fault)
    }

    /// An image needs no other connection than jobs: nothing is ever kept mapped.
    async fn connect(&self, _link: Link, until: Instant) -> Result<(), Fault> {
        let attached = self.controller.attach(&self.unit, until).await;
        attached.map_err(fault)
    }

    fn adopt(&self, queue: u32, buffers: Vec<Adopted>) -> Result<(), Fault> {
        let adopted = self.unit.front.borrow_mut().adopt(queue, 0, buffers);
        adopted.map_err(|error| Fault::Other(format!("{}: {error}", self.id())))
    }
}

fn fault(error: StepError) -> Fault {
    log::warn!("{error}");
    match error.why {
        WhyNot::Deadline { .. } => Fault::Timeout,
        WhyNot::Io(error) => error.into(),
        WhyNot::NoFlush => Fault::Cannot(
            "it has no command to flush its cache: what was written is not known to be durable",
        ),
        why => Fault::Other(format!("{why}")),
    }
}
