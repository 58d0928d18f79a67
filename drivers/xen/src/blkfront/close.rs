//! The end of a connection: in good order where the backend plays along, and
//! with everything accounted for where it does not.

use super::front::Link;
use super::offence::Offence;
use super::vbd::{End, OtherEnd, Vbd};
use crate::hal::Hal;
use crate::wire::xenbus::XenbusState;
use firn_block::IoError;
use firn_block::gate::Lifecycle;
use firn_task::timeout;

impl<H: Hal> Vbd<H> {
    /// Closes a connection that was live.
    pub(super) async fn close(&self, other: &mut OtherEnd<H>, end: End) {
        let error = match end {
            End::BackendCloses => {
                self.step(Lifecycle::Closing);
                self.drain().await;
                IoError::Gone
            }
            End::BackendGone => IoError::Gone,
            End::Offence => {
                self.try_switch(XenbusState::CLOSING).await;
                IoError::Gone
            }
        };
        self.try_switch(XenbusState::CLOSED).await;
        if end != End::BackendGone {
            // Until the backend is closed it may have our pages mapped. One
            // that never closes keeps them: they are deferred, not reused.
            let closed = self.wait_for(other, "close", |state| {
                matches!(state, XenbusState::CLOSED | XenbusState::UNKNOWN)
            });
            if let Err(error) = closed.await {
                log::warn!("{}: {error}", self.id);
            }
        }
        self.disconnect(error);
        self.step(Lifecycle::Closed);
    }

    /// Waits until everything on the ring has been answered; what is not there
    /// yet ends at once.
    async fn drain(&self) {
        let attention = self.front.borrow().attention.clone();
        self.front.borrow_mut().abort_unsent(IoError::Gone);
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

    fn outstanding(&self) -> u32 {
        let front = self.front.borrow();
        front
            .link
            .as_ref()
            .map_or(0, |link| link.ring.outstanding())
    }

    /// Takes the connection apart; what is still in flight ends with `error`.
    pub(super) fn disconnect(&self, error: IoError) {
        let link = {
            let mut front = self.front.borrow_mut();
            front.abort_all(error);
            front.link.take()
        };
        if let Some(link) = link {
            self.unlink(link);
        }
    }

    /// Gives back what a connection was made of.
    pub(super) fn unlink(&self, link: Link) {
        let xen = &self.xen;
        if let Err(errno) = xen.events.close(&xen.hal, link.port) {
            log::warn!("{}: {} does not close: {errno}", self.id, link.port);
        }
        xen.reclaim(link.ring.into_memory(), &link.ring_grants);
        if let Some(indirect) = link.indirect {
            xen.reclaim(indirect.memory, &indirect.grants);
        }
    }
}
