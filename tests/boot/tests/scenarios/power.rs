//! Freeze to a disk, power off, and a fresh boot that goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::disks::flip_byte;
use firn_boot_tests::{Bench, Live, PATIENT, Scene, again};
use firn_lab::{Exit, GuestSpec, Host};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Waits for an event of the kernel's.
fn event(live: &Live, name: &str) -> Result<Value> {
    let line = live
        .guest
        .wait_for(&format!("\"event\":\"{name}\""), SOON)?;
    let (_, json) = line.split_once("firn-event ").context("no event")?;
    Ok(serde_json::from_str(json)?)
}

/// A job asks for a freeze in one boot and hears of its end in the next; the
/// memory is the same, and holds nothing of the boot that made it.
#[test]
fn a_job_goes_on_in_another_boot() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let ([data, _image], disks) = scene.two_disks()?;
        let first = scene.boot("", &disks)?;
        first.verify("verify disk=xvda size=8M seed=5", data.file())?;
        first.begin("freeze image=xvdb --audit")?;
        let frozen = event(&first, "frozen")?;
        let exit = first.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::PowerOff, "it ended with {exit:?}");

        let second = scene.start("", "crash", &disks)?;
        let restored = event(&second, "restored")?;
        ensure!(frozen["memory_hash"].is_string(), "{frozen}");
        for field in ["memory_hash", "generation", "disk"] {
            ensure!(frozen[field] == restored[field], "{frozen} {restored}");
        }
        let result = second.result(SOON)?.into_ok()?;
        ensure!(result.fields["restored"] == true, "{}", result.fields);
        second.done("verify disk=xvda size=8M seed=5 write=no")?;
        second.verify("verify disk=xvda at=8M size=8M seed=6", data.file())?;
        second.done("freeze image=xvdb --check")?;
        second.off()?;

        // The image is used up: the third boot is an ordinary one.
        scene.boot("", &disks)?.off()?;
        scene.finish()
    })
}

/// A damaged image is refused with a reason and nothing can be written, until
/// somebody decides; then it is never restored.
#[test]
fn a_damaged_image_waits_for_a_decision() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let ([data, image], disks) = scene.two_disks()?;
        let first = scene.boot("", &disks)?;
        first.begin("freeze image=xvdb then=poweroff")?;
        event(&first, "frozen")?;
        first.guest.wait_exit(SOON)?;
        // Within the first chunk that is stored.
        flip_byte(image.file(), (64 << 10) + (16 << 10))?;

        let second = scene.start("", "crash", &disks)?;
        let refused = event(&second, "refused")?;
        ensure!(refused["why"] == "damaged", "{refused}");
        second.refused("verify disk=xvda size=1M", "disk-not-live")?;
        second.done("cold")?;
        ensure!(
            second
                .guest
                .console()
                .text()
                .contains("\"event\":\"abandoned\"")
        );
        second.verify("verify disk=xvda size=1M", data.file())?;
        second.off()?;

        flip_byte(image.file(), (64 << 10) + (16 << 10))?;
        scene.boot("", &disks)?.off()?;
        scene.finish()
    })
}

/// A boot whose image disk does not connect changes nothing, whatever it is told:
/// a later one restores.
#[test]
fn an_image_that_cannot_be_seen_is_not_forgotten() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let ([_data, _image], disks) = scene.two_disks()?;
        let first = scene.boot("", &disks)?;
        first.begin("freeze image=xvdb then=poweroff")?;
        event(&first, "frozen")?;
        first.guest.wait_exit(SOON)?;

        let cmdline = format!("log=debug {PATIENT} on-refusal=cold -- crash");
        let mut spec = GuestSpec::new("firn", Bench::elf())
            .with_cmdline(&cmdline)
            .paused();
        spec.disks = disks.to_vec();
        let second = scene.start_spec(&spec)?;
        let domain = second.guest.domain().context("no domain")?;
        let key = format!("/local/domain/{domain}/device/vbd/51728/backend");
        scene.bench.lab.run(&format!("xenstore-rm {key}"))?;
        second.guest.unpause()?;
        let refused = event(&second, "refused")?;
        ensure!(refused["why"] == "unseen", "{refused}");
        ensure!(refused["disk"] == "xvdb", "{refused}");
        second.refused("cold", "unseen")?;
        second.refused("verify disk=xvda size=1M", "disk-not-live")?;
        second.guest.destroy()?;

        let third = scene.start("", "crash", &disks)?;
        event(&third, "restored")?;
        third.off()?;
        scene.finish()
    })
}
