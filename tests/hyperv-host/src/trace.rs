//! What Linux traced of a processor that shut down. On AMD's processors KVM has reset
//! it before anybody can ask where it was; the lab's KVM host traces that.

use std::fs;

/// Whether a place is KVM's own code, and the place at which this thread's processor
/// shut down last; `None` where that is not traced.
pub(crate) fn shut_down_at() -> Option<(bool, u64)> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    let trace = fs::read_to_string("/sys/kernel/tracing/trace").ok()?;
    let place = last_shutdown(&trace, thread.file_name()?.to_str()?)?;
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    Some((is_kvms_own(&modules, place), place))
}

/// `guest-81 [000] d..1. 9.2: kvm_exit: vcpu 0 reason shutdown rip 0x100001 info1 ...`
fn last_shutdown(trace: &str, thread: &str) -> Option<u64> {
    let mark = format!("-{thread} ");
    let own = trace.lines().rev().filter(|line| line.contains(&mark));
    let places = own.filter_map(|line| line.split_once(" reason shutdown rip 0x"));
    places
        .filter_map(|(_, rest)| hex(rest.split(' ').next()?))
        .next()
}

/// `kvm_amd 217088 1 - Live 0xffffffffc0494000`
fn is_kvms_own(modules: &str, place: u64) -> bool {
    let holds = |line: &str| {
        let mut words = line.split(' ');
        let _kvm = words.next().filter(|name| name.starts_with("kvm"))?;
        let size: u64 = words.next()?.parse().ok()?;
        let start = hex(words.find_map(|word| word.strip_prefix("0x"))?)?;
        Some((start..start.saturating_add(size)).contains(&place))
    };
    modules.lines().any(|line| holds(line) == Some(true))
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_shutdown_of_the_thread_counts() {
        let line = |thread, reason, rip: u64| {
            format!(
                "           guest-{thread}      [001] d..1.    13.281523: kvm_exit: \
                 vcpu 0 reason {reason} rip {rip:#x} info1 0x0000000000000000\n"
            )
        };
        let trace = line(81, "shutdown", 1)
            + &line(81, "shutdown", 0x10_0001)
            + &line(181, "shutdown", 3)
            + &line(8, "shutdown", 4)
            + &line(81, "hlt", 5);
        assert_eq!(last_shutdown(&trace, "81"), Some(0x10_0001));
        assert_eq!(last_shutdown(&trace, "82"), None);
    }

    #[test]
    fn only_kvms_modules_are_kvms_own() {
        let modules = "virtio_blk 32768 2 - Live 0xffffffffc0600000\n\
                       kvm_amd 217088 1 - Live 0xffffffffc0494000\n\
                       kvm 1200128 1 kvm_amd, Live 0xffffffffc0300000 (E)\n\
                       odd\n";
        let own = |place| is_kvms_own(modules, place);
        assert!(own(0xffff_ffff_c049_4000) && own(0xffff_ffff_c04a_e0b0));
        assert!(own(0xffff_ffff_c030_0000 + 1_200_127));
        assert!(!own(0xffff_ffff_c049_4000 + 217_088) && !own(0xffff_ffff_c060_0000));
        assert!(!own(0xffff_ffff_8010_0000));
        assert!(!is_kvms_own("", 0));
    }
}
