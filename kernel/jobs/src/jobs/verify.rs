//! `verify`: write blocks that say what they are, flush, read back, check.

use super::copy::flush;
use crate::error::JobError;
use crate::io::Channel;
use crate::lang::Verify;
use crate::machine::Machine;
use crate::result::Outcome;
use crate::stream::stream;
use crate::task::{Progress, Range, Task, block_size, depth};
use crate::units::Bytes;
use crate::verify_format::Pattern;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use firn_block::{DiskInfo, Op};
use firn_task::timeout;

/// The line that ends a hold.
const GO: &str = "go";

pub(super) async fn verify<M: Machine>(task: &Task<M>, args: &Verify) -> Result<Outcome, JobError> {
    let op = if args.write { Op::Write } else { Op::Read };
    let info = task.live(args.disk, op)?;
    let block = block_size(&info, args.bs.0)?;
    let depth = depth(args.qd)?;
    let range = Range::of(&info, args.at.0, args.size)?;
    let mut run = Run {
        task,
        info: &info,
        range,
        block,
        pattern: Pattern {
            seed: args.seed,
            generation: args.generation,
            block: block as u32,
        },
        scratch: vec![0; block],
        channel: Channel::open(&task.machine, args.disk, depth, block)?,
    };
    let flushed = args.write && run.write().await?;
    if args.hold {
        run.hold(args).await?;
    }
    run.check().await?;
    let did = match (args.write, flushed) {
        (true, true) => "written, flushed, read back and checked",
        (true, false) => "written, read back and checked (the disk offers no flush)",
        (false, _) => "read and checked",
    };
    let summary = format!("{} of {} {did}", Bytes(range.bytes()), args.disk);
    Ok(Outcome::new(summary)
        .with("at", args.at.0)
        .with("size", range.bytes())
        .with("bs", block as u64)
        .with("qd", args.qd)
        .with("seed", args.seed)
        .with("generation", args.generation)
        .with("written", args.write)
        .with("flushed", flushed))
}

struct Run<'a, M: Machine> {
    task: &'a Task<M>,
    info: &'a DiskInfo,
    range: Range,
    block: usize,
    pattern: Pattern,
    scratch: Vec<u8>,
    channel: Channel<M>,
}

impl<M: Machine> Run<'_, M> {
    /// Writes the range and makes it durable; `false` if the disk has no flush.
    async fn write(&mut self) -> Result<bool, JobError> {
        let Self {
            pattern, scratch, ..
        } = self;
        let progress = Progress::new(self.task, "writing", self.range.bytes());
        let job = (Op::Write, self.range, self.block);
        let channel = &mut self.channel;
        stream(
            self.task,
            channel,
            progress,
            job,
            |sector, bytes, buffer| {
                let scratch = &mut scratch[..bytes];
                pattern.fill(sector, scratch);
                buffer.region().copy_in(0, scratch);
                Ok(())
            },
        )
        .await?;
        flush(self.task, self.info).await
    }

    /// Waits for a person or a script to say `go`.
    async fn hold(&self, args: &Verify) -> Result<(), JobError> {
        let written = if args.write { "written, " } else { "" };
        self.task
            .say(format_args!("{written}waiting for a line '{GO}'"));
        let input = &self.task.input;
        let go = async { while input.line().await.trim() != GO {} };
        let waited = timeout(self.task.machine.clone(), args.timeout, go).await;
        waited.map_err(|_| JobError::TimedOut {
            what: format!("no line '{GO}'"),
            place: "console".into(),
            after: args.timeout,
        })
    }

    /// Reads the range back and checks every block.
    async fn check(&mut self) -> Result<(), JobError> {
        let Self {
            pattern, scratch, ..
        } = self;
        let disk = self.info.id;
        let progress = Progress::new(self.task, "checking", self.range.bytes());
        let job = (Op::Read, self.range, self.block);
        let channel = &mut self.channel;
        stream(
            self.task,
            channel,
            progress,
            job,
            |sector, bytes, buffer| {
                let scratch = &mut scratch[..bytes];
                buffer.region().copy_out(0, scratch);
                let checked = pattern.check(sector, scratch);
                checked.map_err(|mismatch| JobError::Mismatch { disk, mismatch })
            },
        )
        .await
    }
}
