//! A disk of one boot: a queue straight to the medium, without a ring.

use crate::fault::Kind;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskId, DiskInfo, Durability, IoError, Op, Queue, Refused,
    RegisterError, Request, SECTOR, Stats, Token, TokenId, Unregistered, Why,
};
use firn_peers::Disk;
use firn_power::Link;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::collections::VecDeque;

/// How large a request goes to the host in one piece.
const MAX_TRANSFER: u32 = 1 << 17;

/// The disk.
pub struct RamDisk {
    /// What it is.
    pub info: DiskInfo,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// How it is connected.
    pub link: Link,
    /// Whether jobs may submit.
    pub open: bool,
    /// The image code has it: nobody else takes completions.
    pub borrowed: usize,
    /// What goes wrong with every request now.
    pub mood: Option<Kind>,
    disk: Disk,
    submitted: VecDeque<(TokenId, Request)>,
    visible: VecDeque<(TokenId, Request)>,
    done: VecDeque<Completion>,
    next: u64,
    stats: Stats,
}

/// What a disk did to its medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Nothing that lasts.
    Nothing,
    /// It wrote sectors.
    Wrote {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// It emptied its cache.
    Flushed,
}

impl RamDisk {
    /// A connected disk whose gate is shut.
    #[must_use]
    pub fn new(id: DiskId, disk: &Disk) -> Self {
        Self {
            info: DiskInfo {
                id,
                capacity: disk.capacity(),
                logical_block: 512,
                physical_block: 512,
                read_only: false,
                durability: Durability::Flush,
                discard: None,
                max_transfer: MAX_TRANSFER,
                queue_depth: 32,
            },
            state: Lifecycle::Live,
            link: Link::Ordinary,
            open: false,
            borrowed: 0,
            mood: None,
            disk: disk.clone(),
            submitted: VecDeque::new(),
            visible: VecDeque::new(),
            done: VecDeque::new(),
            next: 1,
            stats: Stats::default(),
        }
    }

    /// Carries out one request, whichever; what that did.
    pub fn serve(&mut self, rng: &mut SmallRng) -> Option<Did> {
        if self.visible.is_empty() || self.mood == Some(Kind::Timeout) {
            return None;
        }
        let at = rng.random_range(0..self.visible.len());
        let (token, request) = self.visible.remove(at)?;
        let (result, did) = match self.mood {
            Some(Kind::Gone) => (Err(IoError::Gone), Did::Nothing),
            // Only the first one is done: what follows it is not.
            Some(Kind::Effect) => {
                self.mood = Some(Kind::Error);
                (failed(), self.carry_out(&request))
            }
            Some(_) => (failed(), Did::Nothing),
            None => (Ok(()), self.carry_out(&request)),
        };
        self.end(token, request, result);
        Some(did)
    }

    /// What is on the disk, cache included.
    #[must_use]
    pub fn content(&self, sector: u64, sectors: u64) -> Vec<u8> {
        self.disk.content(sector, sectors)
    }

    /// The connection ends. What the host had not answered it may have done.
    pub fn disconnect(&mut self, rng: &mut SmallRng) -> Vec<Did> {
        let mut all = Vec::new();
        while let Some((token, request)) = self.visible.pop_front() {
            if rng.random() {
                all.push(self.carry_out(&request));
            }
            self.end(token, request, Err(IoError::Gone));
        }
        while let Some((token, request)) = self.submitted.pop_front() {
            self.end(token, request, Err(IoError::Gone));
        }
        self.state = Lifecycle::Closed;
        self.open = false;
        all
    }

    /// The disk goes away, requests and all.
    pub fn pull(&mut self) {
        while let Some((token, request)) = self.visible.pop_front() {
            self.end(token, request, Err(IoError::Gone));
        }
        self.state = Lifecycle::Closed;
    }

    /// The disk has no room for anything.
    pub const fn become_small(&mut self) {
        self.info.capacity = 144;
        self.mood = None;
    }

    /// Nothing is wrong with the disk any more.
    pub fn recover(&mut self) {
        self.info.capacity = self.disk.capacity();
        self.mood = None;
    }

    /// Connects anew.
    pub fn connect(&mut self, link: Link) {
        self.state = Lifecycle::Live;
        self.link = link;
        self.recover();
    }

    fn end(&mut self, token: TokenId, request: Request, result: Result<(), IoError>) {
        self.done.push_back(Completion {
            token,
            request,
            result,
        });
    }

    fn carry_out(&self, request: &Request) -> Did {
        let (sector, sectors) = (request.sector, request.sectors);
        match (request.op, &request.buffer) {
            (Op::Read, Some(buffer)) => {
                let mut bytes = vec![0; (sectors * SECTOR) as usize];
                self.disk.read(sector, &mut bytes);
                buffer.region().copy_in(request.offset, &bytes);
                Did::Nothing
            }
            (Op::Write, Some(buffer)) => {
                let mut bytes = vec![0; (sectors * SECTOR) as usize];
                buffer.region().copy_out(request.offset, &mut bytes);
                self.disk.write(sector, &bytes);
                Did::Wrote { sector, sectors }
            }
            (Op::Discard { .. }, _) => {
                self.disk.discard(sector, sectors);
                Did::Wrote { sector, sectors }
            }
            (Op::Flush, _) => {
                self.disk.flush();
                Did::Flushed
            }
            (_, None) => unreachable!("a submission without a buffer is refused"),
        }
    }

    fn why_not(&self, request: &Request) -> Option<Why> {
        let capacity = self.info.capacity;
        let end = request.sector.checked_add(request.sectors);
        let room = request.buffer.as_ref().map_or(0, |b| b.region().len());
        if self.state != Lifecycle::Live {
            Some(Why::NotLive(self.state))
        } else if end.is_none_or(|end| end > capacity) {
            Some(Why::OutOfRange { capacity })
        } else if request.op.has_data() && request.offset + request.bytes() as usize > room {
            Some(Why::NoRoomInBuffer)
        } else if self.in_flight() >= self.info.queue_depth as usize {
            Some(Why::Full)
        } else {
            None
        }
    }
}

const fn failed() -> Result<(), IoError> {
    Err(IoError::Failed { status: -1 })
}

impl Queue for RamDisk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        if self.mood == Some(Kind::NoMemory) {
            let why = "no grants left";
            return Err(RegisterError { region, why });
        }
        Ok(Buffer::new(region, self.info.id.0, 0))
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        Unregistered::Free(buffer.into_region())
    }

    fn reuse(&mut self, _pages: usize) -> Option<Buffer> {
        None
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        if let Some(why) = self.why_not(&request) {
            return Err(Refused { why, request });
        }
        let id = TokenId(self.next);
        self.next += 1;
        self.stats.submitted += 1;
        self.submitted.push_back((id, request));
        Ok(Token::new(id))
    }

    fn kick(&mut self) {
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
