//! A guest that was frozen in the middle of its work, and what becomes of it on
//! the machines that are offered to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::campaign::image_state;
use firn_boot_tests::ledger::{self, LedgerAt};
use firn_boot_tests::{Bench, Event, Lent, Live, PATIENT, Scene};
use firn_image::State;
use firn_lab::{Cache, Exit, GuestDisk, GuestSpec, RunFolder};

pub(super) const SOON: Duration = Duration::from_secs(90);
const LEDGER: &str = "ledger disk=xvda size=8M qd=16 rate=500";

/// A frozen guest: two disks, and what its consoles said.
pub(super) struct Frozen {
    bench: &'static Bench,
    pub(super) data: Lent<'static>,
    pub(super) image: Lent<'static>,
    console: String,
}

impl Frozen {
    /// Freezes a guest in the middle of a ledger.
    pub(super) fn new(scene: &Scene, options: &str) -> Result<Self> {
        Self::within(scene, options, None)
    }

    /// The same on disks that are only so many bytes large, and larger in
    /// [`Frozen::spec`].
    pub(super) fn within(scene: &Scene, options: &str, bytes: Option<u64>) -> Result<Self> {
        let mut frozen = Self {
            bench: scene.bench,
            data: scene.bench.disk(512)?,
            image: scene.bench.disk(512)?,
            console: String::new(),
        };
        let mut spec = frozen.spec(options, &jobs());
        let parts = bytes.map(|bytes| {
            let part = |disk: &Lent<'_>| scene.bench.lab.part(disk.name(), bytes);
            anyhow::Ok([part(&frozen.data)?, part(&frozen.image)?])
        });
        let parts = parts.transpose()?;
        for (part, disk) in parts.iter().flatten().zip(&mut spec.disks) {
            disk.source = part.device().into();
        }
        frozen.freeze(&spec)?;
        Ok(frozen)
    }

    /// Boots a machine that freezes.
    fn freeze(&mut self, spec: &GuestSpec) -> Result<()> {
        let live = self.boot(spec)?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
        let console = live.guest.console().text();
        let event = Event::last(&console, "frozen");
        ensure!(event.is_some(), "{console}");
        self.console.push_str(&console);
        Ok(())
    }

    /// Gives the image up, and freezes the same work once more.
    pub(super) fn freeze_again(&mut self) -> Result<()> {
        let spec = self.spec("image=none on-refusal=cold", &jobs());
        self.freeze(&spec)
    }

    pub(super) fn spec(&self, options: &str, jobs: &str) -> GuestSpec {
        GuestSpec::new("firn", Bench::elf())
            .with_memory(256)
            .with_cmdline(&format!("log=info {PATIENT} {options} -- {jobs}"))
            .with_disk(GuestDisk::new(self.data.name(), "xvda"))
            .with_disk(GuestDisk::new(self.image.name(), "xvdb"))
    }

    pub(super) fn boot(&self, spec: &GuestSpec) -> Result<Live> {
        let guest = self.bench.lab.guest(spec)?;
        Ok(Live { guest })
    }

    /// Copies of both disks.
    pub(super) fn copies(&self) -> Result<Copies> {
        Copies::of(&[self.data.file(), self.image.file()])
    }

    /// Boots a machine that must refuse the image as `why`, in words that
    /// contain `says`; not one byte of a disk may change.
    pub(super) fn refused(&self, spec: &GuestSpec, why: &str, says: &str) -> Result<()> {
        let before = self.copies()?;
        let live = self.boot(spec)?;
        let line = live.guest.wait_for("\"event\":\"refused\"", SOON)?;
        let event = Event::parse(&line).context("no event")?;
        ensure!(event.text("why") == Some(why), "not {why}: {line}");
        let what = event.text("what").unwrap_or_default();
        ensure!(what.contains(says), "not {says:?}: {line}");
        let hint = event.text("hint").unwrap_or_default();
        ensure!(!hint.is_empty(), "{line}");
        // The shell is there, and no job of the command line has run.
        live.off()?;
        before.are_untouched().with_context(|| line)
    }

    /// Boots a machine that must go on, and counts; gives its console.
    pub(super) fn restored(&self, spec: &GuestSpec) -> Result<String> {
        self.goes_on(&self.boot(spec)?)
    }

    /// The same, whose backends have no indirect descriptors: they do not say
    /// so any more when the guest begins to look.
    pub(super) fn restored_without_indirect(&self, spec: &GuestSpec) -> Result<String> {
        let live = self.boot(&spec.clone().paused())?;
        let domain = live.guest.domain().context("a guest of Xen")?;
        let key = "feature-max-indirect-segments";
        for vdev in [51712, 51728] {
            let folder = format!("/local/domain/0/backend/vbd/{domain}/{vdev}");
            let remove = format!("xenstore-rm {folder}/{key}");
            self.bench.lab.run(&remove)?;
        }
        live.guest.unpause()?;
        self.goes_on(&live)
    }

    fn goes_on(&self, live: &Live) -> Result<String> {
        live.guest.wait_for("\"event\":\"restored\"", SOON)?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
        let console = live.guest.console().text();
        let both = format!("{}\n{console}", self.console);
        let hashes = ["frozen", "restored"].map(|name| {
            let event = Event::last(&both, name)?;
            event.text("memory_hash").map(str::to_owned)
        });
        ensure!(hashes[0].is_some() && hashes[0] == hashes[1], "{hashes:?}");
        let at = LedgerAt::of(LEDGER)?;
        ensure!(at.acked(&both) > at.acked(&self.console), "{console}");
        ledger::judge(&at.tally(self.data.file(), &both)?)?;
        ensure!(self.state()? == Some(State::Consumed), "not used up");
        Ok(console)
    }

    pub(super) fn state(&self) -> Result<Option<State>> {
        Ok(image_state(self.image.file())?.map(|(_, state)| state))
    }
}

/// What a guest does before and after its freeze.
fn jobs() -> String {
    format!(
        "fill size=8M; {LEDGER} &; sleep time=1s; freeze image=xvdb audit; fill-check; disks; sleep time=2s; stop; poweroff"
    )
}

/// Copies of disk files, to be compared with later, or put back.
pub(super) struct Copies {
    pairs: Vec<(PathBuf, PathBuf)>,
    _folder: RunFolder,
}

impl Copies {
    pub(super) fn of(files: &[&Path]) -> Result<Self> {
        let folder = Cache::open()?.run_folder()?;
        let mut pairs = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let copy = folder.path(&number.to_string());
            clone(file, &copy)?;
            pairs.push((file.to_path_buf(), copy));
        }
        Ok(Self {
            pairs,
            _folder: folder,
        })
    }

    /// Compares every byte.
    pub(super) fn are_untouched(&self) -> Result<()> {
        for (file, copy) in &self.pairs {
            let status = Command::new("cmp").args([file, copy]).status()?;
            ensure!(status.success(), "{} has changed", file.display());
        }
        Ok(())
    }

    /// The copy of a file.
    pub(super) fn get(&self, file: &Path) -> Result<&Path> {
        let pair = self.pairs.iter().find(|(original, _)| original == file);
        let (_, copy) = pair.context("it was not copied")?;
        Ok(copy)
    }

    /// As if nothing had happened since. No guest may have the disks.
    pub(super) fn put_back(&self) -> Result<()> {
        self.pairs
            .iter()
            .try_for_each(|(file, copy)| clone(copy, file))
    }
}

/// Copies into the file that is there, if there is one: the lab has it open.
fn clone(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    let status = command.arg("--sparse=always").args([from, to]).status()?;
    ensure!(status.success(), "no copy of {}", from.display());
    Ok(())
}
