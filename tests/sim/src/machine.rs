//! The machine as its jobs see it: a handle that points at nothing, so that it
//! may lie in an image.

use crate::boot::{self, Boot};
use crate::memory::Inside;
use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskId, DiskInfo, Queue, Refused, RegisterError, Request, Stats,
    Token, Unregistered, Why,
};
use firn_jobs::io::ChannelTable;
use firn_jobs::{
    Counters, DiskReport, Era, JobFuture, Machine, MemoryHash, Mode, Power, PowerAsk, PowerFuture,
    PowerRefusal, Report, StoreAsk, StoreFuture,
};
use firn_task::{Executor, Instant, Time, Timers};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What a restored machine finds again: everything of the jobs.
pub struct JobState {
    /// The jobs.
    pub executor: Executor,
    /// What they wait for.
    pub timers: Timers,
    /// Their requests.
    pub channels: ChannelTable,
    /// Which stretch of the machine's life this is.
    pub era: Cell<Era>,
}

impl JobState {
    /// No job. To be called inside an arena.
    #[must_use]
    pub fn create() -> &'static Self {
        Box::leak(Box::new(Self {
            executor: Executor::new(),
            timers: Timers::new(),
            channels: ChannelTable::new(),
            era: Cell::new(Era {
                boot: 0,
                restores: 0,
                resumes: 0,
            }),
        }))
    }
}

/// The handle.
#[derive(Clone, Copy, Debug)]
pub struct SimMachine;

impl SimMachine {
    fn boot(self) -> Rc<Boot> {
        let Some(boot) = boot::current() else {
            unreachable!("a job runs on a machine only");
        };
        boot
    }
}

impl Time for SimMachine {
    fn now(&self) -> Instant {
        self.boot().now()
    }

    fn timers(&self) -> &Timers {
        &self.boot().jobs().timers
    }
}

impl Machine for SimMachine {
    fn print(&self, text: fmt::Arguments<'_>) {
        let _out = Inside::leave();
        let line = text.to_string();
        self.boot().witness.borrow_mut().console(&line);
    }

    fn poll_input(&self, _context: &mut Context<'_>) -> Poll<u8> {
        Poll::Pending
    }

    fn disks(&self) -> Vec<DiskReport> {
        let boot = self.boot();
        let disks = boot.disks.borrow();
        let report = |disk: &crate::ram::RamDisk| DiskReport {
            id: disk.info.id,
            state: disk.state,
            info: Some(disk.info.clone()),
            features: String::new(),
            stats: *disk.stats(),
        };
        disks.values().map(report).collect()
    }

    fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        let boot = self.boot();
        let mut disks = boot.disks.borrow_mut();
        match disks.get_mut(&disk) {
            Some(disk) => {
                let open = disk.open;
                let queue: &mut dyn Queue = disk;
                Ok(work(
                    &mut JobQueue {
                        queue,
                        open,
                        boot: &boot,
                    },
                    value,
                ))
            }
            None => Err(value),
        }
    }

    fn channels(&self) -> &ChannelTable {
        &self.boot().jobs().channels
    }

    fn mode(&self, _disk: DiskId) -> Mode {
        Mode::Event
    }

    fn set_mode(&self, _disk: DiskId, _mode: Mode) {}

    fn alloc_pages(&self, count: usize) -> Option<Region> {
        self.boot().arena.alloc_pages(count)
    }

    fn free_pages(&self, region: Region) {
        self.boot().arena.free(&region);
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn report(&self, _report: Report, _line: &mut dyn FnMut(fmt::Arguments<'_>)) {}

    fn store(&self, _ask: StoreAsk) -> StoreFuture {
        Box::pin(async { Err("there is no xenstore".into()) })
    }

    fn power(&self, _power: Power) -> Result<(), String> {
        Err("a simulated machine ends otherwise".into())
    }

    fn ask_power(&self, _ask: PowerAsk) -> PowerFuture {
        Box::pin(async {
            Err(PowerRefusal {
                error: "not-supported",
                what: "the simulator asks".into(),
                place: String::new(),
                hint: String::new(),
            })
        })
    }

    fn memory_hash(&self) -> MemoryHash {
        MemoryHash {
            hash: self.boot().hash(),
            bytes: 0,
        }
    }

    fn era(&self) -> Era {
        self.boot().jobs().era.get()
    }

    fn spawn(&self, job: JobFuture) {
        self.boot().jobs().executor.spawn(job);
    }
}

/// A queue as jobs call it: what it allocates is not job memory, and its gate
/// may be shut.
struct JobQueue<'a> {
    queue: &'a mut dyn Queue,
    open: bool,
    boot: &'a Boot,
}

impl Queue for JobQueue<'_> {
    fn info(&self) -> &DiskInfo {
        self.queue.info()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        let _out = Inside::leave();
        self.queue.register(region)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        let _out = Inside::leave();
        self.queue.unregister(buffer)
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        self.queue.reuse(pages)
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        let _out = Inside::leave();
        if !self.open {
            let why = Why::NotLive(firn_block::gate::Lifecycle::Closing);
            return Err(Refused { why, request });
        }
        self.queue.submit(request)
    }

    fn kick(&mut self) {
        let _out = Inside::leave();
        self.queue.kick();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let _out = Inside::leave();
        let arena = &self.boot.arena;
        self.queue.poll(budget, &mut |completion| {
            let _in = arena.enter();
            done(completion);
        })
    }

    fn arm(&mut self) -> Armed {
        self.queue.arm()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn stats(&self) -> &Stats {
        self.queue.stats()
    }
}
