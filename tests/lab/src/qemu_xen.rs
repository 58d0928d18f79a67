//! Guests under QEMU's own emulation of Xen on KVM.

use crate::guest::{Exit, Files, GuestSpec};

/// QEMU's command line for the guest; its console is standard input and output.
pub(crate) fn command_line(spec: &GuestSpec, files: &Files) -> Vec<String> {
    let mut argv: Vec<String> = [
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-cpu",
        "host,+xen-vapic",
        "-accel",
        "kvm,xen-version=0x40011,kernel-irqchip=split",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-chardev",
        "stdio,id=console,signal=off",
        "-device",
        "xen-console,chardev=console",
        "-chardev",
        "file,id=early,path=/dev/console",
        "-device",
        "isa-debugcon,iobase=0xe9,chardev=early",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    add("-m", spec.memory.to_string());
    add("-smp", spec.vcpus.to_string());
    add("-kernel", files.kernel.clone());
    add("-append", spec.cmdline.clone());
    if let Some(ramdisk) = &files.ramdisk {
        add("-initrd", ramdisk.clone());
    }
    for (number, disk) in spec.disks.iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let discard = if disk.discard { "unmap" } else { "ignore" };
        add(
            "-drive",
            format!(
                "if=none,id=d{number},format=raw,cache=none,readonly={read_only},\
                 discard={discard},file={}",
                disk.source
            ),
        );
        add(
            "-device",
            format!("xen-disk,drive=d{number},vdev={}", disk.vdev),
        );
    }
    argv
}

/// Reads how QEMU ended.
pub(crate) fn exit(said: &str) -> Exit {
    match said {
        "exit code 0" => Exit::PowerOff,
        _ => Exit::Other(said.into()),
    }
}
