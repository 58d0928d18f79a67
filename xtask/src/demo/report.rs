//! What the demonstration came to, for people and for programs.

use std::fmt;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::ledger::Tally;
use firn_boot_tests::{Event, JobResult};

use serde::Serialize;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    lab: String,
    /// Records acknowledged before the freeze, and in all.
    acknowledged_before: u64,
    acknowledged: u64,
    /// Records that must be in the disk's file, and those that are.
    due: u64,
    present: u64,
    lost: u64,
    doubled: u64,
    memory_hash: String,
    memory_equal: bool,
    generation: u64,
    image_bytes: u64,
    write: Speed,
    read: Speed,
    /// From the last completion to the first write of the image.
    gap_seconds: f64,
    /// From entry to the adopted system's first completed read.
    first_read_seconds: Option<f64>,
    /// From the beginning of the freeze to the switching off.
    freeze_seconds: f64,
    /// From entry to jobs that go on.
    restore_seconds: f64,
}

/// How fast the image moved, beside the same disk's own speed in this run.
#[derive(Debug, Serialize)]
struct Speed {
    bytes_per_second: f64,
    raw_bytes_per_second: f64,
    ratio: f64,
}

impl Report {
    pub(crate) fn new(
        lab: String,
        results: &[JobResult],
        (frozen, restored, first_read): (&Event, &Event, Option<&Event>),
        (before, after): (&Tally, &Tally),
    ) -> Result<Self> {
        let hash = |event: &Event| event.text("memory_hash").map(str::to_owned);
        let memory_hash = hash(frozen).context("no memory hash before")?;
        let of = |event: &Event, name: &str| {
            let missing = || format!("no {name} in {}", event.fields);
            event.number(name).with_context(missing)
        };
        Ok(Self {
            lab,
            acknowledged_before: before.acknowledged,
            acknowledged: after.acknowledged,
            due: after.due,
            present: after.present,
            lost: after.lost,
            doubled: after.doubled,
            memory_equal: hash(restored).as_ref() == Some(&memory_hash),
            memory_hash,
            generation: of(restored, "generation")? as u64,
            image_bytes: of(frozen, "bytes")? as u64,
            write: Speed::new(
                of(frozen, "write_bytes_per_second")?,
                raw(results, "write")?,
            ),
            read: Speed::new(
                of(restored, "load_bytes_per_second")?,
                raw(results, "read")?,
            ),
            gap_seconds: of(frozen, "gap_seconds")?,
            first_read_seconds: first_read.and_then(|e| e.number("first_read_seconds")),
            freeze_seconds: of(frozen, "seconds")?,
            restore_seconds: of(restored, "up")?,
        })
    }

    /// Turns it into a verdict. Speeds are for people to judge.
    ///
    /// # Errors
    /// A record is lost or doubled, the ledger did not go on, or the memory
    /// is another.
    pub(crate) fn judge(&self) -> Result<()> {
        ensure!(
            self.lost == 0,
            "{} acknowledged records are lost",
            self.lost
        );
        ensure!(self.doubled == 0, "{} records are doubled", self.doubled);
        ensure!(
            self.acknowledged > self.acknowledged_before,
            "the ledger did not go on after the restore"
        );
        ensure!(self.memory_equal, "the memory is not what it was");
        Ok(())
    }
}

impl Speed {
    fn new(bytes_per_second: f64, raw_bytes_per_second: f64) -> Self {
        Self {
            bytes_per_second,
            raw_bytes_per_second,
            ratio: bytes_per_second / raw_bytes_per_second,
        }
    }
}

/// The image disk's own speed: the best that the guest's bench measured.
fn raw(results: &[JobResult], rw: &str) -> Result<f64> {
    let is_it = |result: &&JobResult| result.job == "bench" && result.text("rw") == Some(rw);
    let benches = results.iter().filter(is_it);
    let speeds = benches.filter_map(|bench| bench.fields["bytes_per_second"].as_f64());
    speeds
        .max_by(f64::total_cmp)
        .with_context(|| format!("no measurement of {rw}"))
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |speed: f64| speed / f64::from(1 << 20);
        write!(
            f,
            "{:.0} MiB/s, {:.0} % of the disk's own {:.0} MiB/s",
            mib(self.bytes_per_second),
            100.0 * self.ratio,
            mib(self.raw_bytes_per_second)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
        let after = self.acknowledged - self.acknowledged_before;
        writeln!(
            f,
            "host: records: {} acknowledged before the freeze, {after} after the restore; \
             {} of {} are in the disk's file, {} lost, {} doubled",
            self.acknowledged_before, self.present, self.due, self.lost, self.doubled
        )?;
        let equal = if self.memory_equal {
            "equal"
        } else {
            "NOT equal"
        };
        writeln!(
            f,
            "host: memory: {equal} before and after, hash {}",
            self.memory_hash
        )?;
        let mib = self.image_bytes as f64 / f64::from(1 << 20);
        writeln!(f, "host: image {}: {mib:.1} MiB", self.generation)?;
        writeln!(f, "host:   written at {}", self.write)?;
        writeln!(f, "host:   read at    {}", self.read)?;
        writeln!(
            f,
            "host: last completion to first image write {}; the whole freeze {}",
            ms(self.gap_seconds),
            ms(self.freeze_seconds)
        )?;
        let first = self.first_read_seconds.map_or("not told".into(), ms);
        writeln!(
            f,
            "host: entry to jobs that go on {}; to their first completed read {first}",
            ms(self.restore_seconds)
        )
    }
}
