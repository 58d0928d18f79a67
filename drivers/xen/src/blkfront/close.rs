//! The end of a connection: in good order where the backend plays along, and
//! with everything accounted for where it does not.

use super::buffers;
use super::connect::ConnectError;
use super::front::Link;
use super::offence::Offence;
use super::step::WhyNot;
use super::vbd::{End, OtherEnd, Terms, Vbd, Wish};
use crate::grant::Reuse;
use crate::hal::Hal;
use crate::wire::xenbus::XenbusState;
use core::time::Duration;
use firn_block::IoError;
use firn_block::gate::Lifecycle;
use firn_task::{Instant, sleep_until, timeout};

/// How long to wait before asking again for a page that is still mapped.
const MAPPED_PATIENCE: Duration = Duration::from_millis(10);

impl<H: Hal> Vbd<H> {
    /// Closes a connection that was live.
    ///
    /// # Errors
    /// When the host changed meanwhile: nothing is closed then.
    pub(super) async fn close(
        &self,
        other: &mut OtherEnd<H>,
        end: End,
    ) -> Result<(), ConnectError> {
        match end {
            End::Freeze => return self.close_for_freeze(other).await,
            End::BackendCloses => {
                // A freeze promised that what was accepted completes.
                let frozen = self.front.borrow().state() == Lifecycle::Freezing;
                self.step(Lifecycle::Closing);
                if !frozen {
                    self.front.borrow_mut().abort_unsent(IoError::Gone);
                }
                self.drain_ring().await;
            }
            End::BackendGone => {}
            End::Offence => self.try_switch(other, XenbusState::CLOSING).await,
        }
        self.try_switch(other, XenbusState::CLOSED).await;
        let mut done = end == End::BackendGone;
        if !done {
            // Until the backend is closed it may have our pages mapped, or be about
            // to. One that never closes keeps them: they are deferred, not reused.
            let until = self.step_deadline();
            let closed = self.wait_until_closed(other, until).await;
            done = closed.is_ok();
            if let Err(error) = closed {
                self.check_host(other)?;
                log::warn!("{}: {error}", self.id);
            }
        }
        self.check_host(other)?;
        self.cut(IoError::Gone);
        if done {
            self.free_what_was_told();
        }
        self.step(Lifecycle::Closed);
        Ok(())
    }

    /// Closes a connection with nothing in flight because the kernel wants it:
    /// the disk is frozen then. If the backend does not play along, the
    /// connection is given up as always, and made anew when it can be.
    async fn close_for_freeze(&self, other: &mut OtherEnd<H>) -> Result<(), ConnectError> {
        let until = self.freeze_until.get();
        let closed = match self.say_goodbye(other, until).await {
            Ok(()) => self.take_back_buffers(until).await,
            Err(error) => {
                self.check_host(other)?;
                Err(WhyNot::Connect(error))
            }
        };
        match closed {
            Ok(()) => {
                self.cut(IoError::Gone);
                self.free_what_was_told();
                self.step(Lifecycle::Frozen);
            }
            Err(why) => {
                *self.failure.borrow_mut() = Some(why);
                self.wish.set(Wish::Shut(Terms::Ordinary));
                self.comes_back.set(true);
                let link = self.front.borrow_mut().link.take();
                if let Some(link) = link {
                    self.unlink(link);
                }
                self.step(Lifecycle::Closed);
            }
        }
        Ok(())
    }

    async fn say_goodbye(
        &self,
        other: &mut OtherEnd<H>,
        until: Instant,
    ) -> Result<(), ConnectError> {
        self.switch(other, XenbusState::CLOSING).await?;
        let follows = |state| Ok(state >= XenbusState::CLOSING || state == XenbusState::UNKNOWN);
        let step = "follow to Closing";
        self.wait_for(other, until, step, follows).await?;
        self.switch(other, XenbusState::CLOSED).await?;
        self.wait_until_closed(other, until).await
    }

    pub(super) async fn wait_until_closed(
        &self,
        other: &mut OtherEnd<H>,
        until: Instant,
    ) -> Result<(), ConnectError> {
        let closed = |state| Ok(matches!(state, XenbusState::CLOSED | XenbusState::UNKNOWN));
        self.wait_for(other, until, "close", closed).await
    }

    /// Ends the permanent grants of registered buffers. They are job memory,
    /// which is about to be saved: nobody else may have it mapped.
    async fn take_back_buffers(&self, until: Instant) -> Result<(), WhyNot> {
        loop {
            let stuck = buffers::end_all(&mut self.front.borrow_mut().buffers, &self.xen);
            let Some((first, grants)) = stuck else {
                return Ok(());
            };
            let now = self.xen.hal.now();
            if now >= until {
                let still = ConnectError::StillMapped { first, grants };
                return Err(WhyNot::Connect(still));
            }
            sleep_until(self.xen.clone(), (now + MAPPED_PATIENCE).min(until)).await;
        }
    }

    /// Waits until everything on the ring has been answered.
    async fn drain_ring(&self) {
        let attention = self.front.borrow().attention.clone();
        let idle = async {
            loop {
                let seen = attention.seen();
                if self.outstanding() == 0 {
                    return;
                }
                attention.changed(seen).await;
            }
        };
        let limit = self.config.deadline;
        if timeout(self.xen.clone(), limit, idle).await.is_err() {
            let outstanding = self.outstanding();
            let mut front = self.front.borrow_mut();
            front.fail(Offence::NoAnswer { outstanding });
        }
    }

    pub(super) fn outstanding(&self) -> u32 {
        let front = self.front.borrow();
        front
            .link
            .as_ref()
            .map_or(0, |link| link.ring.outstanding())
    }

    /// Takes the connection apart; what is still in flight ends with `error`.
    pub(super) fn cut(&self, error: IoError) {
        let link = {
            let mut front = self.front.borrow_mut();
            front.abort_all(error);
            front.link.take()
        };
        if let Some(link) = link {
            self.unlink(link);
        }
    }

    /// Gives back the memory that a connection was made of. The numbers that the
    /// backend was told of wait for [`Vbd::free_what_was_told`].
    pub(super) fn unlink(&self, link: Link) {
        let xen = &self.xen;
        if link.generation != xen.generation() {
            return link.forget(xen);
        }
        xen.events.mask(link.port);
        self.told.borrow_mut().push((link.generation, link.port));
        let reuse = Reuse::AfterDevice(self.number);
        xen.reclaim(link.ring.into_memory(), &link.ring_grants, reuse);
        if let Some(indirect) = link.indirect {
            xen.reclaim(indirect.memory, &indirect.grants, reuse);
        }
    }

    /// The backend is done with all connections that were unlinked: their grant
    /// references and ports may stand for something else.
    pub(super) fn free_what_was_told(&self) {
        let xen = &self.xen;
        xen.grants.free_set_aside(self.number);
        for (generation, port) in self.told.borrow_mut().drain(..) {
            if generation != xen.generation() {
                continue;
            }
            if let Err(errno) = xen.events.close(&xen.hal, port) {
                log::warn!("{}: {port} does not close: {errno}", self.id);
            }
        }
    }
}
