//! A guest that runs its job line by itself: its console, its results.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use firn_lab::{BrokenGuest, Exit, Guest, Lab, by_line, tail};

use crate::bench::Bench;
use crate::disks;
use crate::results::JobResult;

/// The guest says so between writing and reading back, and waits for `go`.
const HELD: &str = "verify: written";

/// A guest that runs a job line by itself, and what it has told so far.
pub struct Watched<'a> {
    lab: &'a Lab,
    guest: Guest,
    results: Arc<Mutex<Vec<Result<JobResult>>>>,
}

impl<'a> Watched<'a> {
    /// Shows the guest's console line by line and collects its results.
    #[must_use]
    pub fn new(lab: &'a Lab, guest: Guest) -> Self {
        let results = Arc::<Mutex<Vec<_>>>::default();
        let sink = Arc::clone(&results);
        guest.stream_to(by_line(move |line| {
            println!("{line}");
            if let Some(result) = JobResult::parse(line) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(result);
            }
        }));
        Self {
            lab,
            guest,
            results,
        }
    }

    /// When the guest has written and waits: flips a byte of the disk file,
    /// then lets the guest go on.
    ///
    /// # Errors
    /// The guest does not get that far, or the file is too short.
    pub fn flip(&self, file: &Path, offset: u64, deadline: Duration) -> Result<()> {
        self.guest.wait_for(HELD, deadline)?;
        disks::flip_byte(file, offset)?;
        println!(
            "host: flipped byte {offset} (sector {}) of {}",
            offset / 512,
            file.display()
        );
        self.guest.send(b"go\n")
    }

    /// Waits for the guest's end; gives the results of its jobs.
    ///
    /// # Errors
    /// It goes on, crashes, was broken by the emulator, or ends without a result; the message shows what
    /// it said last.
    pub fn finish(self, deadline: Duration) -> Result<Vec<JobResult>> {
        let exit = self
            .guest
            .wait_exit(deadline)
            .map_err(|error| anyhow!("{error:#}{}", self.early()))?;
        if self.lab.broke(&self.guest, &Bench::elf()) {
            return Err(anyhow!(BrokenGuest).context("try again"));
        }
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let results: Vec<_> = results.drain(..).collect::<Result<_>>()?;
        match exit {
            Exit::PowerOff | Exit::Reboot => {}
            Exit::Crash => bail!("the guest crashed{}", self.early()),
            Exit::Other(how) => bail!("the guest ended oddly ({how}){}", self.early()),
        }
        if results.is_empty() {
            bail!("the guest ended without any result{}", self.early());
        }
        Ok(results)
    }

    /// What the guest said on port 0xE9 (before its console was up, and in a
    /// crash); Xen's own log holds it.
    fn early(&self) -> String {
        let log = self.lab.xen_log();
        let lines: Vec<_> = log.lines().collect();
        let text = match self.guest.domain() {
            Some(domain) => {
                let mark = format!("(d{domain}) ");
                let own: Vec<_> = lines
                    .iter()
                    .filter(|l| l.contains(&mark))
                    .copied()
                    .collect();
                own.join("\n")
            }
            None => log,
        };
        format!("\n--- its early output ended with:\n{}", tail(&text, 30))
    }
}

/// Turns the results of all jobs into one.
///
/// # Errors
/// At least one failed; the message describes each.
pub fn judge(results: &[JobResult]) -> Result<()> {
    let failed: Vec<_> = results
        .iter()
        .filter(|r| !r.ok)
        .map(JobResult::describe)
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} jobs failed:\n  {}",
            failed.len(),
            results.len(),
            failed.join("\n  ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(line: &str) -> JobResult {
        JobResult::parse(&format!("firn-result {line}"))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn one_failed_job_fails_the_run_and_is_described() {
        let good = result(r#"{"job":"disks","ok":true}"#);
        assert!(judge(std::slice::from_ref(&good)).is_ok());
        let bad = result(r#"{"job":"verify","ok":false,"error":"corrupt","where":"sector 9"}"#);
        let error = judge(&[good, bad]).unwrap_err().to_string();
        assert!(error.contains("1 of 2 jobs"), "{error}");
        assert!(
            error.contains("verify; error: corrupt; where: sector 9"),
            "{error}"
        );
    }
}
