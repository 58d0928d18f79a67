//! A disk in memory with a volatile cache, behind the `Queue` trait.

use crate::seed::Random;
use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskId, DiskInfo, Durability, IoError, Op, PAGE, Queue, Refused,
    RegisterError, Request, SECTOR, Stats, Token, TokenId, Unregistered, Why,
};
use firn_image::{Device, Gone};
use firn_task::Instant;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};

const S: usize = SECTOR as usize;

/// What a test makes the disk do. Requests are counted from the disk's start.
#[derive(Clone, Debug)]
pub(crate) struct Moods {
    /// Requests accepted at a time.
    pub(crate) depth: usize,
    /// Requests carried out per breath.
    pub(crate) pace: usize,
    /// Breaths of which only the last lets it work.
    pub(crate) lazy: u64,
    /// This request fails.
    pub(crate) fail: Option<u64>,
    /// A request that fails comes back without its buffer.
    pub(crate) withholds: bool,
    /// Nothing is carried out from this request on.
    pub(crate) stuck: Option<u64>,
    /// There is no queue from this request on.
    pub(crate) gone: Option<u64>,
    /// Pages stay mapped when they are taken back.
    pub(crate) keeps_pages: bool,
}

pub(crate) struct Disk {
    pub(crate) info: DiskInfo,
    pub(crate) moods: Moods,
    /// What a read sees.
    pub(crate) data: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    /// Sectors written since the last flush, in order.
    cached: Vec<(usize, [u8; S])>,
    /// What was asked for, in order of completion.
    pub(crate) log: Vec<(Op, u64, u64)>,
    /// Addresses of the pages that it has seen: those it maps, if it keeps them.
    pub(crate) seen: BTreeSet<usize>,
    pub(crate) registered: usize,
    pub(crate) most_registered: usize,
    pub(crate) most_in_flight: usize,
    kept: Vec<Buffer>,
    waiting: VecDeque<(TokenId, Request)>,
    done: VecDeque<Completion>,
    next: u64,
    served: u64,
    rng: Random,
    stats: Stats,
}

impl Disk {
    fn live(&self) -> bool {
        self.moods.gone.is_none_or(|at| self.served < at)
    }

    /// Carries out a few requests, in any order but for flushes: those wait for
    /// what was submitted before them only if the submitter did.
    fn serve(&mut self) {
        for _ in 0..self.moods.pace {
            let stuck = self.moods.stuck.is_some_and(|at| self.served >= at);
            if self.waiting.is_empty() || stuck {
                return;
            }
            let at = self.rng.below(self.waiting.len() as u64) as usize;
            let Some((token, mut request)) = self.waiting.remove(at) else {
                return;
            };
            let failed = self.moods.fail == Some(self.served);
            if !failed {
                self.carry_out(&request);
            } else if self.moods.withholds {
                self.kept.extend(request.buffer.take());
            }
            let error = IoError::Failed { status: -1 };
            let result = if failed { Err(error) } else { Ok(()) };
            self.served += 1;
            self.log.push((request.op, request.sector, request.sectors));
            self.done.push_back(Completion {
                token,
                request,
                result,
            });
        }
    }

    fn carry_out(&mut self, request: &Request) {
        if let Some(buffer) = &request.buffer {
            let start = buffer.region().addr() + request.offset;
            let end = start + request.bytes() as usize;
            self.seen
                .extend((start / PAGE..end.div_ceil(PAGE)).map(|page| page * PAGE));
        }
        let bytes = request.sector as usize * S..(request.sector + request.sectors) as usize * S;
        match (request.op, &request.buffer) {
            (Op::Read, Some(buffer)) => {
                buffer.region().copy_in(request.offset, &self.data[bytes]);
            }
            (Op::Write, Some(buffer)) => {
                let first = bytes.start / S;
                buffer
                    .region()
                    .copy_out(request.offset, &mut self.data[bytes.clone()]);
                let (sectors, _) = self.data[bytes].as_chunks::<S>();
                let numbered = sectors.iter().enumerate();
                self.cached.extend(numbered.map(|(i, s)| (first + i, *s)));
            }
            (Op::Flush, _) => self.sync(),
            (op, _) => panic!("nobody asks for {op}"),
        }
    }

    fn sync(&mut self) {
        for (sector, bytes) in self.cached.drain(..) {
            self.durable[sector * S..][..S].copy_from_slice(&bytes);
        }
    }

    fn why_not(&self, request: &Request) -> Option<Why> {
        if request.op == Op::Flush {
            let none = self.info.durability == Durability::None;
            return none.then_some(Why::Unsupported(Op::Flush));
        }
        let capacity = self.info.capacity;
        let unit = self.info.logical_block;
        let sectors = u64::from(unit) / SECTOR;
        let room = request.buffer.as_ref().map_or(0, |b| b.region().len());
        if self.info.read_only && request.op == Op::Write {
            Some(Why::ReadOnly)
        } else if request.sectors == 0 || request.sector + request.sectors > capacity {
            Some(Why::OutOfRange { capacity })
        } else if !(request.sector | request.sectors).is_multiple_of(sectors) {
            Some(Why::Misaligned { unit })
        } else if request.offset + request.bytes() as usize > room {
            Some(Why::NoRoomInBuffer)
        } else {
            None
        }
    }
}

impl Queue for Disk {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        self.registered += 1;
        self.most_registered = self.most_registered.max(self.registered);
        Ok(Buffer::new(region, 1, 0))
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        self.registered -= 1;
        if self.moods.keeps_pages {
            self.kept.push(buffer);
            return Unregistered::StillMapped;
        }
        Unregistered::Free(buffer.into_region())
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        let fits = |b: &Buffer| b.region().page_count() == pages;
        let at = self.kept.iter().position(fits)?;
        self.registered += 1;
        Some(self.kept.swap_remove(at))
    }

    fn keeps_mapped(&self) -> bool {
        self.moods.keeps_pages
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        let full = (self.in_flight() >= self.moods.depth).then_some(Why::Full);
        if let Some(why) = self.why_not(&request).or(full) {
            return Err(Refused { why, request });
        }
        let id = TokenId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request));
        self.most_in_flight = self.most_in_flight.max(self.in_flight());
        Ok(Token::new(id))
    }

    fn kick(&mut self) {}

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let count = budget.min(self.done.len());
        self.done.drain(..count).for_each(done);
        count
    }

    fn arm(&mut self) -> Armed {
        Armed::Poll
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.done.len()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// A machine with this one disk.
pub(crate) struct Host {
    pub(crate) disk: RefCell<Disk>,
    now: Cell<u64>,
}

impl Host {
    /// A friendly disk of zeros.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::with(vec![0; bytes], 1)
    }

    pub(crate) fn with(data: Vec<u8>, seed: u64) -> Self {
        let info = DiskInfo {
            id: DiskId(1),
            capacity: (data.len() / S) as u64,
            logical_block: 512,
            physical_block: 4096,
            read_only: false,
            durability: Durability::Flush,
            discard: None,
            max_transfer: 1 << 20,
            queue_depth: 32,
        };
        let moods = Moods {
            depth: 48,
            pace: 5,
            lazy: 1,
            fail: None,
            withholds: false,
            stuck: None,
            gone: None,
            keeps_pages: false,
        };
        Self {
            now: Cell::new(0),
            disk: RefCell::new(Disk {
                info,
                moods,
                durable: data.clone(),
                data,
                cached: Vec::new(),
                log: Vec::new(),
                seen: BTreeSet::new(),
                registered: 0,
                most_registered: 0,
                most_in_flight: 0,
                kept: Vec::new(),
                waiting: VecDeque::new(),
                done: VecDeque::new(),
                next: 1,
                served: 0,
                rng: Random::new(seed),
                stats: Stats::default(),
            }),
        }
    }

    /// Requests carried out so far.
    pub(crate) fn served(&self) -> u64 {
        self.disk.borrow().served
    }

    /// The power is cut and comes back: of what was not flushed, any sectors
    /// are there, in any order.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let disk = self.disk.borrow();
        let mut rng = Random::new(seed);
        let mut data = disk.durable.clone();
        let mut cached = disk.cached.clone();
        for at in (1..cached.len()).rev() {
            cached.swap(at, rng.below(at as u64 + 1) as usize);
        }
        for (sector, bytes) in cached {
            if rng.below(2) == 0 {
                data[sector * S..][..S].copy_from_slice(&bytes);
            }
        }
        Self::with(data, seed)
    }

    /// A copy of the disk as a read sees it.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.disk.borrow().data.clone()
    }

    /// The host wakes up and carries out everything, whoever waits for it.
    pub(crate) fn catch_up(&self) {
        let mut disk = self.disk.borrow_mut();
        disk.moods.stuck = None;
        while !disk.waiting.is_empty() {
            disk.serve();
        }
    }
}

impl Device for Host {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        let mut disk = self.disk.borrow_mut();
        if !disk.live() {
            return Err(Gone);
        }
        Ok(work(&mut *disk))
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now.get())
    }

    async fn breathe(&self) {
        let breaths = self.now.get() / 1_000_000 + 1;
        self.now.set(breaths * 1_000_000);
        let mut disk = self.disk.borrow_mut();
        if breaths.is_multiple_of(disk.moods.lazy) {
            disk.serve();
        }
    }
}
