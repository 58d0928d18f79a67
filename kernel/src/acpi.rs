//! The little of ACPI that a guest needs to switch itself off: where the registers
//! are, and what to write (ACPI specification 6.5, chapters 4, 5 and 20).
//!
//! Nothing is interpreted: the sleep type is the constant that the definition of
//! `\_S5_` holds. What the tables say is checked as far as it is used.

use crate::bootinfo::PhysMemory;

/// How the machine is switched off and reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerControl {
    /// Off, if the tables say how.
    pub off: Option<Off>,
    /// Reset, if the tables say how: a port and a byte.
    pub reset: Option<(u16, u8)>,
}

/// How to switch the machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Off {
    /// The control register, and what to write to its type field.
    pub a: (u16, u8),
    /// The second one, if there are two.
    pub b: Option<(u16, u8)>,
    /// How ACPI is turned on, if it may be off: a port and a byte.
    pub enable: Option<(u16, u8)>,
}

/// In the control register: sleep now.
const SLEEP_NOW: u16 = 1 << 13;
/// Where the type of sleep stands in it.
const TYPE_SHIFT: u32 = 10;
/// In the control register: ACPI is on.
pub const ACPI_ON: u16 = 1;

/// What is written to a control register that reads `now`.
#[must_use]
pub const fn sleep_word(now: u16, sleep_type: u8) -> u16 {
    let kept = now & !(7 << TYPE_SHIFT);
    kept | ((sleep_type & 7) as u16) << TYPE_SHIFT | SLEEP_NOW
}

const RSDP_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
const RSDP_STEP: usize = 16;
const HEADER: usize = 36;
/// Longest table that is looked at.
const MOST_BYTES: u32 = 1 << 20;
/// Tables beyond are not mapped.
const REACH: u64 = 1 << 32;
/// Most tables that are listed.
const MOST_TABLES: u64 = 64;

/// In the flags of the FADT: there is a reset register.
const RESET_SUPPORTED: u32 = 1 << 10;
/// Address space of a register that is a port.
const PORTS: u8 = 1;

/// Reads the tables; `rsdp` is their root, if the monitor told it.
#[must_use]
pub fn power_control(rsdp: Option<u64>, memory: &impl PhysMemory) -> PowerControl {
    let tables = Tables { memory };
    let root = rsdp.filter(|at| tables.is_root(*at));
    let Some(root) = root.or_else(|| tables.find_root()) else {
        return PowerControl::default();
    };
    tables.read(root).unwrap_or_default()
}

struct Tables<'a, M> {
    memory: &'a M,
}

impl<M: PhysMemory> Tables<'_, M> {
    fn bytes<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.memory.read(at, &mut bytes).then_some(bytes)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn is_root(&self, at: u64) -> bool {
        self.bytes(at) == Some(*b"RSD PTR ")
    }

    fn find_root(&self) -> Option<u64> {
        RSDP_AREA.step_by(RSDP_STEP).find(|at| self.is_root(*at))
    }

    fn read(&self, root: u64) -> Option<PowerControl> {
        let fadt = self.table(root, b"FACP")?;
        let [.., space] = self.bytes::<5>(fadt + 112)?;
        let flags = self.u32(fadt + 112)?;
        let reset = self.u64(fadt + 120)?;
        let has_reset = flags & RESET_SUPPORTED != 0 && space == PORTS;
        let [value] = self.bytes(fadt + 128)?;
        let reset = u16::try_from(reset).ok().filter(|_| has_reset);
        Some(PowerControl {
            off: self.off(root, fadt),
            reset: reset.map(|port| (port, value)),
        })
    }

    /// How to switch off, by the FADT and the definition blocks.
    fn off(&self, root: u64, fadt: u64) -> Option<Off> {
        let a = self.port(fadt, 64, 172)?;
        let b = self.port(fadt, 68, 184);
        let dsdt = match self.long(fadt, 140) {
            None | Some(0) => u64::from(self.u32(fadt + 40)?),
            Some(at) => at % REACH,
        };
        let further = self.listed(root).filter(|at| self.is(*at, b"SSDT"));
        let mut blocks = core::iter::once(dsdt).chain(further);
        let (type_a, type_b) = blocks.find_map(|block| self.soft_off(block))?;
        let command = u16::try_from(self.u32(fadt + 48)?).ok();
        let [enable] = self.bytes(fadt + 52)?;
        Some(Off {
            a: (a, type_a),
            b: b.map(|port| (port, type_b)),
            enable: command.filter(|port| *port != 0).map(|port| (port, enable)),
        })
    }

    /// A field of the FADT that old ones do not have.
    fn long(&self, fadt: u64, offset: u64) -> Option<u64> {
        let length = u64::from(self.u32(fadt + 4)?);
        (offset + 8 <= length)
            .then(|| self.u64(fadt + offset))
            .flatten()
    }

    /// A register of the FADT that is a port: by its long form, or the short one.
    fn port(&self, fadt: u64, short: u64, long: u64) -> Option<u16> {
        let is_port = self.bytes::<1>(fadt + long) == Some([PORTS]);
        let by_long = self.long(fadt, long + 4).filter(|at| is_port && *at != 0);
        let at = match by_long {
            Some(at) => at,
            None => u64::from(self.u32(fadt + short)?),
        };
        u16::try_from(at).ok().filter(|port| *port != 0)
    }

    /// The tables that the root lists.
    fn listed(&self, root: u64) -> impl Iterator<Item = u64> {
        let revision = self.bytes::<1>(root + 15).unwrap_or_default();
        let extended = self.u64(root + 24).filter(|at| revision != [0] && *at != 0);
        let (list, width) = match extended {
            Some(at) => (at % REACH, 8),
            None => (u64::from(self.u32(root + 16).unwrap_or(0)), 4),
        };
        let length = u64::from(self.length(list).unwrap_or(0));
        let count = length.saturating_sub(HEADER as u64) / width;
        (0..count.min(MOST_TABLES)).filter_map(move |index| {
            let entry = list + HEADER as u64 + index * width;
            match width {
                8 => self.u64(entry).filter(|at| *at < REACH),
                _ => self.u32(entry).map(u64::from),
            }
        })
    }

    fn is(&self, at: u64, signature: &[u8; 4]) -> bool {
        self.bytes(at).as_ref() == Some(signature)
    }

    fn table(&self, root: u64, signature: &[u8; 4]) -> Option<u64> {
        self.listed(root).find(|at| self.is(*at, signature))
    }

    fn length(&self, table: u64) -> Option<u32> {
        self.u32(table + 4).filter(|length| *length <= MOST_BYTES)
    }

    /// The types of sleep that a definition block gives for "off": both are
    /// constants in the package that `_S5_` names.
    fn soft_off(&self, block: u64) -> Option<(u8, u8)> {
        let length = u64::from(self.length(block)?);
        let end = block + length;
        let (mut at, mut name) = (block + HEADER as u64, [0; 4]);
        while at + 4 < end {
            name.rotate_left(1);
            [name[3]] = self.bytes(at)?;
            at += 1;
            if name == *b"_S5_" {
                let body: [u8; 10] = self.bytes(at)?;
                if let Some(types) = package(&body) {
                    return Some(types);
                }
            }
        }
        None
    }
}

/// The first two constants of a package.
fn package(body: &[u8; 10]) -> Option<(u8, u8)> {
    const PACKAGE: u8 = 0x12;
    let (PACKAGE, length) = (body[0], body[1]) else {
        return None;
    };
    // The two upper bits say how many more bytes the length has, then comes the
    // number of elements.
    let elements = 2 + usize::from(length >> 6) + 1;
    let (first, after) = constant(body.get(elements..)?)?;
    let (second, _) = constant(body.get(elements + after..)?).unwrap_or((first, 0));
    Some((first, second))
}

/// A constant of one byte at most, and how many bytes its term has.
fn constant(term: &[u8]) -> Option<(u8, usize)> {
    const ZERO: u8 = 0;
    const ONE: u8 = 1;
    const BYTE: u8 = 0x0a;
    match *term {
        [ZERO, ..] => Some((0, 1)),
        [ONE, ..] => Some((1, 1)),
        [BYTE, value, ..] => Some((value, 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Physical memory from 0xe0000 on.
    struct Low(Vec<u8>);

    const BASE: u64 = 0xe_0000;

    impl PhysMemory for Low {
        fn read(&self, addr: u64, into: &mut [u8]) -> bool {
            let at = usize::try_from(addr.wrapping_sub(BASE)).unwrap_or(usize::MAX);
            let found = self.0.get(at..).and_then(|rest| rest.get(..into.len()));
            found.is_some_and(|bytes| {
                into.copy_from_slice(bytes);
                true
            })
        }
    }

    impl Low {
        fn put(&mut self, at: u64, bytes: &[u8]) {
            let at = (at - BASE) as usize;
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Tables as a small monitor writes them; `extended` for those of ACPI 2.
    fn machine(extended: bool, s5: &[u8]) -> Low {
        let mut low = Low(vec![0; 0x1_0000]);
        let (root, list, fadt, dsdt) = (BASE + 0x20, BASE + 0x100, BASE + 0x200, BASE + 0x400);
        low.put(root, b"RSD PTR ");
        low.put(root + 15, &[if extended { 2 } else { 0 }]);
        low.put(root + 16, &(list as u32).to_le_bytes());
        low.put(root + 24, &list.to_le_bytes());
        let width = if extended { 8 } else { 4 };
        low.put(list + 4, &(36 + width as u32).to_le_bytes());
        low.put(list + 36, &fadt.to_le_bytes()[..width]);
        low.put(fadt, b"FACP");
        let length: u32 = if extended { 244 } else { 116 };
        low.put(fadt + 4, &length.to_le_bytes());
        low.put(fadt + 40, &(dsdt as u32).to_le_bytes());
        low.put(fadt + 64, &0x404_u32.to_le_bytes());
        low.put(fadt + 112, &RESET_SUPPORTED.to_le_bytes());
        low.put(fadt + 116, &[PORTS]);
        low.put(fadt + 120, &0xcf9_u64.to_le_bytes());
        low.put(fadt + 128, &[6]);
        if extended {
            low.put(fadt + 140, &dsdt.to_le_bytes());
            low.put(fadt + 172, &[PORTS]);
            low.put(fadt + 176, &0x604_u64.to_le_bytes());
        }
        low.put(dsdt, b"DSDT");
        low.put(dsdt + 4, &(36 + 8 + s5.len() as u32).to_le_bytes());
        // Text that only looks like it, then the definition.
        low.put(dsdt + 36, b"_S5_");
        low.put(dsdt + 40, s5);
        low
    }

    const FIVE: &[u8] = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00";

    #[test]
    fn old_tables_tell_the_port_and_the_type() {
        let found = power_control(None, &machine(false, FIVE));
        let off = Off {
            a: (0x404, 5),
            b: None,
            enable: None,
        };
        assert_eq!(found.off, Some(off));
        assert_eq!(found.reset, Some((0xcf9, 6)));
    }

    #[test]
    fn long_registers_count_more_than_short_ones() {
        let zero = b"\x08\\_S5_\x12\x06\x04\x00\x00\x00\x00";
        let found = power_control(Some(BASE + 0x20), &machine(true, zero));
        assert_eq!(found.off.map(|off| off.a), Some((0x604, 0)));
    }

    #[test]
    fn a_root_that_is_none_is_looked_for() {
        assert!(power_control(Some(3), &machine(true, FIVE)).off.is_some());
        assert_eq!(
            power_control(None, &Low(vec![0; 0x1_0000])),
            PowerControl::default()
        );
    }

    #[test]
    fn without_a_definition_nothing_is_guessed() {
        assert_eq!(
            power_control(None, &machine(true, b"\x08_S4_\x12")).off,
            None
        );
        // A length of two bytes.
        let long = b"\x08_S5_\x12\x48\x00\x02\x01\x0a\x07";
        let off = power_control(None, &machine(true, long)).off;
        assert_eq!(off.map(|off| off.a.1), Some(1));
    }

    #[test]
    fn the_type_replaces_what_was_there() {
        assert_eq!(sleep_word(7 << 10 | ACPI_ON, 5), 5 << 10 | 1 << 13 | 1);
        assert_eq!(sleep_word(0, 0), 1 << 13);
    }

    proptest! {
        /// Whatever the tables say, reading them ends.
        #[test]
        fn any_tables_are_safe(noise in prop::collection::vec((0usize..0x500, any::<u8>()), 0..64)) {
            let mut low = machine(true, FIVE);
            for (at, byte) in noise {
                low.0[at] = byte;
            }
            let _ = power_control(None, &low);
        }
    }
}
