//! Guests under QEMU's own emulation of Xen on KVM.

use crate::guest::{Exit, Files, GuestSpec};
use crate::monitor::Monitor;

/// Event channels need the split interrupt controller.
pub(crate) const ACCEL: &str = "kvm,xen-version=0x40011,kernel-irqchip=split";

/// QEMU's command line for the guest; its console is standard input and output.
pub(crate) fn command_line(qemu: &Monitor, spec: &GuestSpec, files: &Files) -> Vec<String> {
    let fixed = [
        "-M",
        "q35",
        "-cpu",
        "host,+xen-vapic",
        "-accel",
        ACCEL,
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-chardev",
        "stdio,id=console,signal=off",
        "-device",
        "xen-console,chardev=console",
        "-device",
        "isa-debugcon,iobase=0xe9,chardev=early",
    ];
    let mut argv = qemu.program.clone();
    argv.extend(fixed.map(str::to_owned));
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    add(
        "-chardev",
        format!("file,id=early,append=on,path={}", qemu.early),
    );
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
                qemu.file(&disk.source)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestDisk;
    use crate::machine::Host;

    #[test]
    fn a_disk_is_found_where_the_host_has_it() {
        let spec = GuestSpec::new("g", "k")
            .with_disk(GuestDisk::new("d0", "xvda").read_only())
            .with_disk(GuestDisk::new("/dev/nullb0", "xvdb"));
        let files = Files {
            name: "g-1".into(),
            kernel: "/tmp/k".into(),
            ramdisk: None,
        };
        let mut qemu = Monitor::in_lab(Host::Kvm);
        let line = |qemu: &Monitor| command_line(qemu, &spec, &files).join(" ");
        assert!(line(&qemu).contains("readonly=on,discard=unmap,file=/dev/firn/d0"));
        qemu.disks = vec![("/dev/firn/d0".into(), "/x/d0.img".into())];
        assert!(line(&qemu).contains("file=/x/d0.img"));
        assert!(line(&qemu).contains("file=/dev/nullb0"));
        assert!(line(&qemu).contains("xen-disk,drive=d1,vdev=xvdb"));
    }
}
