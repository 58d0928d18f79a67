//! The data path of one disk: a queue over the controller's ring that never
//! waits, never allocates per request and makes no hypercall but the signal that
//! the ring asks for.

use super::link::{Command, Link, Piece, Waiter};
use super::offence::Offence;
use super::packet::Direction;
use super::wire::Wire;
use crate::hal::Hal;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use firn_block::gate::{Gate, Lifecycle, WrongStep};
use firn_block::shm::Region;
use firn_block::{
    Accepted, AdoptError, Armed, Buffer, Buffers, Busy, DataPath, DiskId, DiskInfo, Op, Owner,
    PrivateQueue, RegisterError, SECTOR, Unregistered,
};
use firn_scsi::{Cdb, unmap_parameters};
use firn_task::Signal;

/// One disk's data path.
pub struct Front<H: Hal> {
    pub(super) wire: Rc<Wire<H>>,
    /// The unit of the target.
    pub(super) unit: u8,
    pub(super) gate: Gate,
    pub(super) info: DiskInfo,
    pub(super) accepted: Accepted,
    pub(super) buffers: Buffers,
    /// The box for ends of this disk's pieces, while it is connected.
    pub(super) inbox: Option<usize>,
    /// The box that it left behind on a channel that others still use.
    pub(super) spare: Option<usize>,
    /// Most sectors of one command that unmaps.
    pub(super) unmap_sectors: u64,
    /// Blocks are unmapped by WRITE SAME, as there is no UNMAP.
    pub(super) write_same: bool,
    /// Pieces to be sent again.
    pub(super) again: VecDeque<Piece>,
    /// Pieces to be sent again after a pause: the disk is busy.
    pub(super) paused: VecDeque<Piece>,
    /// The disk says that it changed.
    pub(super) changed: bool,
}

impl<H: Hal> Front<H> {
    pub(super) fn new(wire: &Rc<Wire<H>>, unit: u8, id: DiskId) -> Self {
        Self {
            wire: wire.clone(),
            unit,
            gate: Gate::new(),
            info: DiskInfo::unknown(id),
            accepted: Accepted::new(),
            buffers: Buffers::new(id.0),
            inbox: None,
            spare: None,
            unmap_sectors: 0,
            write_same: false,
            again: VecDeque::new(),
            paused: VecDeque::new(),
            changed: false,
        }
    }

    /// Where the disk is in its life.
    #[must_use]
    pub const fn state(&self) -> Lifecycle {
        self.gate.state()
    }

    /// Takes a step of the lifecycle; what was accepted goes on.
    pub(super) fn step(&mut self, to: Lifecycle) -> Result<(), WrongStep> {
        self.gate.step(to)?;
        log::info!("{}: {to}", self.info.id);
        self.fill_ring();
        self.publish();
        Ok(())
    }

    /// The kernel's own way in: it is open while the disk is shut to jobs.
    pub const fn private(&mut self) -> PrivateQueue<'_, Self> {
        PrivateQueue::new(self)
    }

    /// Looks whether the controller's channel was signalled. The main loop calls
    /// this before it polls.
    pub fn take_event(&mut self) -> bool {
        if !self.gate.state().uses_ring() {
            return false;
        }
        let wire = self.wire.clone();
        let Some(Some(empty)) = wire.with(Link::take_event) else {
            self.notice_failure();
            return false;
        };
        self.accepted.stats.events += 1;
        self.accepted.stats.empty_events += u64::from(empty);
        true
    }

    /// Puts what is unsent on the ring, oldest first, while there is room.
    pub(super) fn fill_ring(&mut self) {
        if !self.gate.state().uses_ring() {
            return;
        }
        while let Some(&piece) = self.again.front() {
            if !self.send(piece) {
                return;
            }
            self.again.pop_front();
        }
        while let Some(index) = self.accepted.next_unsent() {
            if let Some(piece) = self.next_piece(index) {
                if !self.send(piece) {
                    return;
                }
                if let Some(parent) = self.accepted.get_mut(index) {
                    parent.sent += piece.sectors;
                    parent.outstanding += 1;
                    parent.all_sent = parent.sent >= parent.request.sectors;
                }
            } else if let Some(parent) = self.accepted.get_mut(index) {
                // An earlier piece failed: the rest is not worth sending.
                parent.all_sent = true;
            }
            let parent = self.accepted.get(index);
            if parent.is_none_or(|parent| parent.all_sent) {
                self.accepted.pop_unsent();
                self.finish(index);
            }
        }
    }

    /// The next part of a request, as large as one packet may be.
    fn next_piece(&self, index: u16) -> Option<Piece> {
        let parent = self.accepted.get(index)?;
        if parent.error.is_some() {
            return None;
        }
        let most = match parent.request.op {
            Op::Flush => 0,
            Op::Discard { .. } => self.unmap_sectors,
            Op::Read | Op::Write => u64::from(self.info.max_transfer) / SECTOR,
        };
        Some(Piece {
            parent: index,
            first: parent.sent,
            sectors: most.min(parent.request.sectors - parent.sent),
            tries: 0,
        })
    }

    /// Sends a piece; whether there was room.
    fn send(&mut self, piece: Piece) -> bool {
        let (Some(inbox), Some(parent)) = (self.inbox, self.accepted.get(piece.parent)) else {
            return false;
        };
        let waiter = Waiter::Disk { inbox, piece };
        let (request, unit) = (&parent.request, self.unit);
        let per_block = u64::from(self.info.logical_block) / SECTOR;
        let block = (request.sector + piece.first) / per_block;
        let blocks = u32::try_from(piece.sectors / per_block).unwrap_or(u32::MAX);
        let (write_same, bytes) = (self.write_same, self.info.logical_block);
        let sent = self.wire.with(|link| match request.op {
            Op::Discard { .. } if write_same => {
                link.send_write_same(unit, Cdb::write_same_unmap(block, blocks), bytes, waiter)
            }
            Op::Discard { .. } => link.send_unmap(unit, unmap_parameters(block, blocks), waiter),
            op => {
                let (cdb, way) = match op {
                    Op::Read => (Cdb::read(block, blocks), Direction::In),
                    Op::Write => (Cdb::write(block, blocks), Direction::Out),
                    _ => (Cdb::synchronize_cache(), Direction::None),
                };
                let data = request.buffer.as_ref().filter(|_| op.has_data());
                let data = data.map(|buffer| {
                    let offset = request.offset + (piece.first * SECTOR) as usize;
                    (buffer.region(), offset, (piece.sectors * SECTOR) as u32)
                });
                let command = Command {
                    unit,
                    cdb,
                    way,
                    data,
                };
                link.send(&command, waiter)
            }
        });
        let sent = sent == Some(true);
        self.accepted.stats.ring_requests += u64::from(sent);
        sent
    }

    /// Hands a request out if all of it has ended.
    pub(super) fn finish(&mut self, index: u16) {
        let buffers = &mut self.buffers;
        let ended = self
            .accepted
            .finish(index, |buffer| buffers.quarantine(buffer));
        if ended && !self.gate.is_open() && self.accepted.count() == 0 {
            // Whoever drains the disk waits for this.
            self.wire.attention.notify();
        }
    }

    /// The rule that the host broke, if it broke one.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        self.wire.offence.get()
    }
}

impl<H: Hal> DataPath for Front<H> {
    /// Nothing has to be granted: packets list frames.
    type Kept = ();

    fn disk(&self) -> &DiskInfo {
        &self.info
    }

    fn look(&mut self) -> Lifecycle {
        self.notice_failure();
        self.gate.state()
    }

    fn requests(&self) -> &Accepted {
        &self.accepted
    }

    fn requests_mut(&mut self) -> &mut Accepted {
        &mut self.accepted
    }

    fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    fn attention(&self) -> &Rc<Signal> {
        &self.wire.attention
    }

    fn events(&self) -> Option<Rc<Signal>> {
        self.inbox?;
        self.wire.with(|link| Ok(link.events()))
    }

    fn fill(&mut self) {
        self.fill_ring();
    }

    fn publish(&mut self) {
        if !self.gate.state().uses_ring() {
            return;
        }
        let signals = self.wire.with(|link| {
            let before = link.signals;
            link.kick()?;
            Ok(link.signals - before)
        });
        self.accepted.stats.notifications += signals.unwrap_or(0);
    }

    fn reap(&mut self, budget: usize) {
        self.take_packets(budget);
    }

    fn arm_ring(&mut self) -> Armed {
        if !self.gate.state().uses_ring() {
            return Armed::Sleep;
        }
        let inbox = self.inbox;
        let waiting = |link: &Link<H>| inbox.is_some_and(|inbox| link.has_ends(inbox));
        match self.wire.with(|link| Ok(waiting(link) || link.arm()?)) {
            Some(false) => Armed::Sleep,
            // Something to take, or a failure to notice.
            Some(true) | None => Armed::Poll,
        }
    }

    fn busy(&self) -> Option<Busy> {
        let all = &self.accepted;
        let completions = all.completions(Owner::Job) + all.completions(Owner::Kernel);
        let on_ring = self.inbox.and_then(|inbox| {
            let look = |link: &mut Link<H>| Ok((link.has_ends(inbox), link.pieces_of(inbox).len()));
            self.wire.with(look)
        });
        match (on_ring, all.count(), completions) {
            (Some((true, _)), _, _) => Some(Busy::Responses(1)),
            (Some((_, unanswered @ 1..)), _, _) => Some(Busy::Unanswered(
                u32::try_from(unanswered).unwrap_or(u32::MAX),
            )),
            (_, 0, 0) => None,
            (_, 0, completions) => Some(Busy::Completions(completions)),
            (_, accepted, _) => Some(Busy::Accepted(accepted)),
        }
    }

    fn register_for(&mut self, region: Region, owner: Owner) -> Result<Buffer, RegisterError> {
        Ok(self.buffers.insert(region, owner, ()))
    }

    fn take_back(&mut self, buffer: Buffer) -> Unregistered {
        self.buffers.remove(buffer, |()| true)
    }

    fn reuse_for(&mut self, pages: usize, owner: Owner) -> Option<Buffer> {
        // An earlier host's reach has ended with it.
        self.buffers.revive(pages, owner, |_| true, |_| true)
    }

    fn replace_buffers(&mut self, adopted: Buffers) -> Result<(), AdoptError> {
        self.buffers = adopted;
        Ok(())
    }
}
