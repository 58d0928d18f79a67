//! This very machine as the KVM host: where it has KVM and the rights to use
//! it, guests on QEMU's Xen emulation need no emulated machine around them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::agent_binary;
use crate::cache::RunFolder;
use crate::images::Images;
use crate::machine::{DiskSpec, Machine, firmware};
use crate::qemu_xen::{ACCEL, Qemu};

const KVM: &str = "/dev/kvm";

/// Finds out whether QEMU can emulate Xen on this machine's KVM.
pub(crate) fn probe(images: &Images) -> Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open(KVM)
        .context(KVM)?;
    let mut argv = program(images);
    argv.extend(["-M", "q35", "-accel", ACCEL, "-nodefaults", "-S"].map(str::to_owned));
    argv.extend(["-display", "none", "-monitor", "stdio"].map(str::to_owned));
    let output = cmd(&argv[0], &argv[1..])
        .stdin_bytes("quit\n")
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = said.lines().next().unwrap_or_default();
        bail!("{KVM} does not do for Xen emulation: {why}");
    }
    Ok(())
}

/// Starts an agent here, at the end of a socket.
pub(crate) fn start(run: &RunFolder) -> Result<(Machine, UnixStream)> {
    let agent = run.path("firn-lab-agent");
    fs::write(&agent, agent_binary::build()?)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    let (ours, theirs) = UnixStream::pair()?;
    let errors = run.path("agent.log");
    let child = Command::new(&agent)
        .arg("--stdin")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(File::create(&errors)?)
        .spawn()
        .with_context(|| format!("cannot start {}", agent.display()))?;
    let machine = Machine {
        child,
        log: run.path(EARLY),
        errors,
    };
    Ok((machine, ours))
}

/// What guests write to port 0xE9.
const EARLY: &str = "early.log";

/// How guests are started here: disks are the files themselves.
pub(crate) fn qemu(images: &Images, run: &RunFolder, disks: &[DiskSpec]) -> Qemu {
    let named = |disk: &DiskSpec| {
        let file = disk.file.to_string_lossy().into_owned();
        (format!("/dev/firn/{}", disk.name), file)
    };
    Qemu {
        program: program(images),
        early: run.path(EARLY).to_string_lossy().into_owned(),
        disks: disks.iter().map(named).collect(),
    }
}

fn program(images: &Images) -> Vec<String> {
    let qemu = "qemu-system-x86_64";
    let mut argv = images.packages.command(&format!("usr/bin/{qemu}"), qemu);
    argv.extend(firmware(images));
    argv
}
