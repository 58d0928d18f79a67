//! Freezes of guests that have little memory, or hardly any that is free.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, Event, PATIENT, Scene, again};
use firn_lab::{Exit, GuestDisk, GuestSpec, Host};

const SOON: Duration = Duration::from_secs(120);
const KEY: &str = "image-key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The backend keeps a buffer mapped that it has seen once, and so the guest
/// keeps it: few and small ones.
const FEW: &str = "qd=2 bs=64k";

/// A guest from its creation until it is off; nothing it does may fail.
fn live(scene: &Scene, spec: &GuestSpec) -> Result<String> {
    let live = scene.start_spec(spec)?;
    let exit = live.guest.wait_exit(SOON)?;
    let console = live.guest.console().text();
    let failed = console.contains("\"ok\":false");
    ensure!(exit == Exit::PowerOff && !failed, "{exit:?}: {console}");
    Ok(console)
}

/// Fills memory, freezes, and looks in another boot whether all is there. The
/// event of the freeze.
fn round(memory: u32, options: &str, fill: &str, freeze: &str) -> Result<Event> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let (data, image) = (scene.bench.disk(512)?, scene.bench.disk(512)?);
        let spec = |jobs: &str| {
            GuestSpec::new("firn", Bench::elf())
                .with_memory(memory)
                .with_cmdline(&format!("log=info {PATIENT} {options} -- {jobs}"))
                .with_disk(GuestDisk::new(data.name(), "xvda"))
                .with_disk(GuestDisk::new(image.name(), "xvdb"))
        };
        let jobs = format!(
            "verify disk=xvda size=2M seed=1 {FEW}; {fill}; mem; {freeze}; fill-check; \
         verify disk=xvda size=2M seed=1 {FEW} write=no; poweroff"
        );
        let console = live(&scene, &spec(&jobs))?;
        let frozen = Event::last(&console, "frozen").with_context(|| console.clone())?;
        let console = live(&scene, &spec("crash"))?;
        Event::last(&console, "restored").with_context(|| console.clone())?;
        scene.finish()?;
        Ok(frozen)
    })
}

/// The image of a full guest of 96 MiB holds more than nine tenths of its RAM.
#[test]
fn nine_tenths_of_a_guests_memory_are_saved_and_come_back() -> Result<()> {
    let frozen = round(96, "", "fill size=87M", "freeze image=xvdb")?;
    let number = |field| frozen.number(field).context(field);
    ensure!(number("ram_bytes")? == f64::from(96 << 20));
    let part = number("saved_bytes")? / number("ram_bytes")?;
    ensure!(part >= 0.9, "only {part}");
    Ok(())
}

/// 64 MiB are enough for the compressor and a seal, which need the most.
#[test]
fn a_small_guest_freezes_and_comes_back() -> Result<()> {
    let freeze = "freeze image=xvdb compress=lz4";
    round(64, KEY, "fill size=16M data=text", freeze).map(drop)
}

/// A guest of 32 MiB freezes, too.
#[test]
fn a_tiny_guest_freezes_and_comes_back() -> Result<()> {
    round(32, "", "fill size=8M", "freeze image=xvdb").map(drop)
}
