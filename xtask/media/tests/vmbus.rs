//! The disk on our own Hyper-V host, in each format: the host reads the kernel and
//! its command line from the medium and enters it as GRUB does, the guest finds the
//! medium and a disk beside it on VMBus, and verifies the latter. There is no
//! firmware here: `boots.rs` has that.

mod made;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{DISK_BYTES, JobResult, Scene, again, check_file, judge};
use firn_lab::{Cache, Exit, GuestDisk, GuestSpec, Host};
use firn_media::{Format, save};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
/// Each format, the medium's unit, and its name and the other disk's: as the first
/// disk of a controller, and as `tests/hil/hyperv` has it.
const ALL: [(Format, &str, &str, &str); 3] = [
    (Format::Raw, "0", "sda", "sdb"),
    (Format::Vhd, "2", "sdb", "sda"),
    (Format::Vhdx, "2", "sdb", "sda"),
];

#[test]
fn every_format_verifies_a_disk_on_vmbus() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let data = scene.bench.disk(512)?;
        let folder = Cache::open()?.run_folder()?;
        for (seed, (format, unit, medium, other)) in (1..).zip(ALL) {
            let line = format!("verify disk={other} size=8M seed={seed}");
            let cmdline = format!("log=info -- disks; {line}; poweroff");
            let (tools, disk) = made::make(&cmdline)?;
            let file = folder.path(format.extension());
            save(&tools, &disk, format, &file)?;
            let mut spec = GuestSpec::from_medium("medium", &file)
                .with_disk(GuestDisk::new(data.name(), other));
            spec.extra = vec!["--media-lun".into(), unit.into()];
            let seen = [(medium, disk.len() as u64), (other, DISK_BYTES)];
            starts(&scene, &spec, seen).with_context(|| format!("{format:?}"))?;
            check_file(&line, data.file())?;
        }
        scene.finish()
    })
}

/// Runs a guest from its medium to its end; it must have seen these disks, of so
/// many bytes.
fn starts(scene: &Scene, spec: &GuestSpec, seen: [(&str, u64); 2]) -> Result<()> {
    let live = scene.start_spec(spec)?;
    let exit = live.guest.wait_exit(SOON)?;
    let console = live.guest.console().text();
    ensure!(exit == Exit::PowerOff, "it ended with {exit:?}:\n{console}");
    let banner = "on Hyper-V, entered by Multiboot2";
    ensure!(console.contains(banner), "not {banner}:\n{console}");
    let results = console.lines().filter_map(JobResult::parse);
    let results = results.collect::<Result<Vec<_>>>()?;
    let disks = &results.first().context("no result")?.fields["disks"];
    let has = |(name, bytes)| {
        let is = |disk: &Value| disk["disk"] == name && disk["bytes"] == bytes;
        disks.as_array().is_some_and(|all| all.iter().any(is))
    };
    ensure!(seen.into_iter().all(has), "not {seen:?} but {disks}");
    judge(&results)
}
