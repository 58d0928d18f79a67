//! The machine itself: how it ends, and what it is too small or too bare for.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, Scene, again};
use firn_lab::{Cache, Exit, GuestSpec, Host};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_host_sees_how_a_guest_ends() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        for (job, exit) in [
            ("poweroff", Exit::PowerOff),
            ("reboot", Exit::Reboot),
            ("crash", Exit::Crash),
        ] {
            let live = scene.start("", job, &[])?;
            live.result(SOON)?.into_ok()?;
            let seen = live.guest.wait_exit(SOON)?;
            ensure!(seen == exit, "{job}: {seen:?}");
        }
        scene.finish()
    })
}

#[test]
fn too_little_memory_is_said_and_ends_as_a_crash() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::new(Host::Xen)?;
        let spec = GuestSpec::new("small", Bench::elf()).with_memory(8);
        let live = scene.start_spec(&spec)?;
        let exit = live.guest.wait_exit(SOON)?;
        ensure!(exit == Exit::Crash, "{exit:?}");
        let mark = format!("(d{}) ", live.guest.domain().context("no domain")?);
        let log = scene.bench.lab.xen_log();
        let said: Vec<_> = log.lines().filter(|line| line.contains(&mark)).collect();
        ensure!(
            said.iter().any(|line| line.contains("too little memory")),
            "{}",
            said.join("\n")
        );
        scene.finish()
    })
}

/// The question at the end of every scenario has teeth.
#[test]
fn a_complaint_of_dom0_is_noticed() -> Result<()> {
    again(Host::Xen, || {
        let scene = Scene::alone(Host::Xen)?;
        let lab = &scene.bench.lab;
        lab.run("echo '<4>xen-blkback: odd' >/dev/kmsg")?;
        let error = scene.finish().unwrap_err().to_string();
        ensure!(error.contains("xen-blkback: odd"), "{error}");
        Scene::alone(Host::Xen)?.finish()
    })
}

/// Plain QEMU starts the ELF just as well, with a hypervisor that firn does
/// not know or with none: there is nothing to work with, and it says so.
#[test]
fn a_machine_without_xen_is_named() -> Result<()> {
    again(Host::Xen, || {
        for (cpu, reason) in [
            ("qemu64", "unknown hypervisor"),
            ("qemu64,-hypervisor", "no hypervisor"),
        ] {
            let said = said_on_plain_qemu(cpu)?;
            ensure!(said.contains(reason), "{cpu}: it said:\n{said}");
            ensure!(said.contains("start it by `xl create`"), "it said:\n{said}");
            ensure!(said.contains("firn: halted (Crash)"), "it said:\n{said}");
        }
        Ok(())
    })
}

/// Everything on port 0xE9 until the machine halts.
fn said_on_plain_qemu(cpu: &str) -> Result<String> {
    let packages = &Bench::shared(Host::Xen)?.images.packages;
    let folder = Cache::open()?.run_folder()?;
    let console = folder.path("console");
    let mut argv = packages.command("usr/bin/qemu-system-x86_64", "qemu-system-x86_64");
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        add("-L", packages.path(data).display().to_string());
    }
    let early = format!("file,id=early,path={}", console.display());
    for (flag, value) in [
        ("-accel", "tcg"),
        ("-machine", "q35"),
        ("-m", "64"),
        ("-display", "none"),
        ("-chardev", &early),
        ("-device", "isa-debugcon,iobase=0xe9,chardev=early"),
        ("-append", "-- disks"),
        ("-cpu", cpu),
    ] {
        add(flag, value.to_owned());
    }
    add("-kernel", Bench::elf().display().to_string());
    argv.push("-nodefaults".into());
    let mut qemu = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(&console).unwrap_or_default();
        if said.contains("firn: halted") || start.elapsed() > SOON {
            break said;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    qemu.kill()?;
    qemu.wait()?;
    Ok(said)
}
