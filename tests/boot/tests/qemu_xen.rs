//! QEMU's own emulation of Xen, in the lab's KVM host: another hypervisor,
//! another xenstore, and a block backend with neither persistent grants nor
//! indirect requests.

use anyhow::{Result, ensure};
use firn_boot_tests::{Scene, again};
use firn_lab::{GuestDisk, Host};

#[test]
fn two_disks_on_the_xen_that_qemu_emulates() -> Result<()> {
    again(Host::Kvm, || {
        let scene = Scene::new(Host::Kvm)?;
        let (a, b) = (scene.bench.disk(512)?, scene.bench.disk(4096)?);
        let disks = [
            GuestDisk::new(a.name(), "xvda"),
            GuestDisk::new(b.name(), "xvdb"),
        ];
        let live = scene.boot("", &disks)?;
        live.check_features("xvda", "segments=11", false)?;
        live.verify_all_sizes("xvda", a.file())?;
        ensure!(live.disk("xvdb")?["bytes"] == firn_boot_tests::DISK_BYTES);
        live.verify("verify disk=xvdb size=8M bs=64k seed=4", b.file())?;
        live.off()?;
        scene.finish()
    })
}
