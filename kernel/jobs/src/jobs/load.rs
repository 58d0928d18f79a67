//! `load`: mixed traffic that is checked, until time is over or the disk goes.

use crate::error::JobError;
use crate::io::Channel;
use crate::lang::Load;
use crate::machine::Machine;
use crate::result::Outcome;
use crate::rng::Rng;
use crate::task::{Progress, Range, Task, block_size, depth};
use crate::units::Bytes;
use crate::verify_format::Pattern;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use firn_block::{Completion, IoError, Op, Request, SECTOR};
use firn_task::Instant;

/// Most blocks that are kept track of; four bytes each.
const MAX_BLOCKS: u64 = 1 << 20;

pub(super) async fn load<M: Machine>(task: &Task<M>, args: &Load) -> Result<Outcome, JobError> {
    let op = if args.rw.writes { Op::Write } else { Op::Read };
    let info = task.live(args.disk, op)?;
    let block = block_size(&info, args.bs.0)?;
    let depth = depth(args.qd)?;
    let range = Range::of(&info, args.at.0, args.size)?;
    let blocks = range.bytes() / block as u64;
    if !(2 * args.qd..=MAX_BLOCKS).contains(&blocks) {
        let want = format!("between {} and {MAX_BLOCKS} times bs=", 2 * args.qd);
        return Err(JobError::Argument { key: "size", want });
    }
    let mut run = Run {
        task,
        args,
        block,
        first: range.sector,
        marks: vec![Mark::default(); blocks as usize],
        cursor: 0,
        generation: 0,
        rng: Rng::new(args.seed),
        scratch: vec![0; block],
        counts: Counts::default(),
        gone: false,
        channel: Channel::open(&task.machine, args.disk, depth, block)?,
    };
    let end = task.machine.now() + args.time;
    run.traffic(end).await?;
    run.outcome()
}

/// What a block holds: zero if nobody knows, else the generation it was written
/// with; and whether a request for it is in flight.
#[derive(Clone, Copy, Default)]
struct Mark {
    generation: u32,
    busy: bool,
}

#[derive(Default)]
struct Counts {
    submitted: u64,
    completed: u64,
    reads: u64,
    writes: u64,
    checked: u64,
    errors: u64,
    gone: u64,
    first: Option<IoError>,
}

struct Run<'a, M: Machine> {
    task: &'a Task<M>,
    args: &'a Load,
    block: usize,
    first: u64,
    marks: Vec<Mark>,
    cursor: u64,
    generation: u32,
    rng: Rng,
    scratch: Vec<u8>,
    counts: Counts,
    gone: bool,
    channel: Channel<M>,
}

impl<M: Machine> Run<'_, M> {
    async fn traffic(&mut self, end: Instant) -> Result<(), JobError> {
        let mut progress = Progress::new(self.task, "keeping busy", 0);
        let mut outcome = Ok(());
        let mut now = self.task.machine.now();
        loop {
            while outcome.is_ok() && !self.gone && now < end && self.submit() {}
            if self.channel.outstanding() == 0 {
                return outcome;
            }
            let waited = self.task.wait(&mut self.channel, &mut progress, now).await;
            let completion = match waited {
                Ok(completion) => completion,
                Err(stuck) => return outcome.and(Err(stuck)),
            };
            outcome = outcome.and(self.ended(&completion));
            self.channel.recycle(completion);
            now = self.task.machine.now();
        }
    }

    /// Submits one request; `false` when there is no room or no disk.
    fn submit(&mut self) -> bool {
        let Some(buffer) = self.channel.take_buffer() else {
            return false;
        };
        let index = self.pick();
        let rw = self.args.rw;
        let write = rw.writes && (!rw.reads || self.rng.below(2) == 0);
        let op = if write { Op::Write } else { Op::Read };
        let sector = self.sector(index);
        let mut generation = self.marks[index].generation;
        if write {
            generation = self.next_generation();
            let pattern = self.pattern(generation);
            pattern.fill(sector, &mut self.scratch);
            buffer.region().copy_in(0, &self.scratch);
        }
        let cookie = (u64::from(generation) << 32) | index as u64;
        let request = Request::data(op, sector, buffer, self.block).with_cookie(cookie);
        match self.task.submit(&mut self.channel, request) {
            Ok(true) => {
                self.marks[index].busy = true;
                self.counts.submitted += 1;
                true
            }
            Ok(false) => false,
            // The arguments were checked, so the disk is what has changed: it
            // closes, or became smaller. What is in flight still ends.
            Err(_) => {
                self.gone = true;
                false
            }
        }
    }

    /// A block without a request in flight; there are more blocks than requests.
    fn pick(&mut self) -> usize {
        let blocks = self.marks.len() as u64;
        let start = match self.args.rw.random {
            true => self.rng.below(blocks),
            false => self.cursor,
        };
        let mut indices = (0..blocks).map(|step| (start + step) % blocks);
        let free = indices.find(|index| !self.marks[*index as usize].busy);
        let index = free.unwrap_or(start);
        self.cursor = (index + 1) % blocks;
        index as usize
    }

    /// Books a completion, and checks what was read.
    fn ended(&mut self, completion: &Completion) -> Result<(), JobError> {
        let request = &completion.request;
        let index = (request.cookie as u32) as usize;
        let generation = (request.cookie >> 32) as u32;
        let mark = &mut self.marks[index];
        mark.busy = false;
        self.counts.completed += 1;
        match (completion.result, request.op) {
            (Ok(()), Op::Write) => {
                mark.generation = generation;
                self.counts.writes += 1;
            }
            (Ok(()), _) => {
                self.counts.reads += 1;
                self.check(completion, generation)?;
            }
            (Err(error), op) => {
                if op == Op::Write {
                    // The old content, the new one, or a mixture.
                    mark.generation = 0;
                }
                self.failed(error);
                return Ok(());
            }
        }
        self.task.add_bytes(self.block as u64);
        Ok(())
    }

    fn failed(&mut self, error: IoError) {
        if error == IoError::Gone {
            self.counts.gone += 1;
            self.gone = true;
            return;
        }
        self.counts.errors += 1;
        self.counts.first.get_or_insert(error);
    }

    fn check(&mut self, completion: &Completion, generation: u32) -> Result<(), JobError> {
        let request = &completion.request;
        let (Some(buffer), 1..) = (&request.buffer, generation) else {
            return Ok(());
        };
        buffer.region().copy_out(0, &mut self.scratch);
        self.counts.checked += 1;
        let pattern = self.pattern(generation);
        let checked = pattern.check(request.sector, &self.scratch);
        checked.map_err(|mismatch| JobError::Mismatch {
            disk: self.args.disk,
            mismatch,
        })
    }

    fn pattern(&self, generation: u32) -> Pattern {
        Pattern {
            seed: self.args.seed,
            generation: generation.into(),
            block: self.block as u32,
        }
    }

    /// Never zero, which stands for unknown content.
    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.generation
    }

    fn sector(&self, index: usize) -> u64 {
        self.first + index as u64 * (self.block as u64 / SECTOR)
    }

    fn outcome(&self) -> Result<Outcome, JobError> {
        let counts = &self.counts;
        let disk = self.args.disk;
        self.task.say(format_args!(
            "{} submitted, {} completed: {} reads ({} checked), {} writes, {} errors, {} ended as gone",
            counts.submitted,
            counts.completed,
            counts.reads,
            counts.checked,
            counts.writes,
            counts.errors,
            counts.gone
        ));
        if let Some(first) = counts.first {
            let count = counts.errors;
            return Err(JobError::Failures { disk, count, first });
        }
        let end = if self.gone {
            "until it went away"
        } else {
            "all the time"
        };
        let summary = format!(
            "{} moved on {disk} {end}, each of {} requests ended once",
            Bytes(self.task.bytes()),
            counts.submitted
        );
        Ok(Outcome::new(summary)
            .with("gone", self.gone)
            .with("submitted", counts.submitted)
            .with("completed", counts.completed)
            .with("reads", counts.reads)
            .with("checked", counts.checked)
            .with("writes", counts.writes)
            .with("ended_gone", counts.gone))
    }
}
