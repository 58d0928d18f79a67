//! What a running job has at hand.

use crate::error::JobError;
use crate::input::Input;
use crate::io::{Channel, IO_DEADLINE, Late};
use crate::lang::Extent;
use crate::machine::{DiskReport, Machine};
use crate::shelf::Shelf;
use crate::units::{Bytes, Span};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::{Completion, DiskId, DiskInfo, Op, Refused, Request, SECTOR, Why};
use firn_task::Instant;

/// Time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(2);

/// Most requests that a job keeps in flight.
const MAX_DEPTH: u64 = 1024;

/// Largest request of a job, in bytes.
const MAX_BLOCK: u64 = 16 << 20;

/// One run of one job.
pub(crate) struct Task<M: Machine> {
    pub(crate) job: &'static str,
    pub(crate) machine: M,
    pub(crate) input: Rc<Input<M>>,
    /// What jobs leave in memory for later ones.
    pub(crate) shelf: Rc<Shelf>,
    disk: Cell<Option<DiskId>>,
    bytes: Cell<u64>,
    stop: Rc<Cell<bool>>,
}

impl<M: Machine> Task<M> {
    pub(crate) fn new(
        job: &'static str,
        machine: M,
        input: Rc<Input<M>>,
        shelf: Rc<Shelf>,
    ) -> Self {
        Self {
            job,
            machine,
            input,
            shelf,
            disk: Cell::new(None),
            bytes: Cell::new(0),
            stop: Rc::default(),
        }
    }

    /// What, once set, asks the job to come to its end.
    pub(crate) fn stop(&self) -> Rc<Cell<bool>> {
        self.stop.clone()
    }

    /// Whether the job was asked to come to its end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.get()
    }

    /// Prints a line.
    pub(crate) fn say(&self, text: fmt::Arguments<'_>) {
        self.machine.print(format_args!("{}: {text}\n", self.job));
    }

    /// The disk that the job is about, once that is known.
    pub(crate) fn disk(&self) -> Option<DiskId> {
        self.disk.get()
    }

    /// Bytes moved so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Counts bytes that were moved.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().wrapping_add(bytes));
    }

    /// Notes which disk the job is about, and what the machine knows of it.
    pub(crate) fn report(&self, disk: DiskId) -> Result<DiskReport, JobError> {
        self.disk.set(Some(disk));
        let disks = self.machine.disks();
        let there: Vec<DiskId> = disks.iter().map(|report| report.id).collect();
        let found = disks.into_iter().find(|report| report.id == disk);
        found.ok_or(JobError::NoSuchDisk { disk, there })
    }

    /// A disk that takes requests now, for `op`.
    pub(crate) fn live(&self, disk: DiskId, op: Op) -> Result<DiskInfo, JobError> {
        let report = self.report(disk)?;
        let info = match (report.state, report.info) {
            (Lifecycle::Live, Some(info)) => info,
            (state, _) => {
                let note = report.features;
                return Err(JobError::NotLive { disk, state, note });
            }
        };
        if op.modifies() && info.read_only {
            return Err(JobError::ReadOnly(disk));
        }
        Ok(info)
    }

    /// The next completion, with progress lines meanwhile. `now` is when the
    /// caller last looked at the clock.
    pub(crate) async fn wait(
        &self,
        channel: &mut Channel<M>,
        progress: &mut Progress,
        now: Instant,
    ) -> Result<Completion, JobError> {
        let mut give_up = now + IO_DEADLINE;
        let mut now = now;
        let mut era = self.machine.era();
        loop {
            progress.tick(self, now);
            match channel.next(progress.due.min(give_up)).await {
                Ok(completion) => return Ok(completion),
                Err(Late) => now = self.machine.now(),
            }
            // What was in flight when the machine went away has been sent
            // again: the disk has all its time once more.
            let was = core::mem::replace(&mut era, self.machine.era());
            if era != was {
                give_up = now + IO_DEADLINE;
            }
            if now >= give_up {
                return Err(JobError::Stuck {
                    disk: channel.disk(),
                    waiting: channel.outstanding(),
                    after: IO_DEADLINE,
                });
            }
        }
    }

    /// One request from submission to completion, on a channel without others.
    /// The buffer goes back to the channel; `look` sees the completion before.
    pub(crate) async fn one(
        &self,
        channel: &mut Channel<M>,
        request: Request,
        look: impl FnOnce(&Completion),
    ) -> Result<(), JobError> {
        let disk = channel.disk();
        self.submit(channel, request)?;
        let mut progress = Progress::new(self, "waiting", 0);
        let now = self.machine.now();
        let completion = self.wait(channel, &mut progress, now).await?;
        look(&completion);
        let outcome = ended(disk, &completion);
        if outcome.is_ok() && completion.request.op.has_data() {
            self.add_bytes(completion.request.bytes());
        }
        channel.recycle(completion);
        outcome
    }

    /// Submits a request. `false` when there is no room until something that is
    /// outstanding was fetched. The buffer stays with the channel, whatever
    /// happens.
    pub(crate) fn submit(
        &self,
        channel: &mut Channel<M>,
        request: Request,
    ) -> Result<bool, JobError> {
        let Err(Refused { why, request }) = channel.submit(request) else {
            return Ok(true);
        };
        let (disk, op, sector) = (channel.disk(), request.op, request.sector);
        if let Some(buffer) = request.buffer {
            channel.put_buffer(buffer);
        }
        match why {
            Why::Full if channel.outstanding() > 0 => Ok(false),
            Why::NotLive(state) => {
                let note = self.report(disk).map(|report| report.features);
                let note = note.unwrap_or_default();
                Err(JobError::NotLive { disk, state, note })
            }
            why => Err(JobError::Refused {
                disk,
                op,
                sector,
                why,
            }),
        }
    }
}

/// How a completion ended, as a job's error.
pub(crate) fn ended(disk: DiskId, completion: &Completion) -> Result<(), JobError> {
    let Request {
        op,
        sector,
        sectors,
        ..
    } = completion.request;
    completion.result.map_err(|error| JobError::Io {
        disk,
        op,
        sector,
        sectors,
        error,
    })
}

/// Part of a disk in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First sector.
    pub(crate) sector: u64,
    /// How many.
    pub(crate) sectors: u64,
}

impl Range {
    /// `extent` bytes from byte `at` on, within the disk and in whole blocks.
    pub(crate) fn of(info: &DiskInfo, at: u64, extent: Extent) -> Result<Self, JobError> {
        let (disk, size) = (info.id, info.bytes());
        let bytes = match extent {
            Extent::Bytes(bytes) => bytes,
            Extent::All => size.saturating_sub(at),
        };
        let end = at.saturating_add(bytes);
        if end > size || at >= size {
            return Err(JobError::BeyondEnd { disk, end, size });
        }
        aligned("at", at, info)?;
        aligned("size", bytes, info)?;
        if bytes == 0 {
            return Err(not("size", "more than nothing"));
        }
        Ok(Self {
            sector: at / SECTOR,
            sectors: bytes / SECTOR,
        })
    }

    /// Length in bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.sectors * SECTOR
    }
}

fn aligned(key: &'static str, value: u64, info: &DiskInfo) -> Result<(), JobError> {
    let unit = info.logical_block;
    if value.is_multiple_of(u64::from(unit)) {
        return Ok(());
    }
    let want = format!("a multiple of {unit}, the block of {}", info.id);
    Err(JobError::Argument { key, want })
}

/// An argument that makes no sense.
pub(crate) fn not(key: &'static str, want: &str) -> JobError {
    let want = want.into();
    JobError::Argument { key, want }
}

/// A checked `bs=`, in bytes.
pub(crate) fn block_size(info: &DiskInfo, bs: u64) -> Result<usize, JobError> {
    let want = format!("between 512 and {}", Bytes(MAX_BLOCK));
    if !(SECTOR..=MAX_BLOCK).contains(&bs) {
        return Err(JobError::Argument { key: "bs", want });
    }
    aligned("bs", bs, info)?;
    usize::try_from(bs).map_err(|_| JobError::Argument { key: "bs", want })
}

/// A checked `qd=`.
pub(crate) fn depth(qd: u64) -> Result<usize, JobError> {
    match usize::try_from(qd) {
        Ok(depth) if (1..=MAX_DEPTH).contains(&qd) => Ok(depth),
        _ => Err(not("qd", &format!("between 1 and {MAX_DEPTH}"))),
    }
}

/// A line every two seconds for whatever takes longer.
pub(crate) struct Progress {
    doing: &'static str,
    total: u64,
    base: u64,
    started: Instant,
    due: Instant,
    /// Heap allocations that printing caused.
    pub(crate) allocations: u64,
}

impl Progress {
    /// From now on the job is `doing` something with `total` bytes (zero if
    /// nobody knows how many).
    pub(crate) fn new<M: Machine>(task: &Task<M>, doing: &'static str, total: u64) -> Self {
        let now = task.machine.now();
        Self {
            doing,
            total,
            base: task.bytes(),
            started: now,
            due: now + PROGRESS,
            allocations: 0,
        }
    }

    /// Of a job that tells of itself in another way.
    pub(crate) fn silent<M: Machine>(task: &Task<M>) -> Self {
        let mut progress = Self::new(task, "", 0);
        progress.due = Instant::from_nanos(u64::MAX);
        progress
    }

    /// Prints a line if one is due.
    pub(crate) fn tick<M: Machine>(&mut self, task: &Task<M>, now: Instant) {
        if now < self.due {
            return;
        }
        let before = task.machine.counters().allocations;
        let done = task.bytes().saturating_sub(self.base);
        let took = Span(now.since(self.started));
        let doing = self.doing;
        match self.total {
            0 => task.say(format_args!("{doing}, {} after {took}", Bytes(done))),
            total => task.say(format_args!(
                "{doing}, {} of {} after {took}",
                Bytes(done),
                Bytes(total)
            )),
        }
        self.due = now + PROGRESS;
        let after = task.machine.counters().allocations;
        self.allocations += after.saturating_sub(before);
    }
}
