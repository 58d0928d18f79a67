//! VMBus as QEMU does it, in the lab's KVM host: code that nobody here wrote. It has
//! no disks, so what is shown is contact, channels, and that nothing is lost by them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firn_boot_tests::{Bench, again};
use firn_lab::{Host, Lab};

const KERNEL: &str = "/tmp/firn.elf";
/// One device of QEMU's uses VMBus: a balloon.
const QEMU: &str = "qemu-system-x86_64 -M q35 -accel kvm \
    -cpu host,kvm=off,hv-relaxed,hv-vpindex,hv-time,hv-runtime,hv-synic,hv-stimer,hv-frequencies,hv-crash \
    -m 128 -nodefaults -display none -no-reboot -serial stdio \
    -device vmbus-bridge -device hv-balloon -kernel";

/// Runs `jobs` in a guest; what it said on its serial line.
fn guest(lab: &Lab, jobs: &str) -> Result<String> {
    let cmdline = format!("log=debug -- {jobs}");
    let mut argv: Vec<&str> = QEMU.split_whitespace().collect();
    argv.extend([KERNEL, "-append", &cmdline]);
    let output = lab.exec(&argv, Duration::from_secs(240))?;
    ensure!(output.code == Some(0), "QEMU: {output:#?}");
    Ok(output.stdout)
}

#[test]
fn contact_channels_and_unload_a_hundred_times() -> Result<()> {
    again(Host::Kvm, || {
        let lab = &Bench::shared(Host::Kvm)?.lab;
        lab.put_file(KERNEL, 0o644, &Bench::elf())?;
        let text = guest(lab, "vmbus times=100; poweroff")?;
        let result = text
            .lines()
            .find_map(|line| line.strip_prefix("firn-result "));
        let result = result.with_context(|| format!("no result in:\n{text}"))?;
        let result: serde_json::Value = serde_json::from_str(result.trim())?;
        ensure!(result["ok"] == true, "{result}");
        // Newer versions were refused.
        ensure!(result["version"] == "4.0", "{result}");
        ensure!(result["opened"].as_u64() >= Some(100), "{result}");
        for what in ["gpadls", "channels", "pages", "bytes"] {
            ensure!(result[format!("leaked_{what}")] == 0, "{result}");
        }
        Ok(())
    })
}
