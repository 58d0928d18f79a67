//! The steps of a freeze and of the way back, each to be called by itself.
//!
//! Whoever freezes a machine puts the steps of all disks in order; a disk only
//! keeps its own. Forward: [`shut`](Vbd::shut), [`drain`](Vbd::drain),
//! [`flush`](Vbd::flush), [`check_idle`](Vbd::check_idle),
//! [`disconnect`](Vbd::disconnect); for the disk that holds the image,
//! [`connect`](Vbd::connect) on [`Terms::Image`], the image, and `disconnect`
//! again. Back: `connect` on [`Terms::Ordinary`] and [`open`](Vbd::open), or both
//! by [`thaw`](Vbd::thaw), from wherever a disk is.
//!
//! A step that fails, or whose future is dropped, loses nothing: the disk is
//! shut, and can be opened or connected again. A backend that left, or that did
//! not leave in time, is connected anew as soon as it can be. Nothing but `open`
//! opens a gate that was shut.

use super::step::{DiskStep, StepError, WhyNot};
use super::vbd::{Terms, Vbd, Wish};
use crate::hal::Hal;
use crate::trace::Source;
use firn_block::freeze;
use firn_block::gate::Lifecycle;
use firn_task::{Instant, timeout_at};

impl<H: Hal> Vbd<H> {
    fn fails(&self, step: DiskStep, why: WhyNot) -> StepError {
        let disk = self.id;
        StepError { disk, step, why }
    }

    /// Whether the disk could be frozen now: it is live, and can make durable
    /// what was written to it. Without any effect.
    ///
    /// # Errors
    /// What a freeze would fail with.
    pub fn ask(&self) -> Result<(), StepError> {
        let asked = freeze::ask(&mut *self.front.borrow_mut());
        asked.map_err(|why| self.fails(DiskStep::Ask, why))
    }

    /// Has a device that is not connected yet stay shut when it is.
    pub(crate) fn keep_shut(&self) {
        self.wish.set(Wish::Shut(Terms::Ordinary));
    }

    /// Shuts the gate: jobs' requests are refused from here on, before anything
    /// is touched. What was accepted goes on.
    ///
    /// # Errors
    /// [`WhyNot::State`] unless the disk is live.
    pub fn shut(&self) -> Result<(), StepError> {
        let state = self.state();
        if state != Lifecycle::Live {
            return Err(self.fails(DiskStep::Shut, WhyNot::State(state)));
        }
        self.wish.set(Wish::Shut(Terms::Ordinary));
        self.step(Lifecycle::Freezing);
        self.xen.record(Source::Vbd(self.number), "shut", 0);
        Ok(())
    }

    /// Waits until everything that jobs had in flight has completed and its
    /// completion was handed out by [`Queue::poll`](firn_block::Queue::poll), which
    /// is the main loop's to call. Asks for events by itself: also a disk whose jobs polled wakes the
    /// machine.
    ///
    /// # Errors
    /// [`WhyNot::Deadline`] with how much was left; [`WhyNot::State`] when the
    /// backend left meanwhile or the device failed.
    pub async fn drain(&self, until: Instant) -> Result<(), StepError> {
        let drained = freeze::drain(&self.front, &self.xen, until).await;
        self.served(DiskStep::Drain, drained)
    }

    /// Makes everything that has completed durable, with a flush of the kernel's
    /// own. A disk that cannot be written needs none.
    ///
    /// # Errors
    /// [`WhyNot::NoFlush`], [`WhyNot::Io`] when the backend failed it,
    /// [`WhyNot::Deadline`], [`WhyNot::State`].
    pub async fn flush(&self, until: Instant) -> Result<(), StepError> {
        let flushed = freeze::flush(&self.front, &self.xen, until).await;
        self.served(DiskStep::Flush, flushed)
    }

    fn served(&self, step: DiskStep, result: Result<(), WhyNot>) -> Result<(), StepError> {
        if result.is_ok() {
            self.xen.record(Source::Vbd(self.number), "served", 0);
        }
        result.map_err(|why| self.fails(step, why))
    }

    /// Looks whether anything is left: on the ring, accepted, or not handed out.
    ///
    /// # Errors
    /// [`WhyNot::Busy`] says what.
    pub fn check_idle(&self) -> Result<(), StepError> {
        let idle = freeze::check_idle(&mut *self.front.borrow_mut());
        idle.map_err(|why| self.fails(DiskStep::Idle, why))
    }

    /// Waits for what the kernel itself left in flight, and forgets it: whoever
    /// asked for it has given up by now. The memory may be registered again.
    async fn forget_private(&self, until: Instant) -> Result<(), StepError> {
        let ended = freeze::drain_private(&self.front, &self.xen, until).await;
        self.served(DiskStep::Disconnect, ended)?;
        self.front.borrow_mut().buffers.park_kernel();
        Ok(())
    }

    /// Disconnects an idle disk in good order: afterwards no page of it or of
    /// its buffers is mapped by anybody, and it is
    /// [`Frozen`](Lifecycle::Frozen). Requests of the kernel's own that nobody
    /// waits for any more are waited for.
    ///
    /// # Errors
    /// [`WhyNot::Deadline`] when those do not end by `until`.
    /// [`WhyNot::Busy`]: it stays connected. [`WhyNot::Connect`] when the
    /// backend did not close by `until`, or keeps pages mapped: the connection is given up, and the device connects anew when the backend has
    /// closed. [`WhyNot::State`], [`WhyNot::Removed`].
    pub async fn disconnect(&self, until: Instant) -> Result<(), StepError> {
        let step = DiskStep::Disconnect;
        self.forget_private(until).await?;
        let idle = self.check_idle();
        idle.map_err(|error| self.fails(step, error.why))?;
        self.freeze_until.set(until);
        *self.failure.borrow_mut() = None;
        self.wish.set(Wish::Frozen);
        self.call();
        // The store's own deadlines come on top.
        let give_up = until + self.config.deadline;
        self.reach(step, give_up, |state| match state {
            Lifecycle::Frozen => Some(true),
            Lifecycle::Freezing => None,
            _ => Some(false),
        })
        .await
    }

    /// Connects a disk that is shut, from wherever it is, and leaves it shut
    /// ([`Freezing`](Lifecycle::Freezing)): [`Front::private`](super::Front::private)
    /// is the way in. A connection on other terms is ended before. Where
    /// [`Queue::keeps_mapped`](firn_block::Queue::keeps_mapped) says no, all of
    /// memory may be registered as one region, at no cost, and requests carry
    /// [`Buffer::part`](firn_block::Buffer::part)s of it.
    ///
    /// # Errors
    /// [`WhyNot::Connect`]: it is frozen again and may be tried again.
    /// [`WhyNot::Deadline`]: still on the way. [`WhyNot::State`] of a disk that
    /// is open or failed, [`WhyNot::Removed`]; those of [`Vbd::disconnect`].
    pub async fn connect(&self, terms: Terms, until: Instant) -> Result<(), StepError> {
        let step = DiskStep::Connect;
        loop {
            let state = self.state();
            if state == Lifecycle::Live {
                return Err(self.fails(step, WhyNot::State(state)));
            }
            if state == Lifecycle::Freezing && !self.is_on(terms) {
                let closed = self.disconnect(until).await;
                closed.map_err(|error| self.fails(step, error.why))?;
            }
            self.arrive(terms, until).await?;
            // A handshake that was under way before may be what has ended.
            if self.is_on(terms) {
                return Ok(());
            }
        }
    }

    /// Whether a freeze, or the way back from it, left the disk where jobs cannot
    /// have it: disconnected, or connected on other terms than theirs. Only
    /// [`Vbd::connect`] brings it back.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self.state() {
            Lifecycle::Frozen => true,
            Lifecycle::Freezing => !self.is_on(Terms::Ordinary),
            _ => false,
        }
    }

    /// Whether the present connection was made on these terms.
    fn is_on(&self, terms: Terms) -> bool {
        self.agreed.get() == terms
    }

    /// Has the disk connect, on whatever terms it is about to.
    async fn arrive(&self, terms: Terms, until: Instant) -> Result<(), StepError> {
        if self.wish.get() != Wish::Shut(terms) {
            *self.failure.borrow_mut() = None;
            self.wish.set(Wish::Shut(terms));
            self.call();
        }
        let arrived = |state| match state {
            Lifecycle::Freezing => Some(true),
            Lifecycle::Failed | Lifecycle::Live => Some(false),
            // The wish was taken back: the handshake failed.
            Lifecycle::Frozen if self.wish.get() == Wish::Frozen => Some(false),
            _ => None,
        };
        self.reach(DiskStep::Connect, until, arrived).await
    }

    /// Opens the gate of a disk that is connected on ordinary terms. Does
    /// nothing on one that is open.
    ///
    /// # Errors
    /// [`WhyNot::State`] of a disk that is not connected like this.
    pub fn open(&self) -> Result<(), StepError> {
        match self.state() {
            Lifecycle::Live => return Ok(()),
            Lifecycle::Freezing if self.is_on(Terms::Ordinary) => {}
            state => return Err(self.fails(DiskStep::Open, WhyNot::State(state))),
        }
        // A flush of a freeze that was called off.
        self.front.borrow_mut().accepted.forget_kernel();
        self.wish.set(Wish::Open);
        self.step(Lifecycle::Live);
        Ok(())
    }

    /// Makes the disk live again, from wherever a freeze left it:
    /// [`Vbd::connect`] if need be, and [`Vbd::open`].
    ///
    /// # Errors
    /// As those two.
    pub async fn thaw(&self, until: Instant) -> Result<(), StepError> {
        let connected = self.connect(Terms::Ordinary, until).await;
        if self.state() != Lifecycle::Live {
            connected?;
        }
        self.open()
    }

    /// Has the device's task look at the wish.
    fn call(&self) {
        let attention = self.front.borrow().attention.clone();
        attention.notify();
    }

    /// Waits until `there` knows how it ended.
    async fn reach(
        &self,
        step: DiskStep,
        until: Instant,
        there: impl Fn(Lifecycle) -> Option<bool>,
    ) -> Result<(), StepError> {
        loop {
            let seen = self.changed.seen();
            let state = self.state();
            match there(state) {
                Some(true) => return Ok(()),
                Some(false) => {
                    let why = self.failure.borrow_mut().take();
                    return Err(self.fails(step, why.unwrap_or(WhyNot::State(state))));
                }
                None if self.removed.get() || self.ended.get() => {
                    return Err(self.fails(step, WhyNot::Removed));
                }
                None => {}
            }
            let changed = self.changed.changed(seen);
            if timeout_at(self.xen.clone(), until, changed).await.is_err() {
                let in_flight = self.front.borrow().accepted.count();
                return Err(self.fails(step, WhyNot::Deadline { in_flight }));
            }
        }
    }
}
