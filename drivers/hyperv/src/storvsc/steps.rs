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
use firn_block::gate::Lifecycle;
use firn_block::{Armed, Completion, DiskStep, Durability, IoError, Queue, Request, TokenId, Why};
use firn_task::{Instant, race, timeout_at, yield_now};

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
        let front = self.front.borrow();
        match front.state() {
            Lifecycle::Live if front.info.durability == Durability::None => {
                Err(self.fails(DiskStep::Ask, WhyNot::NoFlush))
            }
            Lifecycle::Live => Ok(()),
            state => Err(self.fails(DiskStep::Ask, WhyNot::State(state))),
        }
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
    /// completion was handed out by [`Queue::poll`], which is the main loop's to
    /// call.
    ///
    /// # Errors
    /// [`WhyNot::Deadline`] with how much was left; [`WhyNot::State`] when the
    /// disk went or failed meanwhile.
    pub async fn drain(&self, until: Instant) -> Result<(), StepError> {
        let empty = || self.front.borrow().in_flight() == 0;
        let arm = || self.front.borrow_mut().arm();
        self.serve_until(DiskStep::Drain, until, arm, empty).await
    }

    /// Makes everything that has completed durable, with a flush of the kernel's
    /// own.
    ///
    /// # Errors
    /// [`WhyNot::NoFlush`], [`WhyNot::Io`], [`WhyNot::Deadline`],
    /// [`WhyNot::State`].
    pub async fn flush(&self, until: Instant) -> Result<(), StepError> {
        let step = DiskStep::Flush;
        let token = self.submit_flush().map_err(|why| self.fails(step, why))?;
        let mut result = None;
        let ended = || {
            let mut front = self.front.borrow_mut();
            front.private().poll(usize::MAX, &mut |done: Completion| {
                // Others are of an earlier freeze that nobody waited for.
                if done.token == token {
                    result = Some(done.result);
                }
            });
            result.is_some()
        };
        let arm = || self.front.borrow_mut().private().arm();
        self.serve_until(step, until, arm, ended).await?;
        match result {
            Some(Err(IoError::NotSupported)) => Err(self.fails(step, WhyNot::NoFlush)),
            Some(Err(error)) => Err(self.fails(step, WhyNot::Io(error))),
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn submit_flush(&self) -> Result<TokenId, WhyNot> {
        let mut front = self.front.borrow_mut();
        let mut queue = front.private();
        match queue.submit(Request::flush()) {
            Ok(token) => {
                queue.kick();
                let id = token.id();
                // The wait looks for the id.
                token.abandon();
                Ok(id)
            }
            Err(refused) => Err(match refused.why {
                Why::Unsupported(_) => WhyNot::NoFlush,
                Why::NotLive(state) => WhyNot::State(state),
                why => WhyNot::Refused(why),
            }),
        }
    }

    /// Serves the shut disk until `done`.
    async fn serve_until(
        &self,
        step: DiskStep,
        until: Instant,
        arm: impl Fn() -> Armed,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), StepError> {
        let wire = self.front.borrow().wire.clone();
        loop {
            let seen = wire.attention.seen();
            let events = wire.with(|link| Ok(link.channel.events()));
            let fired = events.as_ref().map_or(0, |events| events.seen());
            self.front.borrow_mut().notice_failure();
            let state = self.state();
            let (Lifecycle::Freezing, Some(events)) = (state, events) else {
                return Err(self.fails(step, WhyNot::State(state)));
            };
            if done() {
                return Ok(());
            }
            if wire.hv.hal.now() >= until {
                let in_flight = self.front.borrow().accepted.count();
                return Err(self.fails(step, WhyNot::Deadline { in_flight }));
            }
            if arm() == Armed::Poll {
                // The main loop takes what is there.
                yield_now().await;
                continue;
            }
            let news = race(wire.attention.changed(seen), events.changed(fired));
            // At the deadline, one more look.
            let _ = timeout_at(&*wire.hv, until, news).await;
        }
    }

    /// Looks whether anything is left: on the ring, accepted, or not handed out.
    ///
    /// # Errors
    /// [`WhyNot::Busy`] says what.
    pub fn check_idle(&self) -> Result<(), StepError> {
        let front = self.front.borrow();
        let why = match (front.state(), front.busy()) {
            (Lifecycle::Freezing, None) => return Ok(()),
            (Lifecycle::Freezing, Some(busy)) => WhyNot::Busy(busy),
            (state, _) => WhyNot::State(state),
        };
        drop(front);
        Err(self.fails(DiskStep::Idle, why))
    }
}

impl<H: Hal> Controller<H> {
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
            unit.front.borrow_mut().notice_failure();
            unit.check_idle()?;
        }
        let fails = |why| {
            let disk = units
                .first()
                .map_or(firn_block::DiskId(0), |unit| unit.id());
            let step = DiskStep::Disconnect;
            StepError { disk, step, why }
        };
        let Some(change) = self.change() else {
            return Err(fails(WhyNot::Connect(ConnectError::Busy)));
        };
        // From here on nothing reaches the ring: the disks have no box on it.
        for unit in &units {
            let mut front = unit.front.borrow_mut();
            front.inbox = None;
            front.buffers.forget_kernel();
        }
        let closed = self.close_link().await;
        for unit in &units {
            let to = match closed {
                Ok(()) => Lifecycle::Frozen,
                Err(_) => Lifecycle::Closed,
            };
            // Both are steps from where they are.
            let _ = unit.front.borrow_mut().step(to);
        }
        drop(change);
        self.changed.notify();
        closed.map_err(|error| fails(WhyNot::Connect(error)))
    }
}
