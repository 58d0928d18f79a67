//! Guests that the emulator broke.
//!
//! QEMU's software emulation of SVM (10.0) now and then fails where a guest's turn
//! ends or begins. Xen's dump of the triple fault that follows shows it, and our own
//! host on KVM tells it ([`Fault`]):
//!
//! - The turn ended twice: what is kept as the guest's registers are the
//!   hypervisor's own. A guest cannot have Xen's code segment and an address of
//!   Xen's image.
//! - The turn began on pages that are not the guest's: it stopped where its last
//!   turn had ended, and could not even read the gates through which it would tell of
//!   a fault. On Xen that can be anywhere in its code, as interrupts end turns, too;
//!   the dump has the address that it could not read. On KVM, where it has not, the
//!   guest stopped right behind an instruction that had ended its turn.
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
/// Instructions that end a turn on KVM: `vmmcall`, `vmcall`, `rdtsc`, `cpuid`, `wrmsr`,
/// `rdmsr`, `hlt`, `in` and `out`.
const TURN_ENDS: [&[u8]; 11] = [
    &[0x0f, 1, 0xd9],
    &[0x0f, 1, 0xc1],
    &[0x0f, 0x31],
    &[0x0f, 0xa2],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0xf4],
    &[0xec],
    &[0xed],
    &[0xee],
    &[0xef],
];
/// What a page begins with over which our Hyper-V host puts its own two bytes, an
/// `out`: the hypercall page.
const HYPERCALL_PAGE: &[u8] = &[0xb8, 2];
const PAGE: u64 = 4096;
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

    fn ends_a_turn(&self, behind: u64) -> bool {
        let called = behind % PAGE == 2 && self.ends_with(behind, &[HYPERCALL_PAGE]);
        called || self.ends_with(behind, &TURN_ENDS)
    }

    /// Whether the code in front of this place ends with one of these.
    fn ends_with(&self, behind: u64, ends: &[&[u8]]) -> bool {
        self.code.iter().any(|(start, bytes)| {
            let length = behind.checked_sub(*start);
            let length = length.and_then(|length| usize::try_from(length).ok());
            let before = length.and_then(|length| bytes.get(..length));
            before.is_some_and(|before| ends.iter().any(|end| before.ends_with(end)))
        })
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

/// How our Hyper-V host saw a guest end that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The registers were the hypervisor's own.
    Lost,
    /// The processor shut down before it carried out the instruction there. The
    /// address of the fault is not known any more.
    ShutDown(u64),
}

impl Fault {
    /// Whether it is the emulator's, of a guest that runs this image. A guest that can
    /// read its gates would have told of a fault.
    pub(crate) fn is_emulators(self, image: &Image) -> bool {
        match self {
            Self::Lost => true,
            Self::ShutDown(at) => image.ends_a_turn(at),
        }
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
pub(crate) fn hex_behind(line: &str, mark: &str) -> Option<u64> {
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
    use super::{Fault, Image, broken_by_emulator};

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
    fn a_shutdown_behind_the_end_of_a_turn_is_the_emulators() {
        let mut image = image();
        let page = CODE + 0x1000;
        image.code.push((page - 1, vec![0xb8, 0xb8, 2, 0, 0xb8, 2]));
        image.code.push((page + 0x1000, vec![0xee, 0xf4, 0x90]));
        let ours = |at| !Fault::ShutDown(at).is_emulators(&image);
        assert!(!ours(CODE + 4) && !ours(page + 2));
        assert!(!ours(page + 0x1001) && !ours(page + 0x1002));
        assert!(ours(CODE + 3) && ours(page + 1) && ours(page + 5) && ours(page + 0x1003));
        assert!(ours(0xfff0));
        assert!(Fault::Lost.is_emulators(&Image::default()));
    }

    #[test]
    fn another_dump_is_no_triple_fault() {
        let keys = "(XEN) *** Dumping CPU0 host state: ***\n\
                    (XEN) RIP:    e008:[<ffff82d040215a6f>]\n";
        assert!(broken_by_emulator(keys, &image()).is_empty());
    }
}
