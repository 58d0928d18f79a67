//! The machine as its jobs see it: a handle that points at nothing, so that it
//! may lie in an image.

use crate::boot::{self, Boot};
use crate::memory::{Arena, Inside};
use crate::side::Front;
use firn_block::shm::Region;
use firn_block::{DiskId, Queue};
use firn_jobs::io::ChannelTable;
use firn_jobs::{
    Counters, DiskReport, Era, JobFuture, Machine, MemoryHash, Mode, Power, PowerAsk, PowerFuture,
    PowerRefusal, Report, StoreAsk, StoreFuture,
};
use firn_kernel::exec::{BootQueue, Registry, Rooms};
use firn_kernel::mm::Memory;
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
    /// Buffers that are registered with disks.
    pub buffers: Registry,
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
            buffers: Registry::new(),
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
        let fronts = {
            let _out = Inside::leave();
            boot.side.fronts()
        };
        let names = boot.names.borrow();
        let report = |front: &Front| DiskReport {
            id: names.to_job(front.id),
            state: front.state,
            info: Some(front.info.clone()),
            features: String::new(),
            stats: front.stats,
        };
        let reports = fronts.iter().map(report).collect();
        drop(names);
        let _out = Inside::leave();
        drop(fronts);
        reports
    }

    fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        let boot = self.boot();
        let present = boot.names.borrow().to_boot(disk);
        boot.side.with_queue(present, value, |queue, value| {
            let mut queue = BootQueue {
                queue,
                buffers: &boot.jobs().buffers,
                disk,
                rooms: SimRooms(&boot.arena),
            };
            work(&mut queue, value)
        })
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

/// The arena of this thread's machine, and everything else.
struct SimRooms<'a>(&'a Arena);

impl Rooms for SimRooms<'_> {
    type Guard = Inside;

    fn enter(&self, memory: Memory) -> Inside {
        match memory {
            Memory::Job => self.0.enter(),
            Memory::Boot => Inside::leave(),
        }
    }

    fn running(&self) -> Memory {
        match Inside::is_any() {
            true => Memory::Job,
            false => Memory::Boot,
        }
    }
}
