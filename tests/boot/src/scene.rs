//! A scenario: guests that are talked to through their shell, and at the end
//! the question whether dom0 or Xen had to complain.

use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use firn_lab::{Exit, Guest, GuestDisk, GuestSpec, Host, LogMark};
use serde_json::Value;

use crate::bench::{Bench, Lent};
use crate::results::JobResult;
use crate::verify;

/// From creation to the first result, on a machine that is busy.
const UP: Duration = Duration::from_secs(60);
/// For a job that moves some MiB.
const JOB: Duration = Duration::from_secs(90);

/// What a guest is told of its host where nothing depends on its deadlines: that one
/// shares two processors with all guests and whatever else runs, and may be late.
pub const PATIENT: &str = "deadline=20 freeze.deadline=30s";

/// Held for writing by a scenario that changes what all guests depend on.
static TURN: RwLock<()> = RwLock::new(());

/// One scenario in the shared lab.
pub struct Scene {
    /// The lab and its disks.
    pub bench: &'static Bench,
    mark: LogMark,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl Scene {
    /// Begins a scenario.
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn new(host: Host) -> Result<Self> {
        let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
        Self::with(host, Some(turn), None)
    }

    /// Begins a scenario while no other runs.
    ///
    /// # Errors
    /// The lab does not come up.
    pub fn alone(host: Host) -> Result<Self> {
        let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
        Self::with(host, None, Some(turn))
    }

    fn with(
        host: Host,
        shared: Option<RwLockReadGuard<'static, ()>>,
        alone: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Result<Self> {
        let bench = Bench::shared(host)?;
        let mark = bench.lab.mark_logs()?;
        Ok(Self {
            bench,
            mark,
            _shared: shared,
            _alone: alone,
        })
    }

    /// Boots firn with these disks and options, and waits until the first of
    /// them is live and the shell answers.
    ///
    /// # Errors
    /// It does not get there.
    pub fn boot(&self, options: &str, disks: &[GuestDisk]) -> Result<Live> {
        let mut jobs = vec!["mem".to_owned()];
        jobs.extend(
            disks
                .iter()
                .map(|d| format!("wait-disk {} timeout=30s", d.vdev)),
        );
        let live = self.start(options, &jobs.join("; "), disks)?;
        for _ in &jobs {
            live.result(UP)?.into_ok()?;
        }
        Ok(live)
    }

    /// Two emptied disks, and how a guest gets them: as `xvda` and `xvdb`.
    ///
    /// # Errors
    /// All are lent.
    pub fn two_disks(&self) -> Result<([Lent<'static>; 2], [GuestDisk; 2])> {
        let lent = [self.bench.disk(512)?, self.bench.disk(512)?];
        let disks = [(0, "xvda"), (1, "xvdb")];
        let disks = disks.map(|(at, vdev)| GuestDisk::new(lent[at].name(), vdev));
        Ok((lent, disks))
    }

    /// Starts firn with these jobs, and waits for nothing.
    ///
    /// # Errors
    /// The tool stack refuses.
    pub fn start(&self, options: &str, jobs: &str, disks: &[GuestDisk]) -> Result<Live> {
        let mut spec = GuestSpec::new("firn", Bench::elf())
            .with_cmdline(format!("log=debug {PATIENT} {options} -- {jobs}").trim_end());
        spec.disks = disks.to_vec();
        self.start_spec(&spec)
    }

    /// Starts any guest.
    ///
    /// # Errors
    /// The tool stack refuses.
    pub fn start_spec(&self, spec: &GuestSpec) -> Result<Live> {
        let guest = self.bench.lab.guest(spec)?;
        Ok(Live { guest })
    }

    /// Ends the scenario: nobody had to complain.
    ///
    /// # Errors
    /// Somebody did; the message shows what was said.
    pub fn finish(self) -> Result<()> {
        let complaints = self.bench.lab.complaints_since(&self.mark)?;
        ensure!(
            complaints.is_empty(),
            "there were complaints:\n{}",
            complaints.join("\n")
        );
        Ok(())
    }
}

/// A guest with a shell.
pub struct Live {
    /// The guest.
    pub guest: Guest,
}

impl Live {
    /// Types a job and waits for its result, good or bad.
    ///
    /// # Errors
    /// There is none in time.
    pub fn job(&self, line: &str) -> Result<JobResult> {
        self.begin(line)?;
        self.result(JOB).with_context(|| format!("of `{line}`"))
    }

    /// Types a job that must succeed.
    ///
    /// # Errors
    /// It fails, or has no result in time.
    pub fn done(&self, line: &str) -> Result<JobResult> {
        self.job(line)?.into_ok()
    }

    /// Types a job that must fail with the error called `name`; gives the
    /// whole result.
    ///
    /// # Errors
    /// It succeeds, or fails otherwise.
    pub fn refused(&self, line: &str, name: &str) -> Result<JobResult> {
        let result = self.job(line)?;
        if result.ok || result.text("error") != Some(name) {
            bail!("`{line}` should have failed as {name}: {}", result.fields);
        }
        Ok(result)
    }

    /// Types a job.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn begin(&self, line: &str) -> Result<()> {
        self.guest.send(format!("{line}\n").as_bytes())
    }

    /// The next job's result.
    ///
    /// # Errors
    /// There is none in time; the message shows the end of the console.
    pub fn result(&self, deadline: Duration) -> Result<JobResult> {
        let line = self.guest.wait_for("firn-result ", deadline)?;
        JobResult::parse(&line).context("no result")?
    }

    /// Verifies through the guest, then looks at the disk's file from here.
    ///
    /// # Errors
    /// Either finds something wrong.
    pub fn verify(&self, line: &str, file: &Path) -> Result<()> {
        self.done(line)?;
        check_file(line, file)
    }

    /// What the guest tells about one of its disks.
    ///
    /// # Errors
    /// It has no such disk.
    pub fn disk(&self, name: &str) -> Result<Value> {
        let result = self.done("disks")?;
        let disks = result.fields["disks"].as_array().cloned();
        let named = |disk: &Value| disk["disk"] == name;
        let disk = disks.unwrap_or_default().into_iter().find(named);
        disk.with_context(|| format!("no {name} in {}", result.fields))
    }

    /// Checks what was negotiated for a disk: `words` as `disks` shows them,
    /// and whether the backend keeps grants mapped.
    ///
    /// # Errors
    /// Something else was.
    pub fn check_features(&self, disk: &str, words: &str, persistent: bool) -> Result<()> {
        let told = self.disk(disk)?;
        let features = told["features"].as_str().unwrap_or_default();
        ensure!(features.contains(words), "not {words} but {features}");
        let is_persistent = features.contains("feature-persistent");
        ensure!(is_persistent == persistent, "{features}");
        Ok(())
    }

    /// Verifies with requests below a page, of many pages, and larger than any
    /// single one on the ring.
    ///
    /// # Errors
    /// As [`Live::verify`].
    pub fn verify_all_sizes(&self, disk: &str, file: &Path) -> Result<()> {
        for words in [
            "size=256k bs=512 qd=64 seed=1",
            "at=2M size=8M bs=44k qd=32 seed=2",
            "at=16M size=24M bs=3M qd=4 seed=3",
        ] {
            self.verify(&format!("verify disk={disk} {words}"), file)?;
        }
        Ok(())
    }

    /// Switches it off and sees that its host took it as that.
    ///
    /// # Errors
    /// It does not end, or otherwise.
    pub fn off(self) -> Result<()> {
        self.done("poweroff")?;
        let exit = self.guest.wait_exit(Duration::from_secs(30))?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
        Ok(())
    }
}

/// Checks a disk's file against the job line that must have written it.
///
/// # Errors
/// The first wrong sector.
pub fn check_file(line: &str, file: &Path) -> Result<()> {
    for job in verify::lasting(&verify::parse(line)?) {
        verify::check_disk_file(file, job)?;
    }
    Ok(())
}
