//! All SCSI controllers that the host offers: each gets its task.

use super::controller::{Controller, ControllerConfig};
use super::disks::Unit;
use crate::hal::Hal;
use crate::vmbus::Vmbus;
use crate::wire::vmbus::class;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_task::Executor;

/// The controllers of a bus. Shared by [`Rc`] on one vCPU.
pub struct ScsiBus<H: Hal> {
    bus: Rc<Vmbus<H>>,
    config: ControllerConfig,
    executor: Rc<Executor>,
    controllers: RefCell<Vec<Rc<Controller<H>>>>,
    next_id: Rc<Cell<u32>>,
    /// Disks of controllers that come connect with their gates shut.
    shut: Cell<bool>,
}

impl<H: Hal + 'static> ScsiBus<H> {
    /// No controllers yet; [`ScsiBus::run`] finds them. Their tasks are spawned
    /// on `executor`.
    #[must_use]
    pub fn new(bus: &Rc<Vmbus<H>>, executor: &Rc<Executor>, config: ControllerConfig) -> Rc<Self> {
        Rc::new(Self {
            bus: bus.clone(),
            config,
            executor: executor.clone(),
            controllers: RefCell::default(),
            next_id: Rc::default(),
            shut: Cell::new(false),
        })
    }

    /// Gives each controller that is offered its task, for ever.
    pub async fn run(self: Rc<Self>) {
        loop {
            let seen = self.bus.changed().seen();
            for offer in self.bus.offers() {
                let is_first = offer.class == class::SCSI && offer.subchannel == 0;
                let known = |c: &Rc<Controller<H>>| c.instance() == offer.instance;
                if is_first && !self.controllers.borrow().iter().any(known) {
                    let controller =
                        Controller::new(&self.bus, offer.instance, self.config, &self.next_id);
                    controller.keep_shut(self.shut.get());
                    self.executor.spawn(controller.clone().run());
                    self.controllers.borrow_mut().push(controller);
                }
            }
            self.bus.changed().changed(seen).await;
        }
    }

    /// Whether disks that connect from now on keep their gates shut.
    pub fn keep_shut(&self, shut: bool) {
        self.shut.set(shut);
        for controller in self.controllers() {
            controller.keep_shut(shut);
        }
    }

    /// The controllers, in the order in which they came.
    #[must_use]
    pub fn controllers(&self) -> Vec<Rc<Controller<H>>> {
        self.controllers.borrow().clone()
    }

    /// Calls `visit` for each disk, without allocating.
    pub fn for_each(&self, mut visit: impl FnMut(&Unit<H>)) {
        for controller in self.controllers.borrow().iter() {
            controller.for_each(&mut visit);
        }
    }

    /// The disk of that name; of several that had it one after the other the one
    /// that has not failed.
    #[must_use]
    pub fn find(&self, id: DiskId) -> Option<Rc<Unit<H>>> {
        let controllers = self.controllers.borrow();
        let units = controllers.iter().flat_map(|c| c.units());
        let mut named: Vec<_> = units.filter(|unit| unit.id() == id).collect();
        named.sort_by_key(|unit| unit.state() == Lifecycle::Failed);
        named.into_iter().next()
    }
}
