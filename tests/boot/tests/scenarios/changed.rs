//! An image meets a machine that is not what it was: where it fits, it goes
//! on; where it does not, it is refused by name and nothing is touched.

mod chunks;
mod frozen;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, DISK_BYTES, Event, Scene, again, disks};
use firn_image::State;
use firn_lab::{Cache, GuestDisk, GuestSpec, Host, RunFolder};

use frozen::{Copies, Frozen, SOON};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// What the disks of a guest are frozen with: less than there is.
const FROZEN_BYTES: u64 = 192 << 20;
/// A disk that has shrunk since.
const SHRUNK_BYTES: u64 = 128 << 20;

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
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let lab = &scene.bench.lab;
        let frozen = Frozen::within(&scene, "", Some(FROZEN_BYTES))?;
        let folder = Cache::open()?.run_folder()?;
        let foreign = scene.bench.disk(512)?;
        let untouched = Copies::of(&[foreign.file()])?;
        let data = lab.part(frozen.data.name(), SHRUNK_BYTES)?;
        let image = lab.part(frozen.image.name(), SHRUNK_BYTES)?;
        let same = frozen.spec("", "poweroff");
        let with = |change: &dyn Fn(&mut GuestSpec)| {
            let mut spec = same.clone();
            change(&mut spec);
            spec
        };

        let build = another_build(&folder)?;
        let cpu = "cpuid = \"host,sse3=0\"".to_owned();
        for (why, says, spec) in [
            ("memory", "KiB of job memory", with(&|s| s.memory = 192)),
            ("build", "is of build", with(&|s| s.kernel = build.clone())),
            (
                "cpu",
                "lacks features: 0x",
                with(&|s| s.extra.push(cpu.clone())),
            ),
            (
                "disk-missing",
                "xvda is not attached, or was written to",
                with(&|s| s.disks[0] = GuestDisk::new(foreign.name(), "xvda")),
            ),
            (
                "disk-shrunk",
                "shrank from 393216 to 262144 sectors",
                with(&|s| s.disks[0].source = data.device().into()),
            ),
            (
                "truncated",
                "the image disk shrank from 393216 to 262144 sectors",
                with(&|s| s.disks[1].source = image.device().into()),
            ),
        ] {
            frozen.refused(&spec, why, says)?;
        }
        untouched.are_untouched()?;
        for (at, says) in [
            (0x100, "header slot A"),
            (4096 + 40, "header slot B"),
            (3 << 20, "chunk "),
        ] {
            disks::flip_byte(frozen.image.file(), at)?;
            frozen.refused(&same, "damaged", says)?;
            disks::flip_byte(frozen.image.file(), at)?;
        }

        // Grown disks under other names, more memory, a second vCPU, and a frontend
        // that may use nothing of what the backend offers.
        let mut changed = frozen.spec(
            "blk.persistent=no blk.segments=11 blk.ring-order=0",
            "poweroff",
        );
        changed.memory = 320;
        changed.vcpus = 2;
        changed.disks[0].vdev = "xvdd".into();
        changed.disks[1].vdev = "xvdc".into();
        let console = frozen.restored(&changed)?;
        let grown = format!("\"bytes\":{DISK_BYTES}");
        ensure!(console.contains(&grown), "not grown: {console}");
        scene.finish()
    })
}

/// Two images of the same work, one after the other on the same disk.
#[test]
fn a_chunk_of_an_older_image_is_refused() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let mut frozen = Frozen::new(&scene, "")?;
        let older = frozen.copies()?;
        frozen.freeze_again()?;
        let kept = frozen.copies()?;
        let image = frozen.image.file();
        let chunk = chunks::put_older(older.get(image)?, image)?;
        let same = frozen.spec("", "poweroff");
        frozen.refused(&same, "damaged", &format!("chunk {chunk}: "))?;
        kept.put_back()?;
        frozen.restored(&same)?;
        scene.finish()
    })
}

#[test]
fn going_on_cold_gives_an_image_up_for_good() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let frozen = Frozen::new(&scene, "")?;
        // A byte in the chunks: the header is sound, the memory is not.
        disks::flip_byte(frozen.image.file(), 3 << 20)?;
        let live = frozen.boot(&frozen.spec("on-refusal=cold", "disks"))?;
        live.guest.wait_for("\"event\":\"cold\"", SOON)?;
        live.result(SOON)?.into_ok()?;
        let console = live.guest.console().text();
        live.off()?;
        // What was refused and why, and only then what follows from it.
        let events = Event::all(&console);
        let refused = events.first().context("no event")?;
        ensure!(refused.text("why") == Some("damaged"), "{console}");
        ensure!(refused.text("then") == Some("cold"), "{console}");
        let names: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
        ensure!(names == ["refused", "abandoned", "cold"], "{names:?}");
        ensure!(frozen.state()? == Some(State::Abandoned));
        // Mended, it stays given up.
        disks::flip_byte(frozen.image.file(), 3 << 20)?;
        let live = frozen.boot(&frozen.spec("", "disks"))?;
        live.result(SOON)?.into_ok()?;
        live.done("verify disk=xvda at=16M size=1M")?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn a_sealed_image_wants_its_key() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let key = format!("image-key={KEY}");
        let frozen = Frozen::new(&scene, &key)?;
        let with = |options: &str| frozen.spec(options, "poweroff");
        frozen.refused(&with(""), "no-key", "no key was given")?;
        let wrong = key.replace("=0001", "=ff01");
        frozen.refused(&with(&wrong), "damaged", "key does not open")?;
        frozen.restored(&with(&key))?;
        scene.finish()
    })
}

/// One image, restored under each backend that has something less.
#[test]
fn a_poor_backend_does() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::alone(Host::Xen)?;
        let frozen = Frozen::new(&scene, "")?;
        let kept = frozen.copies()?;
        let lab = &scene.bench.lab;
        let same = frozen.spec("", "poweroff");
        let console = frozen.restored_without_indirect(&same)?;
        has_features(&console, "ring-pages=16 segments=11", true)?;
        for (parameters, words, persistent) in [
            ("max_ring_page_order=0", "ring-pages=1 segments=256", true),
            ("feature_persistent=0", "ring-pages=16 segments=256", false),
        ] {
            kept.put_back()?;
            lab.reload_blkback(parameters)?;
            let console = frozen.restored(&same);
            lab.reload_blkback("")?;
            has_features(&console.context(parameters)?, words, persistent)?;
        }
        scene.finish()
    })
}

/// What the disks were connected with when the job after the freeze looked.
fn has_features(console: &str, words: &str, persistent: bool) -> Result<()> {
    let is_told = |line: &&str| line.contains("\"job\":\"disks\"");
    let told = console.lines().find(is_told);
    let told = told.context("the job after the freeze says nothing")?;
    ensure!(told.matches(words).count() == 2, "not {words}: {told}");
    let is_persistent = told.contains("feature-persistent");
    ensure!(is_persistent == persistent, "{told}");
    Ok(())
}
