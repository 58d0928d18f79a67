use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

/// Physical memory that is `bytes` from address 0 on.
pub(super) struct Flat(pub(super) Vec<u8>);

impl PhysMemory for Flat {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let Some(from) = usize::try_from(addr).ok().and_then(|a| self.0.get(a..)) else {
            return false;
        };
        from.get(..into.len())
            .map(|b| into.copy_from_slice(b))
            .is_some()
    }
}

impl Flat {
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn put32(&mut self, at: usize, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put64(&mut self, at: usize, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }
}

/// A start info at 0x100 with a map at 0x200, a command line at 0x300 and a module list at 0x400.
fn pvh() -> Flat {
    let mut memory = Flat(vec![0; 0x1000]);
    memory
        .put32(0x100, 0x336e_c578)
        .put32(0x104, 1)
        .put32(0x10c, 1);
    memory
        .put64(0x110, 0x400)
        .put64(0x118, 0x300)
        .put64(0x120, 0xfc00_0000);
    memory.put64(0x128, 0x200).put32(0x130, 2);
    memory
        .put64(0x200, 0)
        .put64(0x208, 0x800_0000)
        .put32(0x210, 1);
    memory
        .put64(0x218, 0xfc00_0000)
        .put64(0x220, 0x1000)
        .put32(0x228, 3);
    memory.put(0x300, b"log=debug -- disks\0");
    memory.put64(0x400, 0x20_0000).put64(0x408, 0x1234);
    memory
}

/// A zero page at 0x1000 with a command line at 0x300.
fn zero_page() -> Flat {
    let mut memory = Flat(vec![0; 0x2000]);
    memory.put(0x300, b"log=info\0");
    memory.put(0x1202, b"HdrS").put32(0x1228, 0x300);
    memory
        .put64(0x1070, 0xe0000)
        .put32(0x1218, 0x30_0000)
        .put32(0x121c, 77);
    memory.0[0x11e8] = 2;
    memory
        .put64(0x12d0, 0)
        .put64(0x12d8, 0x9fc00)
        .put32(0x12e0, 1);
    memory
        .put64(0x12e4, 0x10_0000)
        .put64(0x12ec, 0x700_0000)
        .put32(0x12f4, 1);
    memory
}

fn parse_pvh(memory: &Flat) -> Result<BootInfo, BootInfoError> {
    BootInfo::parse(EntryKind::Pvh, 0x100, memory)
}

fn parse_linux(memory: &Flat) -> Result<BootInfo, BootInfoError> {
    BootInfo::parse(EntryKind::Linux, 0x1000, memory)
}

#[test]
fn pvh_start_info_is_taken_over() {
    let boot = parse_pvh(&pvh()).expect("a good start info");
    assert_eq!(boot.command_line, "log=debug -- disks");
    assert_eq!(boot.rsdp, Some(0xfc00_0000));
    assert_eq!(
        boot.modules[..],
        [Module {
            start: 0x20_0000,
            size: 0x1234
        }]
    );
    let ram = MemoryEntry {
        start: 0,
        size: 0x800_0000,
        kind: MemoryKind::Ram,
    };
    let acpi = MemoryEntry {
        start: 0xfc00_0000,
        size: 0x1000,
        kind: MemoryKind::Other(3),
    };
    assert_eq!(boot.memory[..], [ram, acpi]);
}

#[test]
fn zero_page_is_taken_over() {
    let boot = parse_linux(&zero_page()).expect("a good zero page");
    assert_eq!(boot.command_line, "log=info");
    assert_eq!(boot.rsdp, Some(0xe0000));
    assert_eq!(
        boot.modules[..],
        [Module {
            start: 0x30_0000,
            size: 77
        }]
    );
    assert_eq!(boot.memory.len(), 2);
    assert_eq!(boot.memory[1].size, 0x700_0000);
}

#[test]
fn zero_page_halves_of_addresses_are_joined() {
    let mut memory = zero_page();
    memory.put32(0x10c0, 2).put32(0x10c4, 1);
    let boot = parse_linux(&memory).expect("a good zero page");
    assert_eq!(
        boot.modules[..],
        [Module {
            start: 0x2_0030_0000,
            size: 0x1_0000_004d
        }]
    );
}

#[test]
fn every_malformed_start_info_has_its_error() {
    type Spoil = fn(&mut Flat);
    let cases: [(Spoil, BootInfoError); 9] = [
        (
            |m| _ = m.put32(0x100, 7),
            BootInfoError::BadMagic {
                what: "hvm_start_info",
                found: 7,
            },
        ),
        (|m| _ = m.put32(0x104, 0), BootInfoError::NoMemoryMap),
        (|m| _ = m.put32(0x130, 0), BootInfoError::NoMemoryMap),
        (
            |m| _ = m.put32(0x10c, 9),
            BootInfoError::TooMany {
                what: "modules",
                count: 9,
            },
        ),
        (
            |m| _ = m.put32(0x130, 129),
            BootInfoError::TooMany {
                what: "memory map entries",
                count: 129,
            },
        ),
        (
            |m| _ = m.put64(0x128, u64::MAX - 3),
            BootInfoError::Unreachable {
                what: "memory map",
                addr: u64::MAX - 3,
            },
        ),
        (
            |m| _ = m.put64(0x118, 0x2000),
            BootInfoError::Unreachable {
                what: "command line",
                addr: 0x2000,
            },
        ),
        (
            |m| _ = m.put64(0x220, u64::MAX),
            BootInfoError::AbsurdRange {
                what: "memory map entry",
                start: 0xfc00_0000,
                size: u64::MAX,
            },
        ),
        (
            |m| _ = m.put(0x302, b"\xff"),
            BootInfoError::CommandLineNotText(2),
        ),
    ];
    for (index, (spoil, expected)) in cases.into_iter().enumerate() {
        let mut memory = pvh();
        spoil(&mut memory);
        assert_eq!(parse_pvh(&memory).err(), Some(expected), "case {index}");
    }
}

#[test]
fn every_malformed_zero_page_has_its_error() {
    let mut memory = zero_page();
    memory.put(0x1202, b"Hdr_");
    assert!(matches!(
        parse_linux(&memory),
        Err(BootInfoError::BadMagic { .. })
    ));
    let mut memory = zero_page();
    memory.0[0x11e8] = 129;
    let too_many = BootInfoError::TooMany {
        what: "memory map entries",
        count: 129,
    };
    assert_eq!(parse_linux(&memory).err(), Some(too_many));
}

#[test]
fn an_endless_command_line_is_refused() {
    let mut memory = Flat(vec![b'a'; 0x3000]);
    memory.put(0, &pvh().0);
    memory.put64(0x118, 0x1800);
    assert_eq!(
        parse_pvh(&memory).err(),
        Some(BootInfoError::CommandLineTooLong)
    );
}

proptest! {
    /// Whatever the monitor writes, parsing ends, and ranges do not wrap.
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0x400), magic: bool) {
        let mut memory = Flat(vec![0; 0x3000]);
        memory.put(0x1000, &bytes).put(0x100, &bytes[..64]);
        if magic {
            memory.put32(0x100, 0x336e_c578).put(0x1202, b"HdrS");
        }
        for boot in [parse_pvh(&memory), parse_linux(&memory)].into_iter().flatten() {
            for entry in &boot.memory {
                prop_assert!(entry.size > 0 && entry.start.checked_add(entry.size).is_some());
            }
        }
    }
}
