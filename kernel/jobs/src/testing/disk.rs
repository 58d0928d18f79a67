//! A disk in memory behind the `Queue` trait.

use crate::rng::Rng;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, Discard, DiskId, DiskInfo, Durability, IoError, Op, Queue, Refused,
    RegisterError, Request, SECTOR, Stats, Token, TokenId, Unregistered, Why,
};
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

/// In which order requests complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    First,
    Last,
    Random,
}

/// What a test makes a disk do.
#[derive(Clone, Debug)]
pub(crate) struct Moods {
    pub(crate) order: Order,
    /// Requests carried out per turn of the main loop.
    pub(crate) pace: usize,
    /// Nothing is carried out any more.
    pub(crate) stuck: bool,
    /// Requests that touch this sector fail.
    pub(crate) bad_sector: Option<u64>,
    /// After so many requests the disk is detached.
    pub(crate) detach_after: Option<u64>,
    /// Writes to this sector are forgotten.
    pub(crate) lost_sector: Option<u64>,
    /// Memory stays mapped when it is unregistered.
    pub(crate) keeps_pages: bool,
    /// Flushes and discards fail as not supported.
    pub(crate) refuses_flush: bool,
}

pub(crate) struct RamDisk {
    pub(crate) info: DiskInfo,
    pub(crate) state: Lifecycle,
    pub(crate) moods: Moods,
    pub(crate) data: Vec<u8>,
    pub(crate) kept: Vec<Buffer>,
    pub(crate) flushed: u64,
    pub(crate) discarded: Vec<(u64, u64, bool)>,
    stats: Stats,
    submitted: VecDeque<(TokenId, Request)>,
    visible: VecDeque<(TokenId, Request)>,
    done: VecDeque<Completion>,
    next: u64,
    served: u64,
    rng: Rng,
}

impl RamDisk {
    /// A friendly disk of so many bytes.
    pub(crate) fn new(id: u32, bytes: usize) -> Self {
        let room = || VecDeque::with_capacity(1024);
        Self {
            info: DiskInfo {
                id: DiskId(id),
                capacity: bytes as u64 / SECTOR,
                logical_block: 512,
                physical_block: 4096,
                read_only: false,
                durability: Durability::Flush,
                discard: Some(Discard {
                    granularity: 512,
                    alignment: 0,
                    secure: false,
                }),
                max_transfer: 1 << 20,
                queue_depth: 64,
            },
            state: Lifecycle::Live,
            moods: Moods {
                order: Order::First,
                pace: 3,
                stuck: false,
                bad_sector: None,
                detach_after: None,
                lost_sector: None,
                keeps_pages: false,
                refuses_flush: false,
            },
            data: vec![0; bytes],
            kept: Vec::new(),
            flushed: 0,
            discarded: Vec::new(),
            stats: Stats::default(),
            submitted: room(),
            visible: VecDeque::with_capacity(1024),
            done: VecDeque::with_capacity(1024),
            next: 1,
            served: 0,
            rng: Rng::new(1),
        }
    }

    /// Carries out what the host may carry out in one turn; whether it did.
    pub(crate) fn serve(&mut self) -> bool {
        let mut moved = false;
        if self
            .moods
            .detach_after
            .is_some_and(|after| self.served >= after)
        {
            moved |= self.detach();
        }
        if self.moods.stuck {
            return moved;
        }
        for _ in 0..self.moods.pace {
            let last = self.visible.len().saturating_sub(1);
            let at = match self.moods.order {
                Order::First => 0,
                Order::Last => last,
                Order::Random => self.rng.below(last as u64 + 1) as usize,
            };
            let Some((token, request)) = self.visible.remove(at) else {
                break;
            };
            let result = self.carry_out(&request);
            self.end(token, request, result);
            self.served += 1;
            moved = true;
        }
        moved
    }

    /// Ends everything, as the driver does when the host takes the disk away.
    pub(crate) fn detach(&mut self) -> bool {
        self.state = Lifecycle::Closed;
        let mut moved = false;
        for (token, request) in self.take_all() {
            self.end(token, request, Err(IoError::Gone));
            moved = true;
        }
        moved
    }

    fn take_all(&mut self) -> Vec<(TokenId, Request)> {
        let visible = self.visible.drain(..);
        visible.chain(self.submitted.drain(..)).collect()
    }

    fn end(&mut self, token: TokenId, request: Request, result: Result<(), IoError>) {
        self.stats.completed += 1;
        self.stats.errors += u64::from(result.is_err());
        self.done.push_back(Completion {
            token,
            request,
            result,
        });
    }

    fn carry_out(&mut self, request: &Request) -> Result<(), IoError> {
        let range = request.sector..request.sector + request.sectors;
        if self
            .moods
            .bad_sector
            .is_some_and(|bad| range.contains(&bad))
        {
            return Err(IoError::Failed { status: -1 });
        }
        let bytes = (range.start * SECTOR) as usize..(range.end * SECTOR) as usize;
        match (request.op, &request.buffer) {
            (Op::Read, Some(buffer)) => {
                buffer.region().copy_in(request.offset, &self.data[bytes]);
            }
            (Op::Write, Some(buffer)) => {
                let lost = self.moods.lost_sector.filter(|lost| range.contains(lost));
                let lost = lost.map(|lost| (lost * SECTOR) as usize);
                let kept = lost.map(|at| self.data[at..at + 512].to_vec());
                buffer
                    .region()
                    .copy_out(request.offset, &mut self.data[bytes]);
                if let (Some(at), Some(kept)) = (lost, kept) {
                    self.data[at..at + 512].copy_from_slice(&kept);
                }
            }
            (Op::Flush | Op::Discard { .. }, _) if self.moods.refuses_flush => {
                return Err(IoError::NotSupported);
            }
            (Op::Flush, _) => self.flushed += 1,
            (Op::Discard { secure }, _) => {
                self.data[bytes].fill(0);
                self.discarded.push((range.start, request.sectors, secure));
            }
            (_, None) => panic!("the submission checked that"),
        }
        Ok(())
    }

    fn why_not(&self, request: &Request) -> Option<Why> {
        if self.state != Lifecycle::Live {
            return Some(Why::NotLive(self.state));
        }
        if request.op.modifies() && self.info.read_only {
            return Some(Why::ReadOnly);
        }
        let end = request.sector.checked_add(request.sectors)?;
        let capacity = self.info.capacity;
        if end > capacity || (request.sectors == 0 && request.op != Op::Flush) {
            return Some(Why::OutOfRange { capacity });
        }
        let room = request.buffer.as_ref().map_or(0, |it| it.region().len());
        if request.op.has_data() && (request.bytes() as usize) > room {
            return Some(Why::NoRoomInBuffer);
        }
        (self.in_flight() >= self.info.queue_depth as usize).then_some(Why::Full)
    }
}

impl Queue for RamDisk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        Ok(Buffer::new(region, self.info.id.0, 0))
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        if self.moods.keeps_pages {
            self.kept.push(buffer);
            return Unregistered::StillMapped;
        }
        Unregistered::Free(buffer.into_region())
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        let fits = |buffer: &Buffer| buffer.region().page_count() == pages;
        let at = self.kept.iter().position(fits)?;
        Some(self.kept.swap_remove(at))
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        if let Some(why) = self.why_not(&request) {
            self.stats.full += u64::from(why == Why::Full);
            return Err(Refused { why, request });
        }
        let id = TokenId(self.next);
        self.next += 1;
        self.stats.submitted += 1;
        self.submitted.push_back((id, request));
        Ok(Token::new(id))
    }

    fn kick(&mut self) {
        self.stats.notifications += 1;
        self.visible.append(&mut self.submitted);
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let count = budget.min(self.done.len());
        self.done.drain(..count).for_each(done);
        count
    }

    fn arm(&mut self) -> Armed {
        match self.done.is_empty() {
            true => Armed::Sleep,
            false => Armed::Poll,
        }
    }

    fn in_flight(&self) -> usize {
        self.submitted.len() + self.visible.len() + self.done.len()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}
