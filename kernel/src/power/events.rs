//! What freeze and restore tell: a line for people, and one for programs.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use firn_block::{DiskId, PAGE};
use firn_image::Generation;
use firn_power::{OnRefusal, Report, Restored, Step, Trouble};
use firn_task::{Instant, Time};
use serde_json::{Map, Value, json};

use super::host::KernelHost;
use crate::{mm, println};

/// What the line for programs begins with.
const EVENT: &str = "firn-event";

/// Prints both lines.
fn tell(event: &str, line: &str, fields: Value) {
    println!("{event}: {line}");
    let mut all = Map::new();
    all.insert("event".into(), event.into());
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    println!("{EVENT} {}", Value::Object(all));
}

/// A hash as it is printed.
pub(super) fn digits(hash: u64) -> String {
    format!("{hash:016x}")
}

fn seconds(time: Option<Duration>) -> Value {
    time.map_or(Value::Null, |time| time.as_secs_f64().into())
}

/// Bytes per second.
fn rate(bytes: u64, time: Option<Duration>) -> Value {
    let seconds = time.unwrap_or_default().as_secs_f64();
    if seconds > 0.0 {
        (bytes as f64 / seconds).into()
    } else {
        Value::Null
    }
}

/// The guest's RAM in bytes, and how many per cent of it `bytes` are: as a number,
/// and in words with one place.
pub(super) fn part_of_ram(bytes: u64) -> (u64, f64, String) {
    let ram = mm::report().map_or(0, |report| report.usable);
    let (part, whole) = (u128::from(bytes), u128::from(ram.max(1)));
    let tenths = (part * 1000 + whole / 2) / whole;
    let percent = bytes as f64 * 100.0 / ram.max(1) as f64;
    (ram, percent, format!("{}.{}", tenths / 10, tenths % 10))
}

/// An image is valid, and the machine is about to switch off.
pub(super) fn frozen(host: &KernelHost, report: &Report) {
    let written = &report.written;
    let (marks, now) = (&host.state().marks, host.now());
    let write = marks.between(Step::WriteChunks, Step::WriteTable);
    let hash = host.main_loop.jobs().audit_wanted.get();
    let hash = hash.then(|| digits(host.memory_hash().hash));
    let saved = written.pages * PAGE as u64;
    let (ram, part, percent) = part_of_ram(saved);
    let line = format!(
        "image {} on {}: {} MiB of memory, {percent} % of RAM, in {} MiB",
        report.generation.0,
        report.image,
        saved >> 20,
        written.bytes >> 20,
    );
    let audit = host.state().audit.borrow();
    let whole = marks.first(Step::Check).map(|start| now.since(start));
    let fields = json!({
        "disk": host.job_name(report.image),
        "generation": report.generation.0,
        "pages": written.pages,
        "saved_bytes": saved,
        "ram_bytes": ram,
        "saved_percent": part,
        "zero_pages": written.zero,
        "free_pages": written.free,
        "bytes": written.bytes,
        "map_seconds": seconds(marks.map(Step::WriteChunks)),
        "write_seconds": seconds(write),
        "write_bytes_per_second": rate(written.bytes, write),
        "gap_seconds": seconds(marks.between(Step::Flush, Step::WriteChunks)),
        "seconds": seconds(whole),
        "memory_hash": hash,
        "audited_words": audit.as_ref().map(|audit| audit.words),
        "stale_words": audit.as_ref().map(|audit| audit.count),
    });
    tell("frozen", &line, fields);
}

/// Jobs of an image go on.
pub(super) fn restored(host: &KernelHost, restored: &Restored) {
    let marks = &host.state().marks;
    let load = marks.load();
    let ready = host.now().since(Instant::default());
    let hash = host.state().adopted_hash.get().map(digits);
    let line = format!(
        "image {} from {}: {} MiB read; its jobs go on, those of the command line do not run",
        restored.generation.0,
        restored.image,
        restored.loaded.bytes >> 20,
    );
    let disks: Map<String, Value> = restored
        .disks
        .iter()
        .map(|disk| {
            (
                format!("{}", disk.saved),
                format!("{}", disk.present).into(),
            )
        })
        .collect();
    let fields = json!({
        "disk": host.job_name(restored.image),
        "generation": restored.generation.0,
        "pages": restored.loaded.pages,
        "bytes": restored.loaded.bytes,
        "map_seconds": seconds(marks.map(Step::Load)),
        "load_seconds": seconds(load),
        "load_bytes_per_second": rate(restored.loaded.bytes, load),
        "up": ready.as_secs_f64(),
        "disks": disks,
        "memory_hash": hash,
    });
    let consumed = json!({ "generation": restored.generation.0 });
    tell("consumed", "the image is used up", consumed);
    tell("restored", &line, fields);
    for trouble in &restored.left {
        log::warn!("after the restore: {trouble}");
    }
}

/// A job of the image has read something for the first time in this boot.
pub(crate) fn first_read(now: Instant) {
    let since = now.since(Instant::default());
    let line = format!("{} ms after the entry", since.as_millis());
    let fields = json!({ "first_read_seconds": since.as_secs_f64() });
    tell("first-read", &line, fields);
}

/// An image does not fit, or cannot be given up; `then` is what follows from
/// that.
pub(super) fn refused(host: &KernelHost, trouble: &Trouble, then: OnRefusal) {
    let (what, hint) = (format!("{}", trouble.fault), trouble.fault.hint());
    // Up to here a boot only reads.
    let unchanged = match trouble.step {
        Step::Consume | Step::Retire | Step::Abandon => "",
        _ => "Nothing was changed. ",
    };
    let (then, means) = match then {
        OnRefusal::Shell => (
            "shell",
            "No disk can be written: reboot to try again, or `cold` to go on without the image",
        ),
        OnRefusal::Cold => ("cold", "on-refusal=cold: it is given up"),
    };
    let line = format!("{what}; {hint}. {unchanged}{means}");
    let disk = trouble.disk.map(|disk| host.job_name(disk));
    let fields = json!({
        "why": trouble.fault.word(),
        "what": what,
        "hint": hint,
        "step": trouble.step.name(),
        "disk": disk,
        "then": then,
    });
    tell("refused", &line, fields);
}

/// An image was refused, and the machine begins as if there had been none.
pub(super) fn cold(abandoned: usize) {
    let line = "goes on cold: the jobs of the command line run";
    tell("cold", line, json!({ "abandoned": abandoned }));
}

/// The machine is on another host now.
pub(super) fn resumed(times: u32) {
    let line = format!("on a new host, for the {times}. time");
    tell("resumed", &line, json!({ "resumes": times }));
}

/// Images were given up.
pub(super) fn abandoned(host: &KernelHost, gone: &[(DiskId, Generation)]) {
    for (disk, generation) in gone {
        let line = format!("image {} on {disk} is given up", generation.0);
        let fields = json!({ "disk": host.job_name(*disk), "generation": generation.0 });
        tell("abandoned", &line, fields);
    }
}
