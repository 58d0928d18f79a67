//! firn's side: its own `bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use firn_boot_tests::JobResult;
use firn_lab::{Guest, GuestSpec, Lab};

use super::{Sample, Workload};

const UP: Duration = Duration::from_secs(60);
const SLACK: Duration = Duration::from_secs(60);

/// firn, with nothing on its console but results.
pub(crate) fn spec(elf: PathBuf, disk: &str, jobs: &str) -> GuestSpec {
    super::spec("firn", elf, disk).with_cmdline(&format!("log=warn -- {jobs}"))
}

/// Boots it until its disk is live.
pub(crate) fn boot(lab: &Lab, elf: PathBuf, disk: &str) -> Result<Guest> {
    let guest = lab.guest(&spec(elf, disk, "wait-disk xvda timeout=30s"))?;
    result(&guest, UP)?;
    Ok(guest)
}

/// Types `bench`, and reads its result. `mode` is `poll` or `event`.
pub(crate) fn measure(guest: &Guest, what: Workload, time: Duration, mode: &str) -> Result<Sample> {
    let Workload { rw, bs, qd, .. } = what;
    let seconds = time.as_secs();
    let line = format!("bench disk=xvda rw={rw} bs={bs} qd={qd} time={seconds}s mode={mode}\n");
    guest.send(line.as_bytes())?;
    read(&result(guest, time + SLACK)?)
}

/// The next job's result; a failure is an error.
pub(crate) fn result(guest: &Guest, deadline: Duration) -> Result<JobResult> {
    let line = guest.wait_for("firn-result ", deadline)?;
    JobResult::parse(&line).context("no result")??.into_ok()
}

fn read(result: &JobResult) -> Result<Sample> {
    let value = |name: &str| {
        let value = result.fields[name].as_f64();
        value.with_context(|| format!("no {name} in the result of bench"))
    };
    Ok(Sample {
        iops: value("iops")?,
        mean_us: value("mean_us")?,
        p50_us: value("p50_us")?,
        p99_us: value("p99_us")?,
        events: value("events_per_io")?,
        notifications: value("notifications_per_io")?,
        hypercalls: Some(value("hypercalls_per_io")?),
        cycles: Some(value("cycles_per_io")?),
    })
}
