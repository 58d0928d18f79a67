//! `bench`: how many, how fast, at what cost.

use crate::error::JobError;
use crate::histogram::Histogram;
use crate::io::Channel;
use crate::lang::{Bench, Rw};
use crate::machine::{Counters, Machine, Mode};
use crate::result::Outcome;
use crate::rng::Rng;
use crate::task::{Progress, Range, Task, block_size, depth, ended};
use crate::units::{Bytes, Span, Thousandths, per_second, seconds};
use alloc::format;
use alloc::string::ToString;
use core::time::Duration;
use firn_block::{Completion, DiskId, Op, Request, SECTOR};
use firn_task::Instant;

/// Requests that are not measured: caches and queues fill up meanwhile.
const WARM_UP: Duration = Duration::from_millis(300);

pub(super) async fn bench<M: Machine>(task: &Task<M>, args: &Bench) -> Result<Outcome, JobError> {
    let op = if args.rw.writes { Op::Write } else { Op::Read };
    let info = task.live(args.disk, op)?;
    let block = block_size(&info, args.bs.0)?;
    let depth = depth(args.qd)?;
    let range = Range::of(&info, args.at.0, args.size)?;
    let _mode = ModeFor::set(&task.machine, args.disk, args.mode);
    let mode = task.machine.mode(args.disk);
    let mut channel = Channel::open(&task.machine, args.disk, depth, block)?;
    randomize(&mut channel, depth, args.seed);
    let mut run = Run {
        task,
        channel,
        places: Places::new(range, block, args)?,
        block,
        latency: Histogram::new(),
        progress: Progress::new(task, "measuring", 0),
    };
    let measured = run.measure(args.time).await?;
    Ok(outcome(args, block, mode, &run.latency, &measured))
}

/// A mode that lasts as long as the job, however it ends.
struct ModeFor<'a, M: Machine> {
    machine: &'a M,
    disk: DiskId,
    before: Mode,
}

impl<'a, M: Machine> ModeFor<'a, M> {
    fn set(machine: &'a M, disk: DiskId, mode: Option<Mode>) -> Self {
        let before = machine.mode(disk);
        machine.set_mode(disk, mode.unwrap_or(before));
        Self {
            machine,
            disk,
            before,
        }
    }
}

impl<M: Machine> Drop for ModeFor<'_, M> {
    fn drop(&mut self) {
        self.machine.set_mode(self.disk, self.before);
    }
}

/// Fills all buffers, so that a backend cannot make short work of zeros.
fn randomize<M: Machine>(channel: &mut Channel<M>, depth: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut filled = alloc::vec::Vec::with_capacity(depth);
    while let Some(buffer) = channel.take_buffer() {
        for at in (0..buffer.region().len()).step_by(8) {
            buffer.region().copy_in(at, &rng.next_u64().to_le_bytes());
        }
        filled.push(buffer);
    }
    for buffer in filled {
        channel.put_buffer(buffer);
    }
}

/// Where the next request goes.
struct Places {
    rw: Rw,
    first: u64,
    blocks: u64,
    block_sectors: u64,
    next: u64,
    rng: Rng,
}

impl Places {
    fn new(range: Range, block: usize, args: &Bench) -> Result<Self, JobError> {
        let block_sectors = block as u64 / SECTOR;
        let blocks = range.sectors / block_sectors;
        if blocks == 0 {
            return Err(crate::task::not("size", "at least one bs="));
        }
        Ok(Self {
            rw: args.rw,
            first: range.sector,
            blocks,
            block_sectors,
            next: 0,
            rng: Rng::new(args.seed),
        })
    }

    fn next(&mut self) -> (Op, u64) {
        let block = if self.rw.random {
            self.rng.below(self.blocks)
        } else {
            let block = self.next;
            self.next = (block + 1) % self.blocks;
            block
        };
        let op = match (self.rw.reads, self.rw.writes) {
            (true, true) if self.rng.below(2) == 0 => Op::Read,
            (_, true) => Op::Write,
            (_, false) => Op::Read,
        };
        (op, self.first + block * self.block_sectors)
    }
}

struct Run<'a, M: Machine> {
    task: &'a Task<M>,
    channel: Channel<M>,
    places: Places,
    block: usize,
    latency: Histogram,
    progress: Progress,
}

/// The machine at one moment.
struct Moment {
    at: Instant,
    counters: Counters,
    notifications: u64,
    printing: u64,
}

/// What happened between two moments.
struct Measured {
    time: Duration,
    counters: Counters,
    notifications: u64,
}

impl<M: Machine> Run<'_, M> {
    /// Keeps the queue full, from a warm-up on for `time`, then drains it.
    async fn measure(&mut self, time: Duration) -> Result<Measured, JobError> {
        let machine = self.task.machine.clone();
        let mut now = machine.now();
        let warm = now + WARM_UP.min(time / 4);
        self.fill(now)?;
        while now < warm {
            now = self.step(now).await?;
            self.fill(now)?;
        }
        self.latency.clear();
        let before = self.moment(now);
        let end = now + time;
        while now < end {
            now = self.step(now).await?;
            self.fill(now)?;
        }
        let after = self.moment(now);
        // What completes from here on does not count.
        while self.channel.outstanding() > 0 {
            let completion = self.next(now).await?;
            self.channel.recycle(completion);
            now = machine.now();
        }
        Ok(before.until(&after))
    }

    /// Submits until there is no room.
    fn fill(&mut self, now: Instant) -> Result<(), JobError> {
        while let Some(buffer) = self.channel.take_buffer() {
            let (op, sector) = self.places.next();
            if op == Op::Write {
                // Keeps what is written different from what was read before.
                let stamp = self.places.rng.next_u64();
                buffer.region().copy_in(0, &stamp.to_le_bytes());
            }
            let request = Request::data(op, sector, buffer, self.block);
            let request = request.with_cookie(now.as_nanos());
            if !self.task.submit(&mut self.channel, request)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes one completion; returns when that was.
    async fn step(&mut self, now: Instant) -> Result<Instant, JobError> {
        let completion = self.next(now).await?;
        let now = self.task.machine.now();
        let submitted = completion.request.cookie;
        self.latency.add(now.as_nanos().saturating_sub(submitted));
        self.task.add_bytes(self.block as u64);
        self.channel.recycle(completion);
        Ok(now)
    }

    async fn next(&mut self, now: Instant) -> Result<Completion, JobError> {
        let Self {
            task,
            channel,
            progress,
            ..
        } = self;
        let completion = task.wait(channel, progress, now).await?;
        if let Err(error) = ended(channel.disk(), &completion) {
            channel.recycle(completion);
            return Err(error);
        }
        Ok(completion)
    }

    fn moment(&self, at: Instant) -> Moment {
        let disk = self.channel.disk();
        let stats = |queue: &mut dyn firn_block::Queue, ()| queue.stats().notifications;
        Moment {
            at,
            counters: self.task.machine.counters(),
            notifications: self.task.machine.with_queue(disk, (), stats).unwrap_or(0),
            printing: self.progress.allocations,
        }
    }
}

impl Moment {
    fn until(&self, end: &Self) -> Measured {
        let (a, b) = (&self.counters, &end.counters);
        // Progress lines are not part of what is measured.
        let printing = end.printing - self.printing;
        let allocations = b.allocations.wrapping_sub(a.allocations);
        Measured {
            time: end.at.since(self.at),
            notifications: end.notifications.wrapping_sub(self.notifications),
            counters: Counters {
                cycles: b.cycles.wrapping_sub(a.cycles),
                halted: b.halted.wrapping_sub(a.halted),
                hypercalls: b.hypercalls.wrapping_sub(a.hypercalls),
                events: b.events.wrapping_sub(a.events),
                allocations: allocations.saturating_sub(printing),
            },
        }
    }
}

fn outcome(
    args: &Bench,
    block: usize,
    mode: Mode,
    latency: &Histogram,
    measured: &Measured,
) -> Outcome {
    let ios = latency.count();
    let counters = &measured.counters;
    let share = counters.halted as f64 / (measured.time.as_nanos() as f64).max(1.0);
    let busy = (counters.cycles as f64 * (1.0 - share.min(1.0))) as u64;
    let iops = per_second(ios, measured.time);
    let bandwidth = iops * block as f64;
    let per_io = |count: u64| Thousandths::of(count, ios.max(1));
    let span = |nanos: u64| Span(Duration::from_nanos(nanos));
    let (p50, p99) = (latency.percentile(50), latency.percentile(99));
    let summary = format!(
        "{} {} bs={} qd={} {mode}: {} IOPS, {}/s; latency mean {}, p50 {}, p99 {}, max {}; \
         per I/O {} cycles, {} hypercalls, {} events; {} allocations",
        args.disk,
        args.rw.word(),
        Bytes(block as u64),
        args.qd,
        (iops + 0.5) as u64,
        Bytes(bandwidth as u64),
        span(latency.mean()),
        span(p50),
        span(p99),
        span(latency.max()),
        per_io(busy).rounded(),
        per_io(counters.hypercalls),
        per_io(counters.events),
        counters.allocations,
    );
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    Outcome::new(summary)
        .with("rw", args.rw.word())
        .with("bs", block as u64)
        .with("qd", args.qd)
        .with("mode", mode.to_string())
        .with("steady_seconds", seconds(measured.time))
        .with("ios", ios)
        .with("iops", (iops * 10.0) as u64 as f64 / 10.0)
        .with("bytes_per_second", bandwidth as u64)
        .with("mean_us", micros(latency.mean()))
        .with("p50_us", micros(p50))
        .with("p99_us", micros(p99))
        .with("max_us", micros(latency.max()))
        .with("cycles_per_io", per_io(busy).number())
        .with("hypercalls_per_io", per_io(counters.hypercalls).number())
        .with("events_per_io", per_io(counters.events).number())
        .with(
            "notifications_per_io",
            per_io(measured.notifications).number(),
        )
        .with("allocations", counters.allocations)
}
