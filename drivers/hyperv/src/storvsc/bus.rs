//! All SCSI controllers that the host offers: each gets its task.

use super::controller::{Controller, ControllerConfig};
use super::disks::Unit;
use super::error::StepError;
use crate::hal::Hal;
use crate::vmbus::{BusState, Vmbus};
use crate::wire::Guid;
use crate::wire::vmbus::class;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_task::{Executor, Signal, race};

/// A disk, and whose it is.
pub type WithController<H> = (Rc<Controller<H>>, Rc<Unit<H>>);

/// The controllers of a bus. Shared by [`Rc`] on one vCPU.
pub struct ScsiBus<H: Hal> {
    bus: Rc<Vmbus<H>>,
    config: ControllerConfig,
    executor: Rc<Executor>,
    controllers: RefCell<Vec<Rc<Controller<H>>>>,
    next_id: Rc<Cell<u32>>,
    /// Disks of controllers that come connect with their gates shut.
    shut: Cell<bool>,
    /// Controllers that come now have to wait.
    held: Cell<bool>,
    /// The controllers that were there at the first contact have their tasks.
    scanned: Cell<bool>,
    changed: Rc<Signal>,
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
            next_id: Rc::new(Cell::new(DiskId::scsi(0).0)),
            shut: Cell::new(false),
            held: Cell::new(false),
            scanned: Cell::new(false),
            changed: Rc::new(Signal::new()),
        })
    }

    /// Gives each controller that is offered its task, for ever. One after the
    /// other: so a disk's name depends on its controller and its number there, not
    /// on who is faster. The first ones when all are known, by their instances.
    pub async fn run(self: Rc<Self>) {
        loop {
            let (seen, ours) = (self.bus.changed().seen(), self.changed.seen());
            if self.bus.is_complete() && !self.held.get() {
                while let Some(instance) = self.next() {
                    self.take_up(instance).await;
                }
                self.scanned.set(true);
            }
            race(self.bus.changed().changed(seen), self.changed.changed(ours)).await;
        }
    }

    /// A controller that is offered and has no task.
    fn next(&self) -> Option<Guid> {
        let controllers = self.controllers.borrow();
        let known = |instance| controllers.iter().any(|c| c.instance() == instance);
        let offers = self.bus.offers().into_iter();
        let first = offers.filter(|offer| offer.class == class::SCSI && offer.subchannel == 0);
        let instances = first.map(|offer| offer.instance);
        instances.filter(|instance| !known(*instance)).min()
    }

    async fn take_up(&self, instance: Guid) {
        let controller = Controller::new(
            &self.bus,
            instance,
            self.config,
            &self.next_id,
            &self.changed,
        );
        controller.keep_shut(self.shut.get());
        self.executor.spawn(controller.clone().run());
        self.controllers.borrow_mut().push(controller.clone());
        loop {
            let seen = self.changed.seen();
            if controller.is_settled() {
                return;
            }
            self.changed.changed(seen).await;
        }
    }

    /// Notified when a controller or a disk came, went or changed its state.
    #[must_use]
    pub const fn changed(&self) -> &Rc<Signal> {
        &self.changed
    }

    /// Whether the controllers that were there at the first contact are known, and
    /// each is connected or has failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let all = self.controllers.borrow();
        self.scanned.get() && all.iter().all(|controller| controller.is_settled())
    }

    /// What keeps the disks that the host has from being known; `None` as well
    /// where there is no bus, and so no disk.
    #[must_use]
    pub fn unseen(&self) -> Option<&'static str> {
        match self.bus.state() {
            BusState::Disconnected | BusState::Failed => return None,
            BusState::Changing => return Some("the host has not answered on VMBus"),
            BusState::Connected(_) => {}
        }
        if !self.scanned.get() {
            return Some("the host has not said which controllers there are");
        }
        let all = self.controllers.borrow();
        all.iter().find_map(|controller| controller.unseen())
    }

    /// Takes up no more controllers, or takes up what came meanwhile: a freeze
    /// goes by the list that it began with.
    pub fn hold(&self, hold: bool) {
        if self.held.replace(hold) && !hold {
            self.changed.notify();
        }
    }

    /// Disconnects the controllers without a connected disk: the bus is not to be
    /// unloaded while a channel is open.
    ///
    /// # Errors
    /// The first [`StepError`]; the others were disconnected all the same.
    pub async fn disconnect_idle(&self) -> Result<(), StepError> {
        let mut all = Ok(());
        for controller in self.controllers() {
            if !controller.is_used() {
                all = all.and(controller.disconnect().await);
            }
        }
        all
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
    /// that has not failed. Does not allocate.
    #[must_use]
    pub fn find(&self, id: DiskId) -> Option<Rc<Unit<H>>> {
        self.find_with_controller(id).map(|(_, unit)| unit)
    }

    /// The disk of that name, and whose it is.
    #[must_use]
    pub fn find_with_controller(&self, id: DiskId) -> Option<WithController<H>> {
        let mut found = None;
        for controller in self.controllers.borrow().iter() {
            if let Some(unit) = controller.find(id) {
                let failed = unit.state() == Lifecycle::Failed;
                found = Some((controller.clone(), unit));
                if !failed {
                    break;
                }
            }
        }
        found
    }
}
