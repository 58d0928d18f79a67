//! Disks that come, go and change, and guests that are stopped, all under
//! load.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use firn_boot_tests::{JobResult, Live, Scene, again, check_file};
use firn_lab::{GuestDisk, Host};

/// Enough for the load to fill its queue.
const UNDER_WAY: &str = "load: keeping busy";
const SOON: Duration = Duration::from_secs(60);

/// Starts a load at depth 32 and waits until it has moved something.
fn load(live: &Live, disk: &str, seconds: u32) -> Result<()> {
    live.begin(&format!("load disk={disk} qd=32 time={seconds}s"))?;
    live.guest.wait_for(UNDER_WAY, SOON)?;
    Ok(())
}

/// Every request ended once, and something was moved and checked.
fn accounted(result: &JobResult) -> Result<u64> {
    let count = |name: &str| result.fields[name].as_u64().unwrap_or(0);
    let ended = count("reads") + count("writes") + count("ended_gone");
    let all = count("submitted");
    ensure!(
        all == count("completed") && all == ended && count("checked") > 0,
        "{}",
        result.fields
    );
    Ok(all)
}

#[test]
fn a_disk_is_detached_under_load() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let ([a, b], disks) = scene.two_disks()?;
        let live = scene.boot("", &disks)?;
        load(&live, "xvda", 120)?;
        live.guest.detach("xvda")?;
        let result = live.result(SOON)?.into_ok()?;
        ensure!(result.fields["gone"] == true, "{}", result.fields);
        accounted(&result)?;
        // The guest lives, knows that the disk is gone, and works with the other.
        live.done("wait-disk xvda gone")?;
        live.refused("verify disk=xvda", "no-such-disk")?;
        live.verify("verify disk=xvdb size=8M seed=2", b.file())?;
        // Nothing of the old connection is left in the way of a new one.
        live.guest.attach(&disks[0])?;
        live.done("wait-disk xvda timeout=20s")?;
        live.verify("verify disk=xvda size=8M seed=3", a.file())?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn a_disk_is_attached_and_verified() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("", &[])?;
        live.refused("verify disk=xvdc", "no-such-disk")?;
        live.guest.attach(&GuestDisk::new(disk.name(), "xvdc"))?;
        live.done("wait-disk xvdc timeout=20s")?;
        live.verify("verify disk=xvdc size=16M seed=6", disk.file())?;
        live.off()?;
        scene.finish()
    })
}

/// The clock goes on while a guest is paused: no deadline may take that for a
/// host that does not answer.
#[test]
fn a_guest_is_paused_under_load() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("deadline=5", &[GuestDisk::new(disk.name(), "xvda")])?;
        load(&live, "xvda", 20)?;
        for seconds in [1, 8] {
            live.guest.pause()?;
            sleep(Duration::from_secs(seconds));
            live.guest.unpause()?;
        }
        let result = live.result(SOON)?.into_ok()?;
        ensure!(result.fields["gone"] == false, "{}", result.fields);
        accounted(&result)?;
        live.verify("verify disk=xvda size=8M seed=2", disk.file())?;
        live.off()?;
        scene.finish()
    })
}

/// dom0's backend loses its guest in the middle of everything, and has nothing
/// to complain about; the disk is free for the next guest at once.
#[test]
fn a_guest_is_destroyed_under_load() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let disks = [GuestDisk::new(disk.name(), "xvda")];
        let live = scene.boot("", &disks)?;
        load(&live, "xvda", 120)?;
        live.guest.destroy()?;
        let next = scene.boot("", &disks)?;
        next.verify("verify disk=xvda size=8M seed=2", disk.file())?;
        next.off()?;
        scene.finish()
    })
}

/// A disk that grows while it is in use. The lab's own disks cannot, so this
/// one is a file of dom0; the host fetches it for its look.
#[test]
fn a_disk_grows_while_connected() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let lab = &scene.bench.lab;
        let file = "/tmp/grows";
        let make = format!(
            "modprobe loop && truncate -s 8M {file} && d=$(losetup -f) && losetup $d {file} && echo $d"
        );
        let device = lab.run(&make)?.trim().to_owned();
        let live = scene.boot("", &[GuestDisk::new(&device, "xvda")])?;
        ensure!(live.disk("xvda")?["bytes"] == 8 << 20);
        live.done("verify disk=xvda size=8M bs=64k seed=1")?;
        live.refused("verify disk=xvda at=8M size=8M", "beyond-end")?;

        lab.run(&format!("truncate -s 16M {file} && losetup -c {device}"))?;
        // blkback looks at its device's size when it is asked for something.
        live.done("read disk=xvda size=1")?;
        let start = Instant::now();
        while live.disk("xvda")?["bytes"] != 16 << 20 {
            ensure!(start.elapsed() < SOON, "the guest never saw it grow");
        }
        let second = "verify disk=xvda at=8M size=8M bs=64k seed=2";
        live.done(second)?;
        live.off()?;

        let folder = firn_lab::Cache::open()?.run_folder()?;
        let copy = folder.path("grows");
        std::fs::write(&copy, lab.get(file)?)?;
        check_file("verify disk=xvda size=8M bs=64k seed=1", &copy)?;
        check_file(second, &copy)?;
        lab.run(&format!("losetup -d {device}; rm {file}"))?;
        scene.finish()
    })
}
