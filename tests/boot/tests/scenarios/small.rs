//! Freezes of guests that have little memory, or hardly any that is free.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, Event, Scene};
use firn_lab::{Exit, GuestDisk, GuestSpec, Host};

const SOON: Duration = Duration::from_secs(120);
const KEY: &str = "image-key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Fills memory, freezes, and looks in another boot whether all is there. The
/// event of the freeze.
fn round(memory: u32, options: &str, fill: &str, freeze: &str) -> Result<Event> {
    let scene = Scene::new(Host::Xen)?;
    let (data, image) = (scene.bench.disk(512)?, scene.bench.disk(512)?);
    let spec = |jobs: &str| {
        GuestSpec::new("firn", Bench::elf())
            .with_memory(memory)
            .with_cmdline(&format!(
                "log=info deadline=20 freeze.deadline=30s {options} -- {jobs}"
            ))
            .with_disk(GuestDisk::new(data.name(), "xvda"))
            .with_disk(GuestDisk::new(image.name(), "xvdb"))
    };
    let jobs = format!(
        "verify disk=xvda size=4M seed=1; {fill}; {freeze}; fill-check; \
         verify disk=xvda size=4M seed=1 write=no; fill-free; mem; poweroff"
    );
    let first = scene.start_spec(&spec(&jobs))?;
    let exit = first.guest.wait_exit(SOON)?;
    let console = first.guest.console().text();
    ensure!(exit == Exit::PowerOff, "it ended with {exit:?}: {console}");
    let frozen = Event::last(&console, "frozen").with_context(|| console.clone())?;

    let second = scene.start_spec(&spec("crash"))?;
    let exit = second.guest.wait_exit(SOON)?;
    let console = second.guest.console().text();
    ensure!(
        exit == Exit::PowerOff,
        "the second boot ended with {exit:?}: {console}"
    );
    Event::last(&console, "restored").with_context(|| console.clone())?;
    let failed = console.lines().find(|line| line.contains("\"ok\":false"));
    ensure!(failed.is_none(), "{failed:?}");
    scene.finish()?;
    Ok(frozen)
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

/// 64 MiB are enough for the compressor, for a seal, and for both.
#[test]
fn a_small_guest_freezes_and_comes_back() -> Result<()> {
    for (options, freeze) in [
        ("", "freeze image=xvdb compress=lz4"),
        (KEY, "freeze image=xvdb"),
        (KEY, "freeze image=xvdb compress=lz4"),
    ] {
        round(64, options, "fill size=50M data=text", freeze)
            .with_context(|| format!("{options} {freeze}"))?;
    }
    Ok(())
}

/// A guest of 32 MiB, too.
#[test]
fn a_tiny_guest_freezes_and_comes_back() -> Result<()> {
    round(32, "", "fill size=20M", "freeze image=xvdb").map(drop)
}
