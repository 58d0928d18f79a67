//! What Linux traced of a processor that shut down. On AMD's processors KVM has reset
//! it before anybody can ask where it was; the lab's KVM host traces that.

use std::fs;

/// The place at which this thread's processor shut down last; `None` where that is not
/// traced.
pub(crate) fn shut_down_at() -> Option<u64> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    let trace = fs::read_to_string("/sys/kernel/tracing/trace").ok()?;
    last_shutdown(&trace, thread.file_name()?.to_str()?)
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
}
