//! The steps of a freeze and of the way back, each to be called by itself: those
//! of a disk, and those of its controller.
//!
//! Forward: every disk [`ask`](Unit::ask)ed, [`shut`](Unit::shut),
//! [`drain`](Unit::drain)ed, [`flush`](Unit::flush)ed, and
//! [`idle`](Unit::check_idle); then its controller
//! [`disconnect`](Controller::disconnect)ed. Back: the controller
//! [`connect`](Controller::connect)ed, which leaves disks shut that were frozen,
//! and each disk [`open`](Unit::open)ed.

use super::controller::Controller;
use super::disks::Unit;
use super::error::{ConnectError, StepError, WhyNot};
use crate::hal::Hal;
use crate::machine::HyperV;
use alloc::rc::Rc;
use alloc::vec::Vec;
use firn_block::gate::Lifecycle;
use firn_block::{DiskId, DiskStep, freeze};
use firn_task::{Instant, timeout_at};

impl<H: Hal> Unit<H> {
    const fn fails(&self, step: DiskStep, why: WhyNot) -> StepError {
        let disk = self.id();
        StepError { disk, step, why }
    }

    /// Whether the disk could be frozen now. Without any effect.
    ///
    /// # Errors
    /// What a freeze would fail with.
    pub fn ask(&self) -> Result<(), StepError> {
        let asked = freeze::ask(&mut *self.front.borrow_mut());
        asked.map_err(|why| self.fails(DiskStep::Ask, why))
    }

    /// Shuts the gate: jobs' requests are refused from here on, before anything
    /// is touched. What was accepted goes on.
    ///
    /// # Errors
    /// [`WhyNot::State`] unless the disk is live.
    pub fn shut(&self) -> Result<(), StepError> {
        self.step(DiskStep::Shut, Lifecycle::Live, Lifecycle::Freezing)
    }

    /// Opens the gate of a disk that is connected and shut.
    ///
    /// # Errors
    /// [`WhyNot::State`] of a disk that is not.
    pub fn open(&self) -> Result<(), StepError> {
        self.step(DiskStep::Open, Lifecycle::Freezing, Lifecycle::Live)
    }

    fn step(&self, step: DiskStep, from: Lifecycle, to: Lifecycle) -> Result<(), StepError> {
        let mut front = self.front.borrow_mut();
        front.notice_failure();
        let state = front.state();
        if state != from || front.step(to).is_err() {
            return Err(self.fails(step, WhyNot::State(state)));
        }
        Ok(())
    }

    /// Waits until everything that jobs had in flight has completed and its
    /// completion was handed out by [`Queue::poll`](firn_block::Queue::poll), which
    /// is the main loop's to call.
    ///
    /// # Errors
    /// [`WhyNot::Deadline`] with how much was left; [`WhyNot::State`] when the
    /// disk went or failed meanwhile.
    pub async fn drain(&self, until: Instant) -> Result<(), StepError> {
        let drained = freeze::drain(&self.front, &*self.hv(), until).await;
        drained.map_err(|why| self.fails(DiskStep::Drain, why))
    }

    /// Makes everything that has completed durable, with a flush of the kernel's
    /// own.
    ///
    /// # Errors
    /// [`WhyNot::NoFlush`], [`WhyNot::Io`], [`WhyNot::Deadline`],
    /// [`WhyNot::State`].
    pub async fn flush(&self, until: Instant) -> Result<(), StepError> {
        let flushed = freeze::flush(&self.front, &*self.hv(), until).await;
        flushed.map_err(|why| self.fails(DiskStep::Flush, why))
    }

    fn hv(&self) -> Rc<HyperV<H>> {
        self.front.borrow().wire.hv.clone()
    }

    /// Looks whether anything is left: on the ring, accepted, or not handed out.
    ///
    /// # Errors
    /// [`WhyNot::Busy`] says what.
    pub fn check_idle(&self) -> Result<(), StepError> {
        let idle = freeze::check_idle(&mut *self.front.borrow_mut());
        idle.map_err(|why| self.fails(DiskStep::Idle, why))
    }
}

/// Disks without a ring: where they go when that is dropped, at whatever moment.
struct Leaving<H: Hal> {
    units: Vec<Rc<Unit<H>>>,
    to: Lifecycle,
}

impl<H: Hal> Drop for Leaving<H> {
    fn drop(&mut self) {
        for unit in &self.units {
            // It is a step from where they are.
            let _ = unit.front.borrow_mut().step(self.to);
        }
    }
}

impl<H: Hal> Controller<H> {
    /// Takes one shut disk off the channel, once what the kernel itself has in
    /// flight on it has ended: afterwards the host reaches nothing of the disk, and
    /// it is [`Frozen`](Lifecycle::Frozen). With the last one the channel is
    /// closed.
    ///
    /// # Errors
    /// [`WhyNot::Deadline`], [`WhyNot::Busy`]: it stays connected. Those of
    /// [`Controller::disconnect`].
    pub async fn detach(&self, unit: &Unit<H>, until: Instant) -> Result<(), StepError> {
        let drained = freeze::drain_private(&unit.front, &*self.wire.hv, until).await;
        drained.map_err(|why| unit.fails(DiskStep::Disconnect, why))?;
        unit.check_idle()?;
        unit.wanted.set(false);
        let connected = |unit: &Unit<H>| unit.front.borrow().inbox.is_some();
        let others = |other: &Rc<Unit<H>>| other.id() != unit.id() && connected(other);
        if !self.units().iter().any(others) {
            let closed = timeout_at(&*self.wire.hv, until, self.disconnect()).await;
            let late = WhyNot::Deadline { in_flight: 0 };
            return closed.unwrap_or_else(|_| Err(unit.fails(DiskStep::Disconnect, late)));
        }
        let mut front = unit.front.borrow_mut();
        front.spare = front.inbox.take();
        front.buffers.forget_kernel();
        // Freezing, as it was idle.
        let _ = front.step(Lifecycle::Frozen);
        drop(front);
        self.changed.notify();
        Ok(())
    }

    /// Brings a disk back, shut: onto the channel that there is, or by a new one,
    /// which others that were taken off do not share.
    ///
    /// # Errors
    /// [`WhyNot::Connect`]; [`WhyNot::State`] of a disk that is open or has failed,
    /// or that the host does not have any more; [`WhyNot::Deadline`].
    pub async fn attach(&self, unit: &Unit<H>, until: Instant) -> Result<(), StepError> {
        let fails = |why| unit.fails(DiskStep::Connect, why);
        unit.wanted.set(true);
        loop {
            let seen = self.changed.seen();
            let state = unit.state();
            match state {
                Lifecycle::Freezing => return Ok(()),
                Lifecycle::Live | Lifecycle::Failed => return Err(fails(WhyNot::State(state))),
                _ => {}
            }
            if self.changing.get() {
                let changed = self.changed.changed(seen);
                if timeout_at(&*self.wire.hv, until, changed).await.is_err() {
                    return Err(fails(WhyNot::Deadline { in_flight: 0 }));
                }
                continue;
            }
            if !self.ready.get() {
                unit.stays_shut.set(true);
                let connected = timeout_at(&*self.wire.hv, until, self.connect()).await;
                unit.stays_shut.set(false);
                match connected {
                    Ok(connected) => connected.map_err(|error| fails(WhyNot::Connect(error)))?,
                    Err(_) => return Err(fails(WhyNot::Deadline { in_flight: 0 })),
                }
            } else if state == Lifecycle::Frozen && unit.found.get() {
                let mut front = unit.front.borrow_mut();
                if let Some(link) = self.wire.link.borrow_mut().as_mut() {
                    front.attach(link);
                }
                let _ = front.step(Lifecycle::Thawing);
                let _ = front.step(Lifecycle::Freezing);
                drop(front);
                self.changed.notify();
            }
            let state = unit.state();
            if state != Lifecycle::Freezing {
                return Err(fails(WhyNot::State(state)));
            }
        }
    }

    /// Closes the channel of a controller whose disks are all shut and idle:
    /// afterwards the host reaches no memory of it, and they are
    /// [`Frozen`](Lifecycle::Frozen).
    ///
    /// # Errors
    /// The first disk that is not idle: nothing was done then.
    /// [`WhyNot::Connect`]: the memory of the channel is given up, and the disks
    /// are closed; they connect again by [`Controller::connect`].
    pub async fn disconnect(&self) -> Result<(), StepError> {
        let connected = |state| matches!(state, Lifecycle::Live | Lifecycle::Freezing);
        let mut units = self.units();
        units.retain(|unit| connected(unit.state()));
        for unit in &units {
            unit.check_idle()?;
        }
        let disk = units.first().map_or(DiskId(0), |unit| unit.id());
        let step = DiskStep::Disconnect;
        let fails = |why| StepError { disk, step, why };
        let Some(change) = self.change() else {
            return Err(fails(WhyNot::Connect(ConnectError::Busy)));
        };
        // From here on nothing reaches the ring: the disks have no box on it.
        for unit in &units {
            let mut front = unit.front.borrow_mut();
            front.inbox = None;
            front.buffers.forget_kernel();
        }
        let mut leaving = Leaving {
            units,
            to: Lifecycle::Closed,
        };
        let closed = self.close_link().await;
        if closed.is_ok() {
            leaving.to = Lifecycle::Frozen;
        }
        drop(leaving);
        drop(change);
        self.changed.notify();
        closed.map_err(|error| fails(WhyNot::Connect(error)))
    }
}
