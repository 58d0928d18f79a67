//! Guests that are firn. The host looks at the disk files itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, Event, JobResult, Scene, again, check_file, judge};
use firn_lab::{Exit, GuestDisk, GuestSpec, Host};

const SOON: Duration = Duration::from_secs(90);

/// Runs a guest to its end with these words for the host; its results.
fn life(scene: &Scene, jobs: &str, disks: &[GuestDisk], host: &[&str]) -> Result<Vec<JobResult>> {
    let mut spec =
        GuestSpec::new("firn", Bench::elf()).with_cmdline(&format!("log=info -- {jobs}"));
    spec.disks = disks.to_vec();
    // Before we give up, so that the host says where its guest stands.
    let words = ["--deadline", "80"].iter().chain(host);
    spec.extra = words.map(|word| (*word).to_owned()).collect();
    let live = scene.start_spec(&spec)?;
    let exit = live.guest.wait_exit(SOON)?;
    let console = live.guest.console().text();
    ensure!(exit == Exit::PowerOff, "it ended with {exit:?}:\n{console}");
    console.lines().filter_map(JobResult::parse).collect()
}

#[test]
fn two_disks_with_sectors_of_both_sizes() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let (a, b) = (scene.bench.disk(512)?, scene.bench.disk(4096)?);
        let disks = [
            GuestDisk::new(a.name(), "sda"),
            GuestDisk::new(b.name(), "sdb"),
        ];
        let live = scene.boot("", &disks)?;
        live.verify_all_sizes("sda", a.file())?;
        ensure!(live.disk("sdb")?["bytes"] == firn_boot_tests::DISK_BYTES);
        live.verify("verify disk=sdb size=8M bs=64k seed=4", b.file())?;
        live.off()?;
        scene.finish()
    })
}

/// Whatever the host speaks: the guest finds the version, and its data arrive.
#[test]
fn every_version_of_both_protocols() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let disk = scene.bench.disk(512)?;
        let disks = [GuestDisk::new(disk.name(), "sda")];
        let vmbus = [
            "2.4", "3.0", "4.0", "4.1", "5.0", "5.1", "5.2", "5.3", "6.0",
        ];
        let vstor = ["2.0", "4.2", "5.1", "6.0", "6.2"];
        let pairs = vmbus.map(|version| (version, "6.2"));
        let pairs = pairs
            .into_iter()
            .chain(vstor.map(|version| ("6.0", version)));
        for (seed, (bus, storage)) in (10..).zip(pairs) {
            let line = format!("verify disk=sda size=1M seed={seed}");
            let words = ["--vmbus-max-version", bus, "--vstor-max-version", storage];
            let results = life(&scene, &format!("{line}; poweroff"), &disks, &words);
            let results = results.with_context(|| format!("VMBus {bus}, storvsp {storage}"))?;
            judge(&results)?;
            check_file(&line, disk.file())?;
        }
        scene.finish()
    })
}

/// As many channels as both ends want: each carries requests, and data arrive.
#[test]
fn a_controller_with_further_channels() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let disk = scene.bench.disk(512)?;
        let disks = [GuestDisk::new(disk.name(), "sda")];
        for (seed, offered, channels) in [(41, "1", "channels=2"), (42, "9", "channels=4")] {
            let line = format!("verify disk=sda size=8M bs=64k qd=32 seed={seed}");
            let jobs = format!("wait-disk sda timeout=30s; disks; {line}; poweroff");
            let results = life(&scene, &jobs, &disks, &["--subchannels", offered])?;
            judge(&results)?;
            let told = results.iter().find(|result| result.job == "disks");
            let told = &told.context("no `disks`")?.fields["disks"][0]["features"];
            let words = told.as_str().unwrap_or_default();
            ensure!(words.contains(channels), "not {channels} but {words}");
            check_file(&line, disk.file())?;
        }
        scene.finish()
    })
}

#[test]
fn a_read_only_disk_is_not_written() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let disk = scene.bench.disk(512)?;
        let disks = [GuestDisk::new(disk.name(), "sda").read_only()];
        let live = scene.boot("", &disks)?;
        let result = live.job("verify disk=sda size=1M seed=1")?;
        ensure!(!result.ok, "it was written: {}", result.fields);
        live.off()?;
        ensure!(std::fs::read(disk.file())?.iter().all(|byte| *byte == 0));
        scene.finish()
    })
}

#[test]
fn a_reboot_and_a_crash_are_told() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let live = scene.start("", "reboot", &[])?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::Reboot, "it ended with {exit:?}");
        let live = scene.start("provoke=panic", "poweroff", &[])?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::Crash, "it ended with {exit:?}");
        live.guest.wait_for("the guest crashed: ", SOON)?;
        scene.finish()
    })
}

/// Frozen, switched off, and restored under other channel numbers and versions.
#[test]
fn a_job_goes_on_in_another_boot() -> Result<()> {
    again(Host::HyperV, || {
        let scene = Scene::new(Host::HyperV)?;
        let (data, image) = (scene.bench.disk(512)?, scene.bench.disk(512)?);
        let disks = [
            GuestDisk::new(data.name(), "sda"),
            GuestDisk::new(image.name(), "sdb"),
        ];
        let first = scene.boot("", &disks)?;
        first.verify("verify disk=sda size=8M seed=5", data.file())?;
        first.begin("freeze image=sdb audit")?;
        let exit = first.guest.wait_exit(SOON)?;
        let console = first.guest.console().text();
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}:\n{console}");
        let frozen = Event::last(&console, "frozen").context("not frozen")?;

        let mut spec = GuestSpec::new("firn", Bench::elf()).with_cmdline("log=info -- crash");
        spec.disks = disks.to_vec();
        spec.extra = ["--vmbus-max-version", "5.2", "--first-relid", "77"]
            .map(str::to_owned)
            .to_vec();
        let second = scene.start_spec(&spec)?;
        let result = second.result(SOON)?.into_ok()?;
        ensure!(result.fields["restored"] == true, "{}", result.fields);
        let restored =
            Event::last(&second.guest.console().text(), "restored").context("no event")?;
        let hashes = [&frozen, &restored].map(|event| event.text("memory_hash"));
        ensure!(hashes[0] == hashes[1], "another memory: {hashes:?}");
        second.done("verify disk=sda size=8M seed=5 write=no")?;
        second.verify("verify disk=sda at=8M size=8M seed=6", data.file())?;
        second.off()?;
        scene.finish()
    })
}
