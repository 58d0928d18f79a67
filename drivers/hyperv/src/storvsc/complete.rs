//! From the ends of pieces to completions.

use super::front::Front;
use super::link::Piece;
use super::packet::Ended;
use crate::hal::Hal;
use firn_block::gate::Lifecycle;
use firn_block::{DataPath as _, Durability, IoError, Op, SECTOR, Why};
use firn_scsi::{Attention, Condition};

/// How often a piece is sent that the disk did not carry out for a reason that
/// passes.
const MOST_TRIES: u8 = 5;
/// The same for a reason that takes time to pass.
const MOST_PAUSES: u8 = 100;

/// What becomes of a piece.
enum Verdict {
    Over(Option<IoError>),
    Again,
    AfterPause,
}

impl<H: Hal> Front<H> {
    /// Takes up to `budget` packets off the ring, whosesoever they are, ends what
    /// has ended of this disk's, and sends what then fits.
    pub(super) fn take_packets(&mut self, budget: usize) {
        if !self.gate.state().uses_ring() {
            return;
        }
        let wire = self.wire.clone();
        let _ = wire.with(|link| link.reap(budget));
        self.notice_failure();
        let Some(inbox) = self.inbox else { return };
        let mut ended = 0;
        while let Some(Some((piece, end))) = wire.with(|link| Ok(link.next_end(inbox))) {
            ended += 1;
            self.end_piece(piece, end);
        }
        self.accepted.stats.ring_responses += ended;
        if self.accepted.unsent() > 0 || !self.again.is_empty() {
            self.fill_ring();
            self.publish();
            self.notice_failure();
        }
    }

    fn end_piece(&mut self, piece: Piece, end: Ended) {
        let Some(op) = self.accepted.get(piece.parent).map(|p| p.request.op) else {
            return;
        };
        match self.judge(op, piece, end) {
            Verdict::Again if piece.tries < MOST_TRIES => {
                let tries = piece.tries + 1;
                self.again.push_back(Piece { tries, ..piece });
            }
            Verdict::AfterPause if piece.tries < MOST_PAUSES => {
                let tries = piece.tries + 1;
                self.paused.push_back(Piece { tries, ..piece });
                self.wire.attention.notify();
            }
            Verdict::Again | Verdict::AfterPause => {
                let error = IoError::Reported("the disk is not ready for too long");
                self.accepted.end_piece(piece.parent, Some(error));
                self.finish(piece.parent);
            }
            Verdict::Over(error) => {
                self.accepted.end_piece(piece.parent, error);
                self.finish(piece.parent);
            }
        }
    }

    fn judge(&mut self, op: Op, piece: Piece, end: Ended) -> Verdict {
        Verdict::Over(match end {
            Ended::Good(moved) => {
                let whole = u64::from(moved) == piece.sectors * SECTOR;
                let short = op.has_data() && !whole;
                short.then_some(IoError::Reported("fewer bytes were moved than asked for"))
            }
            Ended::Bad(condition) => {
                self.heed(condition);
                match condition {
                    Condition::BecomingReady => return Verdict::AfterPause,
                    condition if condition.is_passing() => return Verdict::Again,
                    _ => {}
                }
                Some(self.error(op, condition))
            }
            Ended::Unexplained(_) => Some(IoError::Reported("an error without an explanation")),
            Ended::NoUnit => Some(IoError::Gone),
            Ended::Failed(_, firn_scsi::Status::BUSY | firn_scsi::Status::TASK_SET_FULL) => {
                return Verdict::AfterPause;
            }
            Ended::Failed(srb, _) => Some(IoError::Failed {
                status: srb.0.into(),
            }),
        })
    }

    /// What the disk says of itself by the way.
    fn heed(&mut self, condition: Condition) {
        if let Condition::Attention(attention) = condition {
            log::info!("{}: {condition}", self.info.id);
            self.changed |= attention != Attention::Reset;
            self.wire.attention.notify();
        }
    }

    /// What a condition means for a request. An operation that the disk does not
    /// know is not offered any more, rather than appear to succeed.
    fn error(&mut self, op: Op, condition: Condition) -> IoError {
        match (condition, op) {
            (Condition::UnknownCommand | Condition::InvalidField, Op::Flush) => {
                log::warn!("{}: the disk does not do {op}", self.info.id);
                self.info.durability = Durability::None;
                IoError::NotSupported
            }
            (Condition::UnknownCommand | Condition::InvalidField, Op::Discard { .. }) => {
                log::warn!("{}: the disk does not do {op}", self.info.id);
                self.info.discard = None;
                IoError::NotSupported
            }
            (Condition::OutOfRange, _) => {
                self.changed = true;
                self.wire.attention.notify();
                let capacity = self.info.capacity;
                IoError::DiskChanged(Why::OutOfRange { capacity })
            }
            (Condition::NoUnit, _) => IoError::Gone,
            (other, _) => IoError::Reported(other.name()),
        }
    }

    /// Sends again what the disk was too busy for.
    pub(super) fn end_pause(&mut self) {
        self.again.append(&mut self.paused);
        self.fill_ring();
        self.publish();
    }

    /// Fails the disk if the host has broken a rule on its controller's link.
    pub(super) fn notice_failure(&mut self) {
        let Some(offence) = self.wire.offence.get() else {
            return;
        };
        if self.gate.step(Lifecycle::Failed).is_ok() {
            let error = IoError::DeviceFailed(offence.rule());
            // Nobody knows what the host still does with the memory.
            self.abort_all(error, true);
            self.wire.attention.notify();
        }
    }

    /// Ends every accepted request with `error`. Buffers of pieces without an
    /// answer are not handed out if the host can still `reach` them.
    pub(super) fn abort_all(&mut self, error: IoError, reach: bool) {
        let inbox = self.inbox.take();
        let link = self.wire.link.borrow();
        let pieces = match (&*link, inbox) {
            (Some(link), Some(inbox)) => link.pieces_of(inbox),
            _ => alloc::vec::Vec::new(),
        };
        drop(link);
        for piece in pieces {
            if let Some(parent) = self.accepted.get_mut(piece.parent) {
                parent.withhold |= reach;
            }
        }
        self.again.clear();
        self.paused.clear();
        while self.accepted.pop_unsent().is_some() {}
        for index in self.accepted.indices() {
            if let Some(parent) = self.accepted.get_mut(index) {
                parent.outstanding = 0;
            }
            self.accepted.give_up(index, error);
            self.finish(index);
        }
    }
}
