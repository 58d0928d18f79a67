//! Backends that are not there, do not answer, or make no sense, played by
//! hand in the real xenstore.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firn_boot_tests::{Live, Scene, again};
use firn_lab::{GuestDisk, Host, Lab};

const SOON: Duration = Duration::from_secs(60);
/// The kernel's own deadline, which these guests are told, and how much later its word
/// may get here.
const DEADLINE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(10);

/// A device that the test writes into xenstore, with a backend directory that
/// no driver of dom0 looks at.
struct Handmade<'a> {
    lab: &'a Lab,
    front: String,
    back: String,
    domain: u32,
}

impl<'a> Handmade<'a> {
    /// xvdb of the guest, not yet visible.
    fn new(lab: &'a Lab, live: &Live) -> Result<Self> {
        let domain = live.guest.domain().context("no domain")?;
        let vbds = format!("/local/domain/{domain}/device/vbd");
        // What is made below belongs to the guest from the start.
        lab.run(&format!("xenstore-chmod {vbds} n{domain} r0"))?;
        Ok(Self {
            lab,
            front: format!("{vbds}/51728"),
            back: format!("/local/domain/0/firn-test/{domain}"),
            domain,
        })
    }

    /// Writes backend keys, the last one last; the guest may read them.
    fn backend(&self, keys: &[(&str, &str)]) -> Result<()> {
        let (back, domain) = (&self.back, self.domain);
        let mut script = format!("set -e; xenstore-write {back} ''");
        script += &format!("; xenstore-chmod {back} n0 r{domain}");
        for (key, value) in keys {
            script += &format!("; xenstore-write {back}/{key} '{value}'");
        }
        self.lab.run(&script).map(|_| ())
    }

    /// Shows the device to the guest, which owns its half.
    fn show(&self, keys: &[(&str, &str)]) -> Result<()> {
        let word = |(key, value): &(&str, &str)| format!(" {}/{key} '{value}'", self.front);
        let words: String = keys.iter().map(word).collect();
        // One command is one transaction, as from a tool stack.
        self.lab.run(&format!("xenstore-write{words}")).map(|_| ())
    }

    /// Shows it with a backend, as a tool stack does.
    fn show_with_backend(&self) -> Result<()> {
        self.show(&[
            ("backend", &self.back),
            ("backend-id", "0"),
            ("virtual-device", "51728"),
            ("state", "1"),
        ])
    }

    /// Waits until the guest has written its own state.
    fn wait_front(&self, state: &str) -> Result<()> {
        let read = format!("xenstore-read {}/state", self.front);
        let start = Instant::now();
        while start.elapsed() < SOON {
            if self.lab.run(&read)?.trim() == state {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the frontend never went to state {state}")
    }

    fn remove(&self) -> Result<()> {
        let (front, back) = (&self.front, &self.back);
        self.lab
            .run(&format!("xenstore-rm {front}; xenstore-rm {back} || true"))
            .map(|_| ())
    }
}

/// The guest names the device and the reason in time, and lives on.
fn refused(live: &Live, device: &Handmade<'_>, reason: &str) -> Result<()> {
    let start = Instant::now();
    let line = live.guest.wait_for("error xvdb: ", DEADLINE + SLACK)?;
    ensure!(line.contains(reason), "not {reason:?}: {line}");
    ensure!(start.elapsed() < DEADLINE + SLACK);
    let result = live.refused("verify disk=xvdb size=1M", "disk-not-live")?;
    let what = result.text("what").unwrap_or_default();
    ensure!(what.contains(reason), "{}", result.fields);
    device.remove()?;
    live.done("wait-disk xvdb gone")?;
    Ok(())
}

#[test]
fn backends_that_are_not_there_or_never_answer() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("deadline=5", &[GuestDisk::new(disk.name(), "xvda")])?;
        let device = Handmade::new(&scene.bench.lab, &live)?;

        // The device's directory does not say who its backend is.
        device.show(&[("state", "1"), ("virtual-device", "51728")])?;
        refused(&live, &device, "no usable `backend` key")?;

        // It names one that does not exist.
        device.show_with_backend()?;
        refused(&live, &device, "waited for offer its features")?;

        // It exists and does nothing.
        device.backend(&[("state", "1")])?;
        device.show_with_backend()?;
        refused(&live, &device, "backend is Initialising")?;

        // It offers its features, and then does nothing.
        device.backend(&[("state", "2")])?;
        device.show_with_backend()?;
        refused(&live, &device, "waited for connect")?;

        live.verify("verify disk=xvda size=4M", disk.file())?;
        live.off()?;
        scene.finish()
    })
}

#[test]
fn backends_that_make_no_sense() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let disk = scene.bench.disk(512)?;
        let live = scene.boot("deadline=5", &[GuestDisk::new(disk.name(), "xvda")])?;
        let device = Handmade::new(&scene.bench.lab, &live)?;
        let sane = [("sectors", "2048"), ("sector-size", "512"), ("info", "0")];
        for (key, value, reason) in [
            ("sectors", "0", "the disk has no blocks"),
            ("sectors", "many", "not a number"),
            ("sectors", "36893488147419103232", "not a number"),
            ("sector-size", "0", "sector-size"),
            ("sector-size", "513", "not a power of two"),
            ("sector-size", "1048576", "not a power of two"),
            ("physical-sector-size", "100", "not a multiple"),
            ("feature-persistent", "2", "neither 0 nor 1"),
        ] {
            device.backend(&[("state", "2")])?;
            device.show_with_backend()?;
            device.wait_front("3")?;
            let others = sane.iter().filter(|(name, _)| *name != key);
            let mut keys: Vec<_> = others.copied().collect();
            keys.extend([(key, value), ("state", "4")]);
            device.backend(&keys)?;
            refused(&live, &device, reason).with_context(|| format!("with {key} = {value}"))?;
        }
        live.verify("verify disk=xvda size=4M", disk.file())?;
        live.off()?;
        scene.finish()
    })
}
