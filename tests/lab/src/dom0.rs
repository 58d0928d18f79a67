//! What a test does from dom0: to guests, to their disks, and to the devices
//! that serve them. And what dom0 and Xen had to complain about.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::complaints;
use crate::guest::{Guest, GuestDisk};
use crate::lab::Lab;
use crate::xl;

/// Longer than the tool stack's own patience with a guest (10 s).
const XL: Duration = Duration::from_secs(60);

impl Guest {
    /// Stops its vCPUs.
    ///
    /// # Errors
    /// What `xl` says; or the guest is not on Xen.
    pub fn pause(&self) -> Result<()> {
        self.xl(&["pause"], &[])
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    /// As [`Guest::pause`].
    pub fn unpause(&self) -> Result<()> {
        self.xl(&["unpause"], &[])
    }

    /// Gives it one more disk while it runs.
    ///
    /// # Errors
    /// As [`Guest::pause`].
    pub fn attach(&self, disk: &GuestDisk) -> Result<()> {
        self.xl(&["block-attach"], &[&xl::disk(disk)])
    }

    /// Takes a disk from it while it runs; the guest is asked to let go.
    ///
    /// # Errors
    /// As [`Guest::pause`]; also when the guest does not let go in time.
    pub fn detach(&self, vdev: &str) -> Result<()> {
        self.xl(&["block-detach"], &[vdev])
    }

    fn xl(&self, command: &[&str], words: &[&str]) -> Result<()> {
        let domain = self.domain().context("only guests on Xen have an id")?;
        let id = domain.to_string();
        let argv: Vec<_> = [&["xl"], command, &[id.as_str()], words].concat();
        let output = self.client.exec(&argv, XL)?;
        if output.code != Some(0) {
            bail!("{}: {}{}", argv.join(" "), output.stdout, output.stderr);
        }
        Ok(())
    }
}

/// A place in the logs of dom0's kernel and of Xen.
#[derive(Debug, Clone)]
pub struct LogMark {
    line: String,
    xen: usize,
}

/// From util-linux; busybox has one of the same name.
const LOSETUP: &str = "/sbin/losetup";

/// The beginning of a disk, as a disk; until it is dropped.
pub struct Part<'a> {
    lab: &'a Lab,
    device: String,
}

impl Part<'_> {
    /// Its path in the lab.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        // In use, it goes with its last user.
        let _gone = self.lab.run(&format!("{LOSETUP} -d {}", self.device));
    }
}

/// Xen's own messages that mean trouble.
const XEN_TROUBLE: [&str; 4] = ["grant_table.c", "BUG", "Assertion", "Xen WARN"];

impl Lab {
    /// Marks the end of both logs.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn mark_logs(&self) -> Result<LogMark> {
        let number = self.next_number();
        let line = format!("firn-lab: mark {number} of the log");
        self.run(&format!("echo '<6>{line}' >/dev/kmsg"))?;
        let xen = self.xen_log().len();
        Ok(LogMark { line, xen })
    }

    /// What Linux in dom0 wrote as a warning or worse since the mark, and what
    /// Xen wrote about grants or its own bugs. What is known to be nobody's
    /// fault is left out: `complaints.rs` has the list.
    ///
    /// # Errors
    /// The lab is gone, or the log has grown beyond the mark.
    pub fn complaints_since(&self, mark: &LogMark) -> Result<Vec<String>> {
        let log = self.run("dmesg -r")?;
        // After the log: whoever is in it as destroyed was noted before.
        let destroyed = self.destroyed.so_far();
        let of_linux = complaints::of_linux(&log, &mark.line, &destroyed)
            .context("dom0's kernel log has lost its beginning")?;
        let xen = self.xen_log();
        let xen = xen.get(mark.xen..).unwrap_or_default();
        let trouble = |line: &&str| XEN_TROUBLE.iter().any(|word| line.contains(word));
        let of_xen = xen.lines().filter(|l| l.contains("(XEN)")).filter(trouble);
        let of_xen = of_xen.map(str::to_owned);
        Ok(of_linux.into_iter().chain(of_xen).collect())
    }

    /// Makes a `null_blk` device in dom0 with these settings (names as in
    /// `/sys/kernel/config/nullb`); gives its path. It stays until the lab ends.
    ///
    /// # Errors
    /// The kernel refuses a setting, or has a device of that name.
    pub fn null_blk(&self, name: &str, settings: &[(&str, &str)]) -> Result<String> {
        let folder = format!("/sys/kernel/config/nullb/{name}");
        let mut script = format!(
            "set -e; modprobe null_blk nr_devices=0; \
             [ -e /sys/kernel/config/nullb ] || mount -t configfs none /sys/kernel/config; \
             mkdir {folder}; cd {folder}"
        );
        for (setting, value) in settings {
            script += &format!("; echo {value} >{setting}");
        }
        script += "; echo 1 >power";
        self.run(&script)?;
        Ok(format!("/dev/{name}"))
    }

    /// The first `bytes` of one of the lab's disks, as a disk of its own: what
    /// the guest sees is then as large as one likes. Nothing of it is cached in
    /// dom0.
    ///
    /// # Errors
    /// There is no such disk, or it is smaller.
    pub fn part(&self, disk: &str, bytes: u64) -> Result<Part<'_>> {
        let device = self.run(&format!(
            "modprobe loop && {LOSETUP} --find --show --direct-io=on --sizelimit {bytes} /dev/firn/{disk}"
        ))?;
        let device = device.trim().to_owned();
        Ok(Part { lab: self, device })
    }

    /// Loads dom0's block backend anew with these parameters, such as
    /// `max_ring_page_order=0`. No guest may have a disk meanwhile.
    ///
    /// # Errors
    /// It is in use, or has no such parameter.
    pub fn reload_blkback(&self, parameters: &str) -> Result<()> {
        let load = format!("rmmod xen_blkback && modprobe xen-blkback {parameters}");
        self.run(&load).map(|_| ())
    }
}
