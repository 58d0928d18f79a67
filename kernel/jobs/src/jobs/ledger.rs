//! `ledger`: records on a disk, each acknowledged once a flush has covered it.
//!
//! What it knows (its index, the number and the link of the last record, what
//! is in flight) is in its own future, so in job memory: after a restore it goes
//! on from there, and first compares the disk with what it knows.

mod check;

use crate::error::JobError;
use crate::io::Channel;
use crate::lang::Ledger;
use crate::ledger_format::{ACK_PREFIX, Layout, MAX_OPEN, RECORD_SIZES, Record, SLOTS};
use crate::machine::Machine;
use crate::power::Era;
use crate::result::Outcome;
use crate::rng::Rng;
use crate::task::{Progress, Range, Task, depth, ended, not};
use crate::units::Bytes;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use firn_block::{Completion, Durability, Op, Request};
use firn_task::{Instant, sleep_until};

pub(super) async fn ledger<M: Machine>(task: &Task<M>, args: &Ledger) -> Result<Outcome, JobError> {
    let info = task.live(args.disk, Op::Write)?;
    let range = Range::of(&info, args.at.0, args.size)?;
    let block = crate::task::block_size(&info, args.bs.0)?;
    let layout = Layout::new(args.id, range.sector, range.bytes(), args.bs.0);
    let layout = layout.ok_or_else(|| {
        let (slots, sizes) = (SLOTS, RECORD_SIZES);
        let records = format!("room for {} to {} records", slots.start(), slots.end());
        let of = format!("of {} to {} bytes", sizes.start(), sizes.end());
        not("size", &format!("{records} {of}"))
    })?;
    let depth = depth(args.qd)?;
    if args.reads > 99 {
        return Err(not("reads", "between 0 and 99, percent"));
    }
    let mut run = Run {
        task,
        args,
        layout,
        block,
        depth,
        flushes: info.durability != Durability::None,
        // One more place than buffers in use, for the flush.
        channel: Channel::open(&task.machine, args.disk, depth + 1, block)?,
        scratch: vec![0; block],
        book: Book::new(&layout),
        flushing: None,
        flush_due: task.machine.now(),
        started: task.machine.now(),
        first: 1,
        rng: Rng::new(args.id),
        era: task.machine.era(),
        checked: 0,
    };
    if args.recover {
        run.recover().await?;
    }
    run.keep().await?;
    Ok(run.outcome())
}

/// What the ledger knows of its records.
struct Book {
    /// The checksum of the record at each place; zero if there is none.
    index: Vec<u32>,
    /// The next record's number.
    next: u64,
    /// The link that the next record carries.
    link: u64,
    /// Every record up to this one has been written.
    written: u64,
    /// Which of those after it have been.
    open: VecDeque<bool>,
    /// Every record up to this one was acknowledged.
    acked: u64,
}

impl Book {
    fn new(layout: &Layout) -> Self {
        Self {
            index: vec![0; layout.slots as usize],
            next: 1,
            link: 0,
            written: 0,
            open: VecDeque::with_capacity(MAX_OPEN as usize),
            acked: 0,
        }
    }

    /// A write has ended well.
    fn wrote(&mut self, seq: u64) {
        let at = seq.wrapping_sub(self.written + 1) as usize;
        if let Some(open) = self.open.get_mut(at) {
            *open = true;
        }
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.written += 1;
        }
    }

    /// Whether one more record may be written before older ones are acknowledged.
    fn has_room(&self) -> bool {
        self.next - self.acked <= MAX_OPEN
    }
}

/// What a completion's cookie says, besides the number.
const READ: u64 = 1 << 63;

struct Run<'a, M: Machine> {
    task: &'a Task<M>,
    args: &'a Ledger,
    layout: Layout,
    block: usize,
    depth: usize,
    flushes: bool,
    channel: Channel<M>,
    scratch: Vec<u8>,
    book: Book,
    /// Which record the flush in flight covers everything up to.
    flushing: Option<u64>,
    flush_due: Instant,
    started: Instant,
    /// The first record of this run.
    first: u64,
    rng: Rng,
    era: Era,
    /// Records that were read and compared.
    checked: u64,
}

impl<M: Machine> Run<'_, M> {
    /// Writes and acknowledges until enough is, or somebody says stop.
    async fn keep(&mut self) -> Result<(), JobError> {
        let mut outcome = Ok(());
        let mut silent = Progress::silent(self.task);
        loop {
            let away = self.task.machine.era() != self.era;
            let quiet = self.channel.outstanding() == 0;
            if away && quiet && outcome.is_ok() {
                outcome = self.came_back().await;
            }
            let now = self.task.machine.now();
            let go_on = outcome.is_ok() && !away;
            if go_on {
                outcome = self.submit(now);
            }
            if self.channel.outstanding() == 0 {
                if outcome.is_err()
                    || (self.wants_no_more() && self.book.acked + 1 == self.book.next)
                {
                    return outcome;
                }
                if go_on {
                    self.pause(now).await;
                }
                continue;
            }
            let waited = self.task.wait(&mut self.channel, &mut silent, now).await;
            let completion = match waited {
                Ok(completion) => completion,
                Err(stuck) => return outcome.and(Err(stuck)),
            };
            outcome = outcome.and(self.ended(&completion));
            self.channel.recycle(completion);
        }
    }

    /// Nothing is in flight: waits for the next thing that is due.
    async fn pause(&self, now: Instant) {
        let unflushed = self.book.written > self.book.acked;
        let due = match unflushed {
            true => self.flush_due,
            false => self.next_record_due(),
        };
        let a_bit = now + core::time::Duration::from_millis(100);
        sleep_until(self.task.machine.clone(), due.min(a_bit)).await;
    }

    fn wants_no_more(&self) -> bool {
        let enough = |records| self.book.next - self.first >= records;
        self.task.is_stopped() || self.args.records.is_some_and(enough)
    }

    /// When the next record may be written at the wanted rate.
    fn next_record_due(&self) -> Instant {
        let count = self.book.next - self.first;
        let nanos = count
            .saturating_mul(1_000_000_000)
            .checked_div(self.args.rate);
        self.started + core::time::Duration::from_nanos(nanos.unwrap_or(0))
    }

    /// Submits what is due and fits.
    fn submit(&mut self, now: Instant) -> Result<(), JobError> {
        if self.flushing.is_none()
            && self.book.written > self.book.acked
            && (now >= self.flush_due || self.wants_no_more() || !self.book.has_room())
        {
            self.flush(now)?;
        }
        let flush = usize::from(self.flushing.is_some() && self.flushes);
        while self.channel.outstanding() < self.depth + flush {
            let reads = self.args.reads > 0 && self.book.written > 0;
            let done = if reads && self.rng.below(100) < self.args.reads {
                self.read()?
            } else if !self.wants_no_more() && self.book.has_room() && now >= self.next_record_due()
            {
                self.write(now)?
            } else {
                false
            };
            if !done {
                break;
            }
        }
        self.channel.kick();
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> Result<(), JobError> {
        self.flush_due = now + self.args.every;
        let upto = self.book.written;
        if !self.flushes {
            // Without a cache what is written is durable.
            self.acknowledge(upto);
            return Ok(());
        }
        if self.task.submit(&mut self.channel, Request::flush())? {
            self.flushing = Some(upto);
        }
        Ok(())
    }

    fn write(&mut self, now: Instant) -> Result<bool, JobError> {
        let Some(buffer) = self.channel.take_buffer() else {
            return Ok(false);
        };
        let seq = self.book.next;
        let record = Record {
            seq,
            boot: self.era.boot,
            restores: self.era.restores,
            resumes: self.era.resumes,
            time: now.as_nanos(),
            chain: self.book.link,
        };
        let seal = record.fill(&self.layout, &mut self.scratch);
        buffer.region().copy_in(0, &self.scratch);
        let slot = self.layout.slot(seq);
        let request = Request::data(Op::Write, self.layout.sector(slot), buffer, self.block);
        if !self
            .task
            .submit(&mut self.channel, request.with_cookie(seq))?
        {
            return Ok(false);
        }
        self.book.index[slot as usize] = seal.checksum;
        self.book.link = seal.link;
        self.book.next += 1;
        self.book.open.push_back(false);
        Ok(true)
    }

    /// Reads one of the records that must be on the disk.
    fn read(&mut self) -> Result<bool, JobError> {
        let Some(buffer) = self.channel.take_buffer() else {
            return Ok(false);
        };
        let kept = self.layout.kept(self.book.written);
        let seq = kept.start + self.rng.below(kept.end - kept.start);
        let sector = self.layout.sector(self.layout.slot(seq));
        let request = Request::data(Op::Read, sector, buffer, self.block);
        self.task
            .submit(&mut self.channel, request.with_cookie(seq | READ))
    }

    fn ended(&mut self, completion: &Completion) -> Result<(), JobError> {
        let request = &completion.request;
        if request.op == Op::Flush {
            let upto = self.flushing.take();
            ended(self.channel.disk(), completion)?;
            self.acknowledge(upto.unwrap_or(0));
            return Ok(());
        }
        ended(self.channel.disk(), completion)?;
        self.task.add_bytes(request.bytes());
        match (request.op, &request.buffer) {
            (Op::Read, Some(buffer)) => {
                buffer.region().copy_out(0, &mut self.scratch);
                self.compare(request.cookie & !READ)
            }
            _ => {
                self.book.wrote(request.cookie);
                Ok(())
            }
        }
    }

    fn acknowledge(&mut self, upto: u64) {
        if upto > self.book.acked {
            self.book.acked = upto;
            let ledger = self.args.id;
            self.task.machine.print(format_args!(
                "{ACK_PREFIX}{{\"ledger\":{ledger},\"upto\":{upto}}}\n"
            ));
        }
    }

    fn outcome(&self) -> Outcome {
        let (disk, book) = (self.args.disk, &self.book);
        let written = book.next - self.first;
        let summary = format!(
            "{written} records of {} on {disk} acknowledged, up to {}; {} read and compared",
            Bytes(self.block as u64),
            book.acked,
            self.checked
        );
        Outcome::new(summary)
            .with("ledger", self.args.id)
            .with("records", written)
            .with("upto", book.acked)
            .with("checked", self.checked)
            .with("restores", self.era.restores)
            .with("resumes", self.era.resumes)
    }
}

#[cfg(test)]
mod tests;
