//! What the demonstration came to, for people and for programs.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use firn_boot_tests::{Event, JobResult};
use serde::Serialize;

use super::Story;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    labs: Vec<String>,
    /// Records acknowledged before the first freeze, and in all.
    acknowledged_before: u64,
    acknowledged: u64,
    /// Records that must be in the disk's file, and those that are.
    due: u64,
    present: u64,
    lost: u64,
    doubled: u64,
    rounds: Vec<Round>,
    /// The best of all rounds.
    write: Speed,
    read: Speed,
}

/// One freeze and restore.
#[derive(Debug, Serialize)]
struct Round {
    generation: u64,
    memory_hash: String,
    memory_equal: bool,
    image_bytes: u64,
    write_bytes_per_second: f64,
    read_bytes_per_second: f64,
    /// What the host took to map the memory that the image goes through, where it
    /// keeps that mapped: a part of `gap_seconds`, and one of `restore_seconds`.
    map_seconds: [Option<f64>; 2],
    /// From the last completion to the first write of the image.
    gap_seconds: f64,
    /// From entry to the adopted system's first completed read.
    first_read_seconds: Option<f64>,
    /// From the beginning of the freeze to the switching off.
    freeze_seconds: f64,
    /// From entry to jobs that go on.
    restore_seconds: f64,
}

/// How fast images moved at best, beside the best of the same disk in this run.
#[derive(Debug, Serialize)]
struct Speed {
    bytes_per_second: f64,
    raw_bytes_per_second: f64,
    ratio: f64,
}

impl Round {
    fn new(round: &super::Round) -> Result<Self> {
        let frozen = &round.frozen;
        let restored = round.restored.as_ref().context("it was not restored")?;
        let hash = |event: &Event| event.text("memory_hash").map(str::to_owned);
        let memory_hash = hash(frozen).context("no memory hash before")?;
        let of = |event: &Event, name: &str| {
            let missing = || format!("no {name} in {}", event.fields);
            event.number(name).with_context(missing)
        };
        let first_read = round.first_read.as_ref();
        Ok(Self {
            generation: of(restored, "generation")? as u64,
            memory_equal: hash(restored).as_ref() == Some(&memory_hash),
            memory_hash,
            image_bytes: of(frozen, "bytes")? as u64,
            write_bytes_per_second: of(frozen, "write_bytes_per_second")?,
            read_bytes_per_second: of(restored, "load_bytes_per_second")?,
            map_seconds: [frozen, restored].map(|event| event.number("map_seconds")),
            gap_seconds: of(frozen, "gap_seconds")?,
            first_read_seconds: first_read.and_then(|e| e.number("first_read_seconds")),
            freeze_seconds: of(frozen, "seconds")?,
            restore_seconds: of(restored, "up")?,
        })
    }
}

impl Report {
    pub(super) fn new(story: &Story) -> Result<Self> {
        let rounds = story.rounds.iter().map(Round::new);
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        let tallies = story.tallies.first().zip(story.tallies.last());
        let (before, after) = tallies.context("nothing was counted")?;
        let speed = |of: fn(&Round) -> f64, rw| {
            let speeds = rounds.iter().map(of);
            let best = speeds.max_by(f64::total_cmp).context("nothing was moved")?;
            anyhow::Ok(Speed::new(best, raw(&story.results, rw)?))
        };
        Ok(Self {
            labs: story.labs.clone(),
            acknowledged_before: before.acknowledged,
            acknowledged: after.acknowledged,
            due: after.due,
            present: after.present,
            lost: after.lost,
            doubled: after.doubled,
            write: speed(|round| round.write_bytes_per_second, "write")?,
            read: speed(|round| round.read_bytes_per_second, "read")?,
            rounds,
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
        match self.rounds.iter().find(|round| !round.memory_equal) {
            Some(Round { generation, .. }) => {
                bail!("image {generation}: the memory is not what it was")
            }
            None => Ok(()),
        }
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

const fn mib(bytes: f64) -> f64 {
    bytes / (1 << 20) as f64
}

fn ms(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} MiB/s, {:.0} % of the disk's own {:.0} MiB/s",
            mib(self.bytes_per_second),
            100.0 * self.ratio,
            mib(self.raw_bytes_per_second)
        )
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "host: image {}: {:.1} MiB written at {:.0} MiB/s, read at {:.0} MiB/s; \
             memory {} before and after, hash {}",
            self.generation,
            mib(self.image_bytes as f64),
            mib(self.write_bytes_per_second),
            mib(self.read_bytes_per_second),
            if self.memory_equal {
                "equal"
            } else {
                "NOT equal"
            },
            self.memory_hash
        )?;
        let first = self.first_read_seconds.map_or("not told".into(), ms);
        let mapping = self.map_seconds.map(|seconds| {
            let told = |seconds| format!(" ({} of it for the host to map memory)", ms(seconds));
            seconds.map(told).unwrap_or_default()
        });
        writeln!(
            f,
            "host:   last completion to first image write {}{}, the whole freeze {}; \
             entry to jobs that go on {}{}, to their first completed read {first}",
            ms(self.gap_seconds),
            mapping[0],
            ms(self.freeze_seconds),
            ms(self.restore_seconds),
            mapping[1],
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.acknowledged - self.acknowledged_before;
        writeln!(
            f,
            "host: records: {} acknowledged before the first freeze, {after} after; \
             {} of {} are in the disk's file, {} lost, {} doubled",
            self.acknowledged_before, self.present, self.due, self.lost, self.doubled
        )?;
        self.rounds.iter().try_for_each(|round| round.fmt(f))?;
        writeln!(
            f,
            "host: best of {}: written at {}",
            self.rounds.len(),
            self.write
        )?;
        writeln!(
            f,
            "host: best of {}: read at    {}",
            self.rounds.len(),
            self.read
        )
    }
}
