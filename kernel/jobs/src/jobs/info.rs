//! Jobs that only tell: `help`, `disks`, `stats`, `grants`, `trace`, `mem`,
//! `store`; and `mode`, which sets one thing.

use crate::error::JobError;
use crate::lang::{self, Help, SPECS, SetMode, Stats, Store};
use crate::machine::{DiskReport, Machine, Report, StoreAsk};
use crate::result::Outcome;
use crate::task::{Task, not};
use crate::units::Bytes;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use firn_block::{DiskInfo, Durability};
use serde_json::{Value, json};

/// Most names that `store ls` asks the values of.
const MAX_NAMES: usize = 256;

pub(super) fn help<M: Machine>(task: &Task<M>, args: &Help) -> Result<Outcome, JobError> {
    let mut text = String::new();
    let job = args.job.as_ref().map(|job| job.0.as_str());
    // The inner result is the string's, which takes everything.
    let _ = lang::help(job, &mut text)?;
    task.machine.print(format_args!("{text}"));
    Ok(Outcome::new(format!("{} jobs", SPECS.len())))
}

pub(super) fn disks<M: Machine>(task: &Task<M>) -> Outcome {
    let disks = task.machine.disks();
    for report in &disks {
        print_disk(task, report);
    }
    let list: Vec<Value> = disks.iter().map(|report| disk_json(task, report)).collect();
    let summary = match disks.len() {
        0 => "there are no disks".into(),
        1 => "1 disk".into(),
        count => format!("{count} disks"),
    };
    Outcome::new(summary).with("disks", list)
}

fn print_disk<M: Machine>(task: &Task<M>, report: &DiskReport) {
    let (id, state, features) = (report.id, report.state, &report.features);
    let Some(info) = &report.info else {
        let line = format_args!("  {id}  {state}  {features}\n");
        return task.machine.print(line);
    };
    let access = if info.read_only {
        "read-only"
    } else {
        "read-write"
    };
    let mode = task.machine.mode(id);
    task.machine.print(format_args!(
        "  {id}  {state}  {} ({} sectors), blocks {}/{}, {access}, {}, up to {} per request, \
         depth {}, {mode}; {features}\n",
        Bytes(info.bytes()),
        info.capacity,
        info.logical_block,
        info.physical_block,
        durability(info),
        Bytes(info.max_transfer.into()),
        info.queue_depth,
    ));
}

fn durability(info: &DiskInfo) -> &'static str {
    match info.durability {
        Durability::Flush => "flush",
        Durability::Barrier => "barrier",
        Durability::None => "no flush",
    }
}

fn disk_json<M: Machine>(task: &Task<M>, report: &DiskReport) -> Value {
    let mut disk = json!({
        "disk": report.id.to_string(),
        "state": report.state.to_string(),
        "features": report.features,
    });
    if let (Some(info), Some(map)) = (&report.info, disk.as_object_mut()) {
        let mut set = |key: &str, value: Value| map.insert(key.into(), value);
        set("bytes", info.bytes().into());
        set("logical_block", info.logical_block.into());
        set("physical_block", info.physical_block.into());
        set("read_only", info.read_only.into());
        set("durability", durability(info).into());
        set("discard", info.discard.is_some().into());
        set("max_transfer", info.max_transfer.into());
        set("queue_depth", info.queue_depth.into());
        set("mode", task.machine.mode(report.id).to_string().into());
    }
    disk
}

pub(super) fn set_mode<M: Machine>(task: &Task<M>, args: &SetMode) -> Result<Outcome, JobError> {
    task.report(args.disk)?;
    task.machine.set_mode(args.disk, args.mode);
    let mode = args.mode.to_string();
    let summary = format!("completions of {} are noticed by {mode}", args.disk);
    Ok(Outcome::new(summary).with("mode", mode))
}

pub(super) fn stats<M: Machine>(task: &Task<M>, args: &Stats) -> Result<Outcome, JobError> {
    let disks = match args.disk {
        Some(disk) => [task.report(disk)?].into(),
        None => task.machine.disks(),
    };
    let mut all = Vec::new();
    for report in &disks {
        let mut map = serde_json::Map::new();
        map.insert("disk".into(), report.id.to_string().into());
        task.machine.print(format_args!("  {}\n", report.id));
        for (name, key, value) in counters(&report.stats) {
            task.machine.print(format_args!("    {name:<18} {value}\n"));
            map.insert(key.into(), value.into());
        }
        all.push(Value::Object(map));
    }
    let counters = task.machine.counters();
    let summary = format!(
        "{} hypercalls, {} events, {} allocations since boot",
        counters.hypercalls, counters.events, counters.allocations
    );
    Ok(Outcome::new(summary)
        .with("hypercalls", counters.hypercalls)
        .with("events", counters.events)
        .with("allocations", counters.allocations)
        .with("disks", all))
}

/// A queue's counters, for people and for programs.
fn counters(stats: &firn_block::Stats) -> [(&'static str, &'static str, u64); 11] {
    [
        ("submitted", "submitted", stats.submitted),
        ("completed", "completed", stats.completed),
        ("errors", "errors", stats.errors),
        ("bytes read", "bytes_read", stats.bytes_read),
        ("bytes written", "bytes_written", stats.bytes_written),
        ("ring requests", "ring_requests", stats.ring_requests),
        ("refused: full", "full", stats.full),
        ("notifications", "notifications", stats.notifications),
        ("events", "events", stats.events),
        ("empty events", "empty_events", stats.empty_events),
        (
            "grant operations",
            "grant_operations",
            stats.grant_operations,
        ),
    ]
}

pub(super) fn report<M: Machine>(task: &Task<M>, report: Report) -> Outcome {
    let mut lines = 0u64;
    task.machine.report(report, &mut |line| {
        task.machine.print(format_args!("  {line}\n"));
        lines += 1;
    });
    let summary = match report {
        Report::Grants => format!("{lines} lines about grants"),
        Report::Trace => format!("{lines} events"),
        Report::Memory => format!("{lines} lines about memory"),
    };
    Outcome::new(summary).with("lines", lines)
}

pub(super) async fn store<M: Machine>(task: &Task<M>, args: &Store) -> Result<Outcome, JobError> {
    let path = &args.path.0;
    match args.verb.0.as_str() {
        "ls" => list(task, path).await,
        "read" => {
            let value = value(task, path).await?;
            let value = printable(&value);
            task.machine.print(format_args!("  {path} = \"{value}\"\n"));
            let summary = format!("read {path}");
            Ok(Outcome::new(summary).with("value", value))
        }
        _ => Err(not("verb", "ls or read")),
    }
}

async fn list<M: Machine>(task: &Task<M>, path: &str) -> Result<Outcome, JobError> {
    let ask = StoreAsk::List(path.into());
    let names = task.machine.store(ask).await;
    let names = names.map_err(|why| store_error(path, why))?;
    for name in names.iter().take(MAX_NAMES) {
        let child = match path {
            "." => name.clone(),
            path => format!("{}/{name}", path.trim_end_matches('/')),
        };
        let name = printable(name);
        // A name may vanish between the two questions, or be secret.
        match value(task, &child).await {
            Ok(value) => {
                let value = printable(&value);
                task.machine.print(format_args!("  {name} = \"{value}\"\n"));
            }
            Err(error) => task.machine.print(format_args!("  {name} ({error})\n")),
        }
    }
    if names.len() > MAX_NAMES {
        task.say(format_args!("{} more", names.len() - MAX_NAMES));
    }
    let summary = format!("{} names below {path}", names.len());
    Ok(Outcome::new(summary).with("names", names))
}

async fn value<M: Machine>(task: &Task<M>, path: &str) -> Result<String, JobError> {
    let answer = task.machine.store(StoreAsk::Read(path.into())).await;
    let values = answer.map_err(|why| store_error(path, why))?;
    Ok(values.into_iter().next().unwrap_or_default())
}

fn store_error(path: &str, why: String) -> JobError {
    let path = path.into();
    JobError::Store { path, why }
}

/// What others wrote may hold anything; the console gets no control characters.
fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}
