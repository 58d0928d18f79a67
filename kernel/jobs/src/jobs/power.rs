//! `freeze`, `suspend`, `cold`, `memhash`, `image`: questions to the machine as
//! a whole.

use crate::error::JobError;
use crate::lang::{Compress, Freeze, Image, LangError, Vmbus};
use crate::machine::Machine;
use crate::power::{Datum, FreezeAsk, PowerAsk, PowerReport};
use crate::result::Outcome;
use crate::task::Task;
use crate::units::{Bytes, seconds};
use alloc::format;
use firn_block::DiskId;
use serde_json::Value;

/// Asks; the answer to a freeze may come after a restore, from another boot.
pub(super) async fn ask<M: Machine>(task: &Task<M>, ask: PowerAsk) -> Result<Outcome, JobError> {
    let answer = task.machine.ask_power(ask).await;
    let report = answer.map_err(JobError::Machine)?;
    Ok(outcome(task, report))
}

pub(super) async fn freeze<M: Machine>(task: &Task<M>, args: &Freeze) -> Result<Outcome, JobError> {
    if let Some(disk) = args.image {
        task.report(disk)?;
    }
    let freeze = FreezeAsk {
        image: args.image,
        level: args.level,
        then: args.then,
        compress: args.compress == Compress::Lz4,
        audit: args.audit,
        check: args.check,
        deadline: args.deadline,
    };
    ask(task, PowerAsk::Freeze(freeze)).await
}

pub(super) async fn image<M: Machine>(task: &Task<M>, args: &Image) -> Result<Outcome, JobError> {
    type Verb = fn(DiskId) -> PowerAsk;
    let verb: Verb = match args.verb.0.as_str() {
        "show" => |disk| PowerAsk::ShowImage { disk },
        "format" => |disk| PowerAsk::FormatImage { disk },
        word => {
            return Err(JobError::Line(LangError::BadValue {
                job: task.job,
                key: "verb",
                value: word.into(),
                want: "show or format",
            }));
        }
    };
    task.report(args.disk)?;
    ask(task, verb(args.disk)).await
}

pub(super) async fn cycle_bus<M: Machine>(
    task: &Task<M>,
    args: &Vmbus,
) -> Result<Outcome, JobError> {
    let times = args.times;
    ask(task, PowerAsk::CycleBus { times }).await
}

pub(super) fn memory_hash<M: Machine>(task: &Task<M>) -> Outcome {
    let hash = task.machine.memory_hash();
    let digits = format!("{:016x}", hash.hash);
    let summary = format!("{digits} over {} of job memory", Bytes(hash.bytes));
    Outcome::new(summary)
        .with("memory_hash", digits)
        .with("hashed_bytes", hash.bytes)
}

/// Prints a report's lines; the rest of it is the job's outcome.
fn outcome<M: Machine>(task: &Task<M>, report: PowerReport) -> Outcome {
    for line in &report.lines {
        task.machine.print(format_args!("  {line}\n"));
    }
    let fields = report.fields.into_iter();
    fields.fold(Outcome::new(report.summary), |outcome, (key, datum)| {
        outcome.with(key, value(datum))
    })
}

fn value(datum: Datum) -> Value {
    match datum {
        Datum::Number(number) => number.into(),
        Datum::Time(time) => seconds(time).into(),
        Datum::Text(text) => text.into(),
        Datum::Flag(flag) => flag.into(),
    }
}
