//! Guests under Xen's own tool stack.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::client::Client;
use crate::guest::{Exit, Files, GuestDisk, GuestSpec};
use crate::lab::Lab;
use crate::transcript::tail;

/// Creates and starts the guest.
pub(crate) fn create(lab: &Lab, spec: &GuestSpec, files: &Files) -> Result<()> {
    let path = format!("/tmp/{}.cfg", files.name);
    lab.put(
        &path,
        0o644,
        config(
            spec,
            &files.name,
            &files.kernel,
            files.ramdisk.as_deref(),
            LAB_SCRIPT,
        )
        .as_bytes(),
    )?;
    let mut argv = vec!["xl", "create", &path];
    if spec.paused {
        argv.push("-p");
    }
    let output = lab.exec(&argv, Duration::from_secs(60))?;
    if output.code != Some(0) {
        bail!(
            "xl create ended with {:?}:\n{}{}\n--- the end of Xen's log:\n{}",
            output.code,
            output.stdout,
            output.stderr,
            tail(&lab.xen_log(), 15)
        );
    }
    Ok(())
}

/// The terminal that the domain's console is on.
pub(crate) fn console_tty(client: &Client, domain: u32) -> Result<String> {
    let key = format!("/local/domain/{domain}/console/tty");
    let output = client.exec(&["xenstore-read", &key], Duration::from_secs(20))?;
    if output.code != Some(0) {
        bail!("domain {domain} has no console; is it gone?");
    }
    Ok(output.stdout.trim().to_owned())
}

/// Reads the domain id from `xl`'s line about the domain that it watches.
pub(crate) fn domain(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("(domid ")?;
    rest.split(')').next()?.parse().ok()
}

/// Tells blkback which device to serve without udev and losetup.
const LAB_SCRIPT: &str = "script=block-lab,";

/// The `xl` config file of a guest for a Xen host of one's own; `kernel` is
/// its path there, and disk sources are paths there.
#[must_use]
pub fn xl_config(spec: &GuestSpec, kernel: &str) -> String {
    config(spec, &spec.name, kernel, None, "")
}

fn config(
    spec: &GuestSpec,
    name: &str,
    kernel: &str,
    ramdisk: Option<&str>,
    script: &str,
) -> String {
    let mut text = format!(
        "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"{kernel}\"\nmemory = {}\nvcpus = {}\n\
         on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n",
        spec.memory, spec.vcpus
    );
    if !script.is_empty() {
        // The emulator breaks guests whose reading of the clock is intercepted.
        let _ = writeln!(text, "tsc_mode = \"native\"");
    }
    if let Some(ramdisk) = ramdisk {
        let _ = writeln!(text, "ramdisk = \"{ramdisk}\"");
    }
    let _ = writeln!(text, "cmdline = {}", quoted(&spec.cmdline));
    let quote = |disk| format!("\"{}\"", disk_words(disk, script));
    let disks: Vec<_> = spec.disks.iter().map(quote).collect();
    let _ = writeln!(text, "disk = [ {} ]", disks.join(", "));
    for line in &spec.extra {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// A disk of the lab in the words of `xl block-attach`.
pub(crate) fn disk(disk: &GuestDisk) -> String {
    disk_words(disk, LAB_SCRIPT)
}

fn disk_words(disk: &GuestDisk, script: &str) -> String {
    let access = if disk.read_only { "ro" } else { "rw" };
    let discard = if disk.discard {
        "discard"
    } else {
        "no-discard"
    };
    format!(
        "format=raw,vdev={},access={access},{discard},{script}target={}",
        disk.vdev, disk.source
    )
}

/// A string as `xl` reads it: it knows both quotes and no escapes worth using.
fn quoted(text: &str) -> String {
    let quote = if text.contains('"') { '\'' } else { '"' };
    format!("{quote}{text}{quote}")
}

/// Reads `xl`'s line about a domain's end.
pub(crate) fn exit(line: &str) -> Exit {
    let code = line
        .split("reason code ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    match code {
        Some("0") => Exit::PowerOff,
        Some("1") => Exit::Reboot,
        Some("3") => Exit::Crash,
        _ => Exit::Other(line.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_everything() {
        let spec = GuestSpec::new("g", "k")
            .with_cmdline("a -- read disk=\"x\"")
            .with_disk(GuestDisk::new("d0", "xvda"))
            .with_disk(
                GuestDisk::new("/dev/nullb0", "xvdb")
                    .read_only()
                    .without_discard(),
            );
        let text = config(&spec, "g-1", "/tmp/k", Some("/tmp/r"), LAB_SCRIPT);
        for part in [
            "name = \"g-1\"",
            "kernel = \"/tmp/k\"",
            "ramdisk = \"/tmp/r\"",
            "cmdline = 'a -- read disk=\"x\"'",
            "\"format=raw,vdev=xvda,access=rw,discard,script=block-lab,target=/dev/firn/d0\"",
            "tsc_mode = \"native\"",
            "vdev=xvdb,access=ro,no-discard,script=block-lab,target=/dev/nullb0",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let own = xl_config(&spec, "/k");
        assert!(!own.contains("block-lab") && !own.contains("tsc_mode"));
    }

    #[test]
    fn the_domain_id_is_read() {
        let line = "Waiting for domain g-1 (domid 17) to die [pid 204]";
        assert_eq!(domain(line), Some(17));
        assert_eq!(domain("Domain 17 has shut down"), None);
    }

    #[test]
    fn the_reason_of_an_end_is_read() {
        let line = |code| format!("Domain 3 has shut down, reason code {code} 0x{code}");
        assert_eq!(exit(&line(0)), Exit::PowerOff);
        assert_eq!(exit(&line(3)), Exit::Crash);
        assert_eq!(exit(&line(4)), Exit::Other(line(4)));
    }
}
