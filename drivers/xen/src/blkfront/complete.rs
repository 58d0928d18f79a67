//! From responses on the ring to completions.

use super::buffers;
use super::front::Front;
use super::offence::Offence;
use crate::grant::Reuse;
use crate::hal::Hal;
use crate::wire::blkif::{Response, Status};
use firn_block::{DataPath, Durability, IoError, Op};

impl<H: Hal> Front<H> {
    /// Reaps up to `budget` responses and sends what then fits.
    pub(super) fn take_responses(&mut self, budget: usize) {
        // A failed device's ring is not looked at any more, nor one that led to
        // a host that is gone.
        if !self.gate.state().uses_ring() {
            return;
        }
        let mut left = u32::try_from(budget).unwrap_or(u32::MAX);
        while left > 0 {
            let Some(link) = &mut self.link else { return };
            let waiting = match link.ring.responses() {
                Ok(0) => break,
                Ok(waiting) => waiting.min(left),
                Err(offence) => return self.fail(offence),
            };
            left -= waiting;
            for _ in 0..waiting {
                let Some(link) = &mut self.link else { return };
                let response = link.ring.reap();
                self.accepted.stats.ring_responses += 1;
                if let Err(offence) = self.take_response(response) {
                    return self.fail(offence);
                }
            }
        }
        if self.accepted.unsent() > 0 {
            self.fill_ring();
            self.publish();
        }
    }

    fn take_response(&mut self, response: Response) -> Result<(), Offence> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let slot = link.shadow.resolve(response.id)?;
        let answered = crate::wire::blkif::Operation(response.operation);
        if let Some(piece) = link.shadow.waits_for(slot)
            && piece.operation != answered
        {
            return Err(Offence::WrongOperation {
                asked: piece.operation,
                answered,
            });
        }
        let error = match Status(response.status) {
            Status::OKAY => None,
            Status::ERROR => Some(IoError::Failed {
                status: response.status,
            }),
            Status::EOPNOTSUPP => Some(IoError::NotSupported),
            unknown => return Err(Offence::UnknownStatus(unknown)),
        };
        self.end_grants(slot)?;
        self.finish_piece(slot, error);
        self.earn_event_credit();
        Ok(())
    }

    /// Ends the grants that were made for one piece. They are over: the backend
    /// answered. One that is still mapped means that the backend may yet write
    /// to the buffer.
    fn end_grants(&mut self, slot: u16) -> Result<(), Offence> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        while let Some(&grant) = link.shadow.kept(slot).last() {
            // Left in the list for the failing device to defer.
            if self.xen.grants.end(grant).is_err() {
                return Err(Offence::StillMapped(grant.0));
            }
            link.shadow.kept(slot).pop();
        }
        Ok(())
    }

    fn finish_piece(&mut self, slot: u16, error: Option<IoError>) {
        let Some(link) = &mut self.link else { return };
        let Some(piece) = link.shadow.finish(slot) else {
            return;
        };
        let Some(op) = self.accepted.end_piece(piece.parent, error) else {
            return;
        };
        if error == Some(IoError::NotSupported) {
            self.withdraw(op);
        }
        self.finish_parent(piece.parent);
    }

    /// The backend does not do an operation any more: later ones are refused,
    /// rather than appear to succeed.
    fn withdraw(&mut self, op: Op) {
        match op {
            Op::Flush => self.info.durability = Durability::None,
            Op::Discard { .. } => self.info.discard = None,
            Op::Read | Op::Write => return,
        }
        log::warn!("{}: the backend withdrew {op}", self.info.id);
    }

    /// Hands a request out if all of it has ended.
    pub(super) fn finish_parent(&mut self, index: u16) {
        let buffers = &mut self.buffers;
        let ended = self
            .accepted
            .finish(index, |buffer| buffers.quarantine(buffer));
        if ended && !self.gate.is_open() && self.accepted.count() == 0 {
            // Whoever closes the disk waits for this. A live disk is idle all
            // the time; waking the control path then would cost xenstore reads.
            self.attention.notify();
        }
    }

    /// Ends every accepted request with `error`, whatever the ring says. Grants
    /// that the backend still holds are deferred, and buffers with such pages
    /// are not handed out; those that it may yet look up are set aside.
    pub(super) fn abort_all(&mut self, error: IoError) {
        self.abort_unsent(error);
        let reuse = Reuse::AfterDevice(self.number);
        buffers::revoke_all(&mut self.buffers, &self.xen, reuse);
        let now = self.xen.hal.now();
        let waiting = match &self.link {
            Some(link) => link.shadow.waiting(),
            None => return self.abort_unconnected(error),
        };
        for slot in waiting {
            let Some(link) = &mut self.link else { return };
            let mut reachable = false;
            while let Some(grant) = link.shadow.kept(slot).pop() {
                reachable |= !self.xen.grants.end_or_defer(grant, reuse, now);
            }
            if let Some(piece) = link.shadow.waits_for(slot)
                && let Some(parent) = self.accepted.get_mut(piece.parent)
                && let Some(buffer) = &parent.request.buffer
            {
                parent.withhold |= reachable || !self.buffers.owns(buffer);
            }
            self.finish_piece(slot, Some(error));
        }
    }

    /// The same without a ring: the host went before it knew of anything.
    fn abort_unconnected(&mut self, error: IoError) {
        for index in self.accepted.indices() {
            self.end_parent(index, error);
        }
    }

    /// Ends what never reached the ring with `error`.
    pub(super) fn abort_unsent(&mut self, error: IoError) {
        while let Some(index) = self.accepted.pop_unsent() {
            self.end_parent(index, error);
        }
    }

    /// Sends no more of a request and ends it, once nothing of it is on the
    /// ring.
    pub(super) fn end_parent(&mut self, index: u16, error: IoError) {
        self.accepted.give_up(index, error);
        self.finish_parent(index);
    }
}
