//! What becomes of requests in flight when the host changes under a disk.
//!
//! Responses are taken one last time before the host saves the memory. What it
//! answers after that is not believed: it may have saved a page of data before
//! the answer, and the answer's page after it. So everything without a reaped
//! response is issued again, as a whole, from the private record: reads, writes
//! and discards may be done twice, and an unanswered flush must be.

use super::buffers;
use super::front::Front;
use super::step::{DiskStep, StepError, WhyNot};
use super::vbd::Vbd;
use crate::hal::Hal;
use firn_block::gate::{Lifecycle, WrongStep};
use firn_block::{Durability, IoError, Op};

impl<H: Hal> Front<H> {
    /// Gets ready for the host to take the memory: completions that are there
    /// are taken, everything else stays where it is. Devices without a
    /// connection have nothing to do. What was read is in the memory that moves.
    ///
    /// # Errors
    /// [`WrongStep`] in the middle of a freeze or a thaw: one or the other.
    pub(super) fn suspend(&mut self) -> Result<(), WrongStep> {
        self.stop_here()?;
        // Last: what is read after this is read again.
        buffers::note_changed(&self.buffers, &self.xen);
        Ok(())
    }

    fn stop_here(&mut self) -> Result<(), WrongStep> {
        let from = self.state();
        match from {
            Lifecycle::Live | Lifecycle::Closing | Lifecycle::Reissuing => {
                self.take_responses(usize::MAX);
                // The backend may have broken a rule just now.
                if self.state() == from {
                    self.advance(Lifecycle::Suspended)?;
                    self.suspended_from = Some(from);
                }
                Ok(())
            }
            Lifecycle::Freezing | Lifecycle::Thawing => Err(WrongStep {
                from,
                to: Lifecycle::Suspended,
            }),
            Lifecycle::Connecting
            | Lifecycle::Frozen
            | Lifecycle::Suspended
            | Lifecycle::Closed
            | Lifecycle::Failed => Ok(()),
        }
    }

    /// Goes on as if nothing had been: the same host is at the other end.
    pub(super) fn cancel_suspend(&mut self) {
        // Not what an earlier suspend left, which was carried out.
        if let Some(from) = self.suspended_from.take() {
            // The table has every way back that `suspend` came from.
            let _ = self.step(from);
        }
    }

    /// The host is another one. The ring leads nowhere, nobody maps any page,
    /// and what was in flight is to be sent again from its beginning.
    pub(super) fn lose_host(&mut self) {
        if let Some(link) = self.link.take() {
            link.forget(&self.xen);
        }
        self.suspended_from = None;
        buffers::forget_grants(&mut self.buffers);
        self.accepted.send_again();
        self.attention.notify();
    }

    /// Ends what the disk cannot carry out as it is now. A flush that is not
    /// offered any more fails: it does not quietly succeed.
    pub(super) fn drop_unfit(&mut self) {
        for _ in 0..self.accepted.unsent() {
            let Some(index) = self.accepted.pop_unsent() else {
                return;
            };
            let Some(parent) = self.accepted.get(index) else {
                continue;
            };
            let flush = parent.request.op == Op::Flush;
            let error = match self
                .info
                .check(&parent.request, |buffer| self.buffers.owns(buffer))
            {
                _ if parent.error.is_some() => parent.error,
                Ok(()) => None,
                Err(_) if flush && self.info.durability == Durability::None => {
                    Some(IoError::NotSupported)
                }
                Err(why) => Some(IoError::DiskChanged(why)),
            };
            match error {
                None => self.accepted.push_unsent(index),
                Some(error) => self.end_parent(index, error),
            }
        }
    }
}

impl<H: Hal> Vbd<H> {
    /// Gets ready for the host to take the memory ([`Lifecycle::Suspended`]):
    /// does as little as possible, and waits for nothing. New requests are
    /// accepted and wait.
    ///
    /// # Errors
    /// [`WhyNot::State`] in the middle of a freeze or a thaw: one or the other.
    pub fn suspend(&self) -> Result<(), StepError> {
        let suspended = self.front.borrow_mut().suspend();
        suspended.map_err(|wrong| StepError {
            disk: self.id,
            step: DiskStep::Suspend,
            why: WhyNot::State(wrong.from),
        })
    }

    /// Goes on as if nothing had been: the host cancelled the suspend.
    pub fn cancel_suspend(&self) {
        self.front.borrow_mut().cancel_suspend();
    }

    /// Tells the device that the host is another one now. Its task connects
    /// anew, and issues again what was in flight before anything newer. To be
    /// called after [`Xen::resume`](crate::Xen::resume).
    pub fn resume(&self) {
        self.be_patient();
        self.front.borrow_mut().lose_host();
        self.changed.notify();
    }
}
