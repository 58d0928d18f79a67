//! An image meets a machine that is not what it was: where it fits, it goes
//! on; where it does not, it is refused by name and nothing is touched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::campaign::image_state;
use firn_boot_tests::ledger::{self, LedgerAt};
use firn_boot_tests::{Bench, Event, Lent, Live, Scene, disks};
use firn_image::State;
use firn_lab::{Cache, Exit, GuestDisk, GuestSpec, Host, RunFolder};

const SOON: Duration = Duration::from_secs(90);
const LEDGER: &str = "ledger disk=xvda size=8M qd=16 rate=500";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Bytes of both header slots.
const SLOTS: u32 = 8192;

/// A frozen guest: two disks, and what its consoles said.
struct Frozen {
    bench: &'static Bench,
    data: Lent<'static>,
    image: Lent<'static>,
    console: String,
}

impl Frozen {
    /// Freezes a guest in the middle of a ledger.
    fn new(scene: &Scene, options: &str) -> Result<Self> {
        let frozen = Self {
            bench: scene.bench,
            data: scene.bench.disk(512)?,
            image: scene.bench.disk(512)?,
            console: String::new(),
        };
        let jobs = format!(
            "fill size=8M; {LEDGER} &; sleep time=1s; freeze image=xvdb audit; fill-check; sleep time=3s; stop; poweroff"
        );
        let live = frozen.boot(&frozen.spec(options, &jobs))?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");
        let console = live.guest.console().text();
        ensure!(Event::last(&console, "frozen").is_some(), "{console}");
        Ok(Self { console, ..frozen })
    }

    fn spec(&self, options: &str, jobs: &str) -> GuestSpec {
        GuestSpec::new("firn", Bench::elf())
            .with_memory(256)
            .with_cmdline(&format!(
                "log=info deadline=20 freeze.deadline=30s {options} -- {jobs}"
            ))
            .with_disk(GuestDisk::new(self.data.name(), "xvda"))
            .with_disk(GuestDisk::new(self.image.name(), "xvdb"))
    }

    fn boot(&self, spec: &GuestSpec) -> Result<Live> {
        let guest = self.bench.lab.guest(spec)?;
        Ok(Live { guest })
    }

    /// Boots a machine that must refuse the image as `why`, and touch nothing.
    fn refused(&self, spec: &GuestSpec, why: &str) -> Result<()> {
        // Of the image only the slots may change: a try is noted there.
        let before = Copies::of(&[(self.data.file(), 0), (self.image.file(), SLOTS)])?;
        let live = self.boot(spec)?;
        let line = live.guest.wait_for("\"event\":\"refused\"", SOON)?;
        let event = Event::parse(&line).context("no event")?;
        ensure!(event.text("why") == Some(why), "not {why}: {line}");
        ensure!(
            event.text("hint").is_some_and(|hint| !hint.is_empty()),
            "{line}"
        );
        // The shell is there, and no job of the command line has run.
        live.off()?;
        before.are_untouched()
    }

    /// Boots a machine that must go on, and counts.
    fn restored(&self, spec: &GuestSpec) -> Result<String> {
        let live = self.boot(spec)?;
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
        Ok(console)
    }

    fn state(&self) -> Result<Option<State>> {
        Ok(image_state(self.image.file())?.map(|(_, state)| state))
    }
}

/// Copies of disk files, to be compared with later.
struct Copies {
    pairs: Vec<(PathBuf, PathBuf, u32)>,
    _folder: RunFolder,
}

impl Copies {
    /// Of each file, and how many bytes at its start do not matter.
    fn of(files: &[(&Path, u32)]) -> Result<Self> {
        let folder = Cache::open()?.run_folder()?;
        let mut pairs = Vec::new();
        for (number, (file, skip)) in files.iter().enumerate() {
            let copy = folder.path(&number.to_string());
            let status = Command::new("cp")
                .arg("--sparse=always")
                .args([*file, &copy])
                .status()?;
            ensure!(status.success(), "no copy of {}", file.display());
            pairs.push((file.to_path_buf(), copy, *skip));
        }
        Ok(Self {
            pairs,
            _folder: folder,
        })
    }

    fn are_untouched(&self) -> Result<()> {
        for (file, copy, skip) in &self.pairs {
            let skip = format!("--ignore-initial={skip}");
            let status = Command::new("cmp").arg(skip).args([file, copy]).status()?;
            ensure!(status.success(), "{} has changed", file.display());
        }
        Ok(())
    }
}

/// The same program with another build id.
fn another_build(folder: &RunFolder) -> Result<PathBuf> {
    let mut elf = std::fs::read(Bench::elf())?;
    let mark = b"GNU\0";
    let note = elf.windows(4).position(|bytes| bytes == mark);
    let note = note.context("the ELF has no build id")?;
    elf[note + 4] ^= 1;
    let path = folder.path("other.elf");
    std::fs::write(&path, elf)?;
    Ok(path)
}

#[test]
fn refused_where_it_does_not_fit_and_restored_where_it_does() -> Result<()> {
    let scene = Scene::new(Host::Xen)?;
    let frozen = Frozen::new(&scene, "")?;
    let folder = Cache::open()?.run_folder()?;
    let same = frozen.spec("", "poweroff");

    frozen.refused(&same.clone().with_memory(192), "memory")?;
    let mut other = same.clone();
    other.kernel = another_build(&folder)?;
    frozen.refused(&other, "build")?;
    {
        let foreign = scene.bench.disk(512)?;
        let mut spec = same.clone();
        spec.disks[0] = GuestDisk::new(foreign.name(), "xvda");
        frozen.refused(&spec, "disk")?;
    }
    for at in [0x100, 4096 + 40, 3 << 20] {
        disks::flip_byte(frozen.image.file(), at)?;
        frozen.refused(&same, "damaged")?;
        disks::flip_byte(frozen.image.file(), at)?;
    }

    // Other names, more memory, a second vCPU, and a frontend that may use
    // nothing of what the backend offers.
    let mut changed = frozen.spec(
        "blk.persistent=no blk.segments=11 blk.ring-order=0",
        "poweroff",
    );
    changed.memory = 320;
    changed.vcpus = 2;
    changed.disks[0].vdev = "xvdd".into();
    changed.disks[1].vdev = "xvdc".into();
    frozen.restored(&changed)?;
    ensure!(frozen.state()? == Some(State::Consumed));
    scene.finish()
}

#[test]
fn going_on_cold_gives_an_image_up_for_good() -> Result<()> {
    let scene = Scene::new(Host::Xen)?;
    let frozen = Frozen::new(&scene, "")?;
    // A byte in the chunks: the header is sound, the memory is not.
    disks::flip_byte(frozen.image.file(), 3 << 20)?;
    let live = frozen.boot(&frozen.spec("on-refusal=cold", "disks"))?;
    live.guest.wait_for("\"event\":\"abandoned\"", SOON)?;
    live.result(SOON)?.into_ok()?;
    live.off()?;
    ensure!(frozen.state()? == Some(State::Abandoned));
    // Mended, it stays given up.
    disks::flip_byte(frozen.image.file(), 3 << 20)?;
    let live = frozen.boot(&frozen.spec("", "disks"))?;
    live.result(SOON)?.into_ok()?;
    live.done("verify disk=xvda at=16M size=1M")?;
    live.off()?;
    scene.finish()
}

#[test]
fn a_sealed_image_wants_its_key() -> Result<()> {
    let scene = Scene::new(Host::Xen)?;
    let key = format!("image-key={KEY}");
    let frozen = Frozen::new(&scene, &key)?;
    frozen.refused(&frozen.spec("", "poweroff"), "no-key")?;
    let wrong = key.replace("=0001", "=ff01");
    frozen.refused(&frozen.spec(&wrong, "poweroff"), "damaged")?;
    frozen.restored(&frozen.spec(&key, "poweroff"))?;
    scene.finish()
}

#[test]
fn a_poor_backend_does() -> Result<()> {
    let scene = Scene::alone(Host::Xen)?;
    let frozen = Frozen::new(&scene, "")?;
    let lab = &scene.bench.lab;
    lab.reload_blkback("max_ring_page_order=0 feature_persistent=0")?;
    frozen.restored(&frozen.spec("", "poweroff"))?;
    lab.reload_blkback("")?;
    scene.finish()
}
