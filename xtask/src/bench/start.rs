//! From power-on to the first completed read, firn beside Linux.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use firn_lab::{Guest, GuestSpec, Lab};
use serde::Serialize;

use super::firn;

const UP: Duration = Duration::from_secs(240);

/// One start of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Start {
    /// Seconds from the guest's entry to its first completed read, by its own
    /// clock.
    pub(crate) inside: f64,
    /// Seconds from `xl unpause` to the line about that read on the console.
    pub(crate) outside: f64,
}

/// Starts Linux, whose init reads first thing.
pub(crate) fn linux(lab: &Lab, spec: GuestSpec) -> Result<Start> {
    timed(lab, spec, "GUEST: first read after ", |line| {
        let (_, rest) = line.split_once("after ")?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

/// Starts firn, whose only job is to read.
pub(crate) fn firn(lab: &Lab, elf: std::path::PathBuf, disk: &str) -> Result<Start> {
    let spec = firn::spec(elf, disk, "wait-disk xvda; read xvda size=4k; poweroff");
    timed(lab, spec, "firn-result {\"job\":\"read\"", |line| {
        let result = firn_boot_tests::JobResult::parse(line)?.ok()?;
        result.fields["up"].as_f64()
    })
}

fn timed(
    lab: &Lab,
    spec: GuestSpec,
    mark: &str,
    inside: impl Fn(&str) -> Option<f64>,
) -> Result<Start> {
    let guest: Guest = lab.guest(&spec.paused())?;
    let start = Instant::now();
    guest.unpause()?;
    let line = guest.wait_for(mark, UP)?;
    let outside = start.elapsed().as_secs_f64();
    let inside = inside(&line).with_context(|| format!("no time in {line:?}"))?;
    Ok(Start { inside, outside })
}
