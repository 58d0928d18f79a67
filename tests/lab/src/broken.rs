//! Guests that the emulator broke.
//!
//! QEMU's software emulation of SVM (10.0) now and then fails where a guest's turn
//! ends or begins. Our own host on KVM knows such a guest itself; of one on Xen, the
//! dump of the triple fault that follows tells:
//!
//! - The turn ended twice: what is kept as the guest's registers are the
//!   hypervisor's own. A guest cannot have Xen's code segment and an address of
//!   Xen's image.
//! - The turn began on pages that are not the guest's: it stopped in its own code, where
//!   its last turn had ended, and could not even read the gates through which it would
//!   tell of a fault. Interrupts end turns, too, so that can be anywhere.
//!
//! It happens more often on a busy machine.

use std::fmt;

use anyhow::{Context, Result};
use object::elf::PF_W;
use object::{Object, ObjectSegment, SegmentFlags};
use std::path::Path;

/// A guest ended because the emulator broke it: the failure is not the guest's.
#[derive(Clone, Copy, Debug)]
pub struct BrokenGuest;

impl fmt::Display for BrokenGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the emulator broke the guest, which could do nothing (docs/lab.md)")
    }
}

impl std::error::Error for BrokenGuest {}

/// Xen's own code: its selector, and the start of its image's addresses.
const XENS_CODE: &str = "e008:[<ffff82d0";
/// A guest's own code: its selector.
const GUESTS_CODE: &str = "0008:[<";
/// Bytes of a gate, which is where a multiple of them is (Intel SDM 3A, 6.14.1).
const GATE: u64 = 16;

/// What a guest's ELF says of its memory.
#[derive(Default)]
pub struct Image {
    /// Address and bytes of what it cannot write: its code.
    code: Vec<(u64, Vec<u8>)>,
    /// First address, and the one behind the last, of what it can write.
    data: Vec<(u64, u64)>,
}

impl Image {
    /// Reads an ELF.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(elf: &Path) -> Result<Self> {
        let bytes = std::fs::read(elf).with_context(|| elf.display().to_string())?;
        let file = object::File::parse(&*bytes).with_context(|| elf.display().to_string())?;
        let (mut code, mut data) = (Vec::new(), Vec::new());
        for segment in file.segments() {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else {
                continue;
            };
            let start = segment.address();
            if p_flags.contains(PF_W) {
                data.push((start, start.saturating_add(segment.size())));
            } else {
                code.push((start, segment.data()?.to_vec()));
            }
        }
        Ok(Self { code, data })
    }

    fn is_code(&self, address: u64) -> bool {
        let offset = |start: &u64| usize::try_from(address.wrapping_sub(*start)).ok();
        let within =
            |(start, bytes): &(u64, Vec<u8>)| offset(start).is_some_and(|at| at < bytes.len());
        self.code.iter().any(within)
    }

    fn can_be_gate(&self, address: u64) -> bool {
        let within = |(start, end): &(u64, u64)| (*start..*end).contains(&address);
        address.is_multiple_of(GATE) && self.data.iter().any(within)
    }
}

/// The domains in Xen's log that the emulator broke, if all run this image.
#[must_use]
pub fn broken_by_emulator(xen_log: &str, image: &Image) -> Vec<u32> {
    let mut broken = Vec::new();
    let mut dumped = None;
    let mut stopped_at = None;
    for line in xen_log.lines() {
        if let Some(domain) = triple_fault(line) {
            dumped = Some(domain);
            stopped_at = None;
        } else if line.contains("RIP:") {
            // The dump of a triple fault follows it.
            stopped_at = hex_behind(line, GUESTS_CODE);
            if stopped_at.is_none() {
                let domain = dumped.take();
                broken.extend(domain.filter(|_| line.contains(XENS_CODE)));
            }
        } else if let Some(fault) = hex_behind(line, "cr2: ") {
            let stopped_at = stopped_at.take();
            let in_code = stopped_at.is_some_and(|at| image.is_code(at));
            let no_gate = in_code && image.can_be_gate(fault);
            broken.extend(dumped.take().filter(|_| no_gate));
        }
    }
    broken
}

/// The number behind a mark.
fn hex_behind(line: &str, mark: &str) -> Option<u64> {
    let (_, rest) = line.split_once(mark)?;
    let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
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
    use super::{Image, broken_by_emulator};

    const CODE: u64 = 0xffff_ffff_8010_0000;
    const DATA: u64 = 0xffff_ffff_8020_0000;

    fn image() -> Image {
        Image {
            code: vec![(CODE, vec![0x90, 0x0f, 1, 0xd9, 0xeb, 3])],
            data: vec![(DATA, DATA + 0x1000)],
        }
    }

    fn dump(domain: u32, code: &str, fault: u64) -> String {
        format!(
            "(XEN) HVM restore d{domain}: CPU 0\n\
             (XEN) d{domain}v0 Triple fault - invoking HVM shutdown action 1\n\
             (XEN) *** Dumping Dom{domain} vcpu#0 state: ***\n\
             (XEN) ----[ Xen-4.20.4-pre  x86_64  debug=n  Not tainted ]----\n\
             (XEN) CPU:    0\n\
             (XEN) RIP:    {code}\n\
             (XEN) RFLAGS: 0000000000000246   CONTEXT: hvm guest (d{domain}v0)\n\
             (XEN) cr3: 000000000021b000   cr2: {fault:016x}\n"
        )
    }

    fn own(at: u64) -> String {
        format!("0008:[<{at:016x}>]")
    }

    #[test]
    fn only_a_guest_in_the_hypervisors_code_was_broken() {
        let of_xen = "e008:[<ffff82d040215a6f>]";
        let log = dump(40, of_xen, 0) + &dump(41, &own(CODE), 0) + &dump(45, of_xen, 0);
        assert_eq!(broken_by_emulator(&log, &image()), [40, 45]);
    }

    #[test]
    fn a_guest_that_could_not_read_its_gates_was_broken() {
        let log = dump(1, &own(CODE + 4), DATA + 0x80)
            // Its gates are there: it did something wrong itself.
            + &dump(2, &own(CODE + 4), DATA - 0x10)
            + &dump(3, &own(CODE + 4), DATA + 0x1000)
            + &dump(4, &own(CODE + 4), DATA + 0x88)
            // It had gone astray.
            + &dump(5, &own(CODE - 1), DATA + 0x80)
            + &dump(6, &own(CODE + 6), DATA + 0x80)
            + &dump(7, &own(0), DATA + 0x80)
            + &dump(8, &own(CODE), DATA)
            + &dump(9, &own(CODE + 5), DATA + 0xff0);
        assert_eq!(broken_by_emulator(&log, &image()), [1, 8, 9]);
    }

    #[test]
    fn another_dump_is_no_triple_fault() {
        let keys = "(XEN) *** Dumping CPU0 host state: ***\n\
                    (XEN) RIP:    e008:[<ffff82d040215a6f>]\n";
        assert!(broken_by_emulator(keys, &image()).is_empty());
    }
}
