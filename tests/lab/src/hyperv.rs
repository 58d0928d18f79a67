//! Guests of `firn-hyperv-host`, our own Hyper-V host on KVM.

use crate::cache::sha256;
use crate::guest::{Exit, Files, GuestSpec};
use crate::monitor::Monitor;

/// What the monitor says of a guest that broke a rule.
const COMPLAINT: &str = "hyperv-host: complaint: ";

/// How the monitor ends when the emulator below KVM lost a guest's processor.
const LOST: &str = "exit code 15";

/// The monitor's command line for the guest; its console is standard input and
/// output. A disk's letter is its unit; its name belongs to the disk, not to its
/// place.
pub(crate) fn command_line(monitor: &Monitor, spec: &GuestSpec, files: &Files) -> Vec<String> {
    let mut argv = monitor.program.clone();
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    if spec.medium {
        add("--media", files.kernel.clone());
    } else {
        add("--kernel", files.kernel.clone());
        add("--cmdline", spec.cmdline.clone());
    }
    add("--memory", spec.memory.to_string());
    add("--early", monitor.early.clone());
    if let Some(ramdisk) = &files.ramdisk {
        add("--initrd", ramdisk.clone());
    }
    for disk in &spec.disks {
        let letter = disk.vdev.bytes().last().unwrap_or(b'a');
        let unit = letter.saturating_sub(b'a');
        let name = &sha256([disk.source.as_bytes()])[..15];
        let read_only = if disk.read_only { ",ro" } else { "" };
        let file = monitor.file(&disk.source);
        add(
            "--disk",
            format!("{file},lun={unit},naa=6{name}{read_only}"),
        );
    }
    argv.extend(spec.extra.iter().cloned());
    argv
}

/// Reads how the monitor ended; a guest that broke a rule has not ended well.
pub(crate) fn exit(said: &str, console: &str) -> Exit {
    let complaints: Vec<&str> = console
        .lines()
        .filter_map(|line| line.strip_prefix(COMPLAINT))
        .collect();
    match said {
        "exit code 11" => Exit::Crash,
        _ if !complaints.is_empty() => {
            Exit::Other(format!("the host complains: {}", complaints.join("; ")))
        }
        "exit code 0" => Exit::PowerOff,
        "exit code 10" => Exit::Reboot,
        _ => Exit::Other(last_words(console).unwrap_or(said).into()),
    }
}

/// What the monitor said last; the guest may have been in the middle of a line.
fn last_words(console: &str) -> Option<&str> {
    let (_, words) = console.rsplit_once("hyperv-host: ")?;
    words.lines().next()
}

/// Whether the emulator lost the guest's processor, by how the monitor ended.
pub(crate) fn is_lost(said: &str) -> bool {
    said == LOST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestDisk;
    use crate::machine::Host;

    #[test]
    fn a_disk_has_its_letter_as_unit_and_keeps_its_name() {
        let line = |vdev: &str| {
            let spec = GuestSpec::new("g", "k").with_disk(GuestDisk::new("d0", vdev).read_only());
            let files = Files {
                name: "g-1".into(),
                kernel: "/tmp/k".into(),
                ramdisk: None,
            };
            command_line(&Monitor::in_lab(Host::HyperV), &spec, &files).join(" ")
        };
        let (first, third) = (line("sda"), line("xvdc"));
        assert!(first.contains("--disk /dev/firn/d0,lun=0,naa=6"), "{first}");
        assert!(first.ends_with(",ro"));
        assert_eq!(first.replace("lun=0", "lun=2"), third);
    }

    #[test]
    fn a_guest_that_broke_a_rule_has_not_ended_well() {
        let off = "hyperv-host: the guest switched itself off\n";
        assert_eq!(exit("exit code 0", off), Exit::PowerOff);
        assert_eq!(exit("exit code 10", ""), Exit::Reboot);
        assert_eq!(exit("exit code 11", ""), Exit::Crash);
        let complaint = format!("hyperv-host: complaint: unload twice\n{off}");
        let complained = exit("exit code 0", &complaint);
        assert_eq!(
            complained,
            Exit::Other("the host complains: unload twice".into())
        );
        let stuck = exit("exit code 13", "x\nhyperv-host: y\nzhyperv-host: goes on\n");
        assert_eq!(stuck, Exit::Other("goes on".into()));
        assert_eq!(exit("signal 9", "x\n"), Exit::Other("signal 9".into()));
    }

    #[test]
    fn a_lost_processor_is_told_from_other_ends() {
        assert!(is_lost("exit code 15"));
        for other in ["exit code 0", "exit code 12", "exit code 13", "signal 15"] {
            assert!(!is_lost(other), "{other}");
        }
    }
}
