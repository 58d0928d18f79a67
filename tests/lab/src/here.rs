//! This very machine as the KVM host: where it has KVM and the rights to use
//! it, guests on QEMU's Xen emulation and on our own Hyper-V host need no emulated
//! machine around them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::cache::RunFolder;
use crate::images::Images;
use crate::machine::{DiskSpec, Host, LabConfig, Machine, firmware};
use crate::monitor::Monitor;
use crate::programs::{self, AGENT, MONITOR};
use crate::qemu_xen::ACCEL;

const KVM: &str = "/dev/kvm";

/// How guests are started here, if this machine's KVM does for that: disks are the
/// files themselves.
pub(crate) fn monitor(images: &Images, run: &RunFolder, config: &LabConfig) -> Result<Monitor> {
    reach(Path::new(KVM))?;
    let program = match config.host {
        Host::HyperV => hyperv(run)?,
        _ => qemu(images)?,
    };
    Ok(with(program, run, config))
}

/// How guests are started with openvmm.
pub(crate) fn openvmm(
    program: &Path,
    kvm: &Path,
    run: &RunFolder,
    config: &LabConfig,
) -> Result<Monitor> {
    let program = fs::canonicalize(program)
        .with_context(|| format!("openvmm's program, {}", program.display()))?;
    reach(kvm).context("openvmm needs a machine with KVM, and the right to use it")?;
    let program = program.to_string_lossy().into_owned();
    Ok(with(vec![program], run, config))
}

fn with(program: Vec<String>, run: &RunFolder, config: &LabConfig) -> Monitor {
    let named = |disk: &DiskSpec| {
        let file = disk.file.to_string_lossy().into_owned();
        (format!("/dev/firn/{}", disk.name), file)
    };
    Monitor {
        program,
        early: run.path(EARLY).to_string_lossy().into_owned(),
        disks: config.disks.iter().map(named).collect(),
    }
}

/// Whether we may use KVM.
fn reach(kvm: &Path) -> Result<File> {
    let kvm_file = File::options().read(true).write(true).open(kvm);
    kvm_file.with_context(|| kvm.display().to_string())
}

/// Asks a program that ends by itself; its first line, if it ends badly.
fn ask(argv: &[String], typed: &'static str) -> Result<()> {
    let output = cmd(&argv[0], &argv[1..])
        .stdin_bytes(typed)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = said.lines().next().unwrap_or_default();
        bail!("{KVM} does not do: {why}");
    }
    Ok(())
}

/// Whether QEMU can emulate Xen on this machine's KVM.
fn qemu(images: &Images) -> Result<Vec<String>> {
    let program = qemu_program(images);
    let mut argv = program.clone();
    argv.extend(["-M", "q35", "-accel", ACCEL, "-nodefaults", "-S"].map(str::to_owned));
    argv.extend(["-display", "none", "-monitor", "stdio"].map(str::to_owned));
    ask(&argv, "quit\n")?;
    Ok(program)
}

/// Whether our own monitor can run on it.
fn hyperv(run: &RunFolder) -> Result<Vec<String>> {
    let program = install(run, MONITOR)?;
    ask(&[program.clone(), "--probe".into()], "")?;
    Ok(vec![program])
}

/// Builds a program of ours into the run's folder.
fn install(run: &RunFolder, name: &str) -> Result<String> {
    let path = run.path(name);
    fs::write(&path, programs::build(name)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Starts an agent here, at the end of a socket.
pub(crate) fn start(run: &RunFolder) -> Result<(Machine, UnixStream)> {
    let agent = install(run, AGENT)?;
    let (ours, theirs) = UnixStream::pair()?;
    let errors = run.path("agent.log");
    let child = Command::new(&agent)
        .arg("--stdin")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(File::create(&errors)?)
        .spawn()
        .with_context(|| format!("cannot start {agent}"))?;
    let machine = Machine {
        child,
        log: run.path(EARLY),
        errors,
    };
    Ok((machine, ours))
}

/// What guests write to port 0xE9, or what openvmm says.
const EARLY: &str = "early.log";

/// QEMU as the packages have it.
fn qemu_program(images: &Images) -> Vec<String> {
    let qemu = "qemu-system-x86_64";
    let mut argv = images.packages.command(&format!("usr/bin/{qemu}"), qemu);
    argv.extend(firmware(images));
    argv
}
