//! Guests that the emulator broke.
//!
//! QEMU's software emulation of SVM (10.0) now and then ends a guest's turn
//! twice: what it then keeps as the guest's registers are the hypervisor's own.
//! The guest's next turn begins in the hypervisor's code with the guest's page
//! tables, and ends in a triple fault. Xen's dump shows it beyond doubt: a
//! guest cannot have Xen's code segment and an address of Xen's image. It
//! happens more often on a busy machine.

/// Xen's own code: its selector, and the start of its image's addresses.
const XENS_CODE: &str = "e008:[<ffff82d0";

/// The domains in Xen's log that the emulator broke.
#[must_use]
pub fn broken_by_emulator(xen_log: &str) -> Vec<u32> {
    let mut broken = Vec::new();
    let mut dumped = None;
    for line in xen_log.lines() {
        if let Some(domain) = triple_fault(line) {
            dumped = Some(domain);
        } else if line.contains("RIP:") {
            // The dump of a triple fault follows it.
            let domain = dumped.take();
            broken.extend(domain.filter(|_| line.contains(XENS_CODE)));
        }
    }
    broken
}

/// `(XEN) d45v0 Triple fault - invoking HVM shutdown action 1`: 45.
fn triple_fault(line: &str) -> Option<u32> {
    let (head, _) = line.split_once(" Triple fault")?;
    let (_, vcpu) = head.rsplit_once(' ')?;
    let (domain, _) = vcpu.strip_prefix('d')?.split_once('v')?;
    domain.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::broken_by_emulator;

    fn dump(domain: u32, code: &str) -> String {
        format!(
            "(XEN) HVM restore d{domain}: CPU 0\n\
             (XEN) d{domain}v0 Triple fault - invoking HVM shutdown action 1\n\
             (XEN) *** Dumping Dom{domain} vcpu#0 state: ***\n\
             (XEN) ----[ Xen-4.20.4-pre  x86_64  debug=n  Not tainted ]----\n\
             (XEN) CPU:    0\n\
             (XEN) RIP:    {code}\n\
             (XEN) RFLAGS: 0000000000000246   CONTEXT: hvm guest (d{domain}v0)\n"
        )
    }

    #[test]
    fn only_a_guest_in_the_hypervisors_code_was_broken() {
        let of_xen = "e008:[<ffff82d040215a6f>]";
        let own = "0008:[<ffffffff80128678>]";
        let log = dump(40, of_xen) + &dump(41, own) + &dump(45, of_xen);
        assert_eq!(broken_by_emulator(&log), [40, 45]);
    }

    #[test]
    fn another_dump_is_no_triple_fault() {
        let keys =
            "(XEN) *** Dumping CPU0 host state: ***\n(XEN) RIP:    e008:[<ffff82d040215a6f>]\n";
        assert!(broken_by_emulator(keys).is_empty());
    }
}
