use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::super::tests::Flat;
use super::super::{EntryKind, MemoryEntry, MemoryKind, Module};
use super::*;

/// Where the boot information lies.
const INFO: u64 = 0x1000;

/// Tags one after another, with their kinds, filled up to eight bytes.
fn information(tags: &[(u32, Vec<u8>)]) -> Flat {
    let mut bytes = vec![0; 8];
    for (kind, body) in tags {
        let size = body.len() as u32 + HEAD;
        bytes.extend(kind.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let total = bytes.len() as u32;
    bytes[..4].copy_from_slice(&total.to_le_bytes());
    let mut memory = Flat(vec![0; 0x4000]);
    memory.put(INFO as usize, &bytes);
    memory
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A table whose entries are of `step` bytes, each beginning with two numbers
/// of 64 bits and one of 32.
fn map(step: u32, entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = words(&[step, 0]);
    for (start, size, kind) in entries {
        let end = body.len() + step as usize;
        body.extend([start.to_le_bytes(), size.to_le_bytes()].concat());
        body.extend(kind.to_le_bytes());
        body.resize(end, 0xee);
    }
    body
}

/// EFI's map with entries of 48 bytes: kind, start, pages.
fn efi_map(entries: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut body = words(&[48, 1]);
    for (kind, start, pages) in entries {
        body.extend(words(&[*kind, 0xee]));
        body.extend(
            [*start, u64::MAX, *pages, 15, u64::MAX]
                .map(u64::to_le_bytes)
                .concat(),
        );
    }
    body
}

fn good() -> Vec<(u32, Vec<u8>)> {
    vec![
        (COMMAND_LINE, b"log=debug -- disks\0".to_vec()),
        (2, b"GRUB\0".to_vec()),
        (
            MODULE,
            [words(&[0x20_0000, 0x20_1234]), b"initrd\0".to_vec()].concat(),
        ),
        (
            MEMORY_MAP,
            map(
                24,
                &[
                    (0, 0x9_fc00, 1),
                    (0x10_0000, 0x700_0000, 1),
                    (0xfc00_0000, 0x1000, 3),
                ],
            ),
        ),
        (RSDP_OLD, vec![1; 20]),
        (END, vec![]),
    ]
}

fn parsed(tags: &[(u32, Vec<u8>)]) -> Result<BootInfo, BootInfoError> {
    of(&information(tags))
}

fn of(memory: &Flat) -> Result<BootInfo, BootInfoError> {
    BootInfo::parse(EntryKind::Multiboot2, INFO, memory)
}

fn ram(start: u64, size: u64) -> MemoryEntry {
    let kind = MemoryKind::Ram;
    MemoryEntry { start, size, kind }
}

fn other(start: u64, size: u64, kind: u32) -> MemoryEntry {
    let kind = MemoryKind::Other(kind);
    MemoryEntry { start, size, kind }
}

#[test]
fn every_tag_that_counts_is_taken_over() {
    let boot = parsed(&good()).expect("good tags");
    assert_eq!(boot.command_line, "log=debug -- disks");
    let expected = [
        ram(0, 0x9_fc00),
        ram(0x10_0000, 0x700_0000),
        other(0xfc00_0000, 0x1000, 3),
    ];
    assert_eq!(boot.memory[..], expected);
    let [own, initrd] = boot.modules[..] else {
        panic!("{:?}", boot.modules);
    };
    // The boot information itself stays, for the RSDP in it.
    assert_eq!(own.start, INFO);
    let rsdp = boot.rsdp.expect("a copy of the RSDP");
    assert!(INFO < rsdp && rsdp + 20 <= own.start + own.size);
    let (start, size) = (0x20_0000, 0x1234);
    assert_eq!(initrd, Module { start, size });
}

#[test]
fn the_new_rsdp_counts_wherever_it_stands() {
    for order in [[RSDP_OLD, RSDP_NEW], [RSDP_NEW, RSDP_OLD]] {
        let tag = |kind| match kind {
            RSDP_NEW => (kind, vec![2; 36]),
            _ => (kind, vec![1; 20]),
        };
        let mut tags = good();
        tags.splice(4..5, order.map(tag));
        let memory = information(&tags);
        let rsdp = of(&memory).expect("good tags").rsdp.expect("an RSDP");
        assert_eq!(memory.0[rsdp as usize..][..36], [2; 36]);
    }
}

#[test]
fn efi_s_map_serves_where_there_is_no_other() {
    let mut tags = good();
    let efi = [
        (7, 0x10_0000, 0x100),
        (4, 0x20_0000, 0x300),
        (5, 0x50_0000, 1),
        (0x8000_0000, 0x60_0000, 1),
        (2, 0x70_0000, 1),
    ];
    tags.insert(0, (EFI_MEMORY_MAP, efi_map(&efi)));
    assert_eq!(parsed(&tags).expect("both maps").memory.len(), 3);
    tags.retain(|(kind, _)| *kind != MEMORY_MAP);
    let expected = [
        ram(0x10_0000, 0x40_0000),
        other(0x50_0000, 0x1000, 2),
        other(0x60_0000, 0x1000, 2),
        ram(0x70_0000, 0x1000),
    ];
    assert_eq!(parsed(&tags).expect("EFI's map").memory[..], expected);
}

#[test]
fn firmware_that_still_runs_is_refused() {
    let mut tags = good();
    tags.insert(0, (EFI_BOOT_SERVICES, vec![]));
    assert_eq!(parsed(&tags).err(), Some(BootInfoError::FirmwareAtWork));
}

#[test]
fn tags_too_short_for_what_they_hold_are_torn() {
    let short = [
        (COMMAND_LINE, vec![]),
        (MODULE, words(&[1])),
        (MODULE, words(&[0x20_0000, 0x1f_ffff])),
        (MEMORY_MAP, words(&[24])),
        (MEMORY_MAP, map(0, &[])),
        (MEMORY_MAP, map(23, &[(0, 1, 1)])),
        (RSDP_OLD, vec![0; 19]),
        (RSDP_NEW, vec![0; 35]),
    ];
    for (kind, body) in short {
        let (at, size) = (8, body.len() as u32 + HEAD);
        let mut tags = good();
        tags.insert(0, (kind, body));
        let torn = BootInfoError::TornTag { at, size };
        assert_eq!(parsed(&tags).err(), Some(torn), "{kind} of {size}");
    }
    // An entry of 24 bytes, and a part of another.
    let mut body = map(24, &[(0, 1, 1)]);
    body.extend([0; 8]);
    let mut tags = good();
    tags.insert(0, (MEMORY_MAP, body));
    assert_eq!(
        parsed(&tags).err(),
        Some(BootInfoError::TornTag { at: 8, size: 48 })
    );
}

#[test]
fn lengths_that_lie_are_torn() {
    let at = INFO as usize;
    let good = information(&good());
    let total = u32_at(&good.0, at);
    let spoilt = |offset: usize, value: u32| {
        let mut memory = Flat(good.0.clone());
        memory.put32(at + offset, value);
        of(&memory).err()
    };
    let torn = |at, size| Some(BootInfoError::TornTag { at, size });
    // The whole: no room for a tag, cut inside a tag, before the last one,
    // beyond all reason.
    for size in [0, 8, 15, TOTAL_MAX + 1, u32::MAX] {
        assert_eq!(spoilt(0, size), torn(0, size));
    }
    assert_eq!(spoilt(0, 20), torn(8, 27));
    assert_eq!(spoilt(0, total - 8), torn(total - 8, 0));
    assert_eq!(spoilt(0, total - 1), torn(total - 8, 7));
    // The first tag: no length, less than its head, into the last tag, out.
    for size in [0, 1, 7, total, u32::MAX, u32::MAX - 6] {
        assert_eq!(spoilt(12, size), torn(8, size));
    }
    // A tag that overlaps all others has no last one behind it.
    assert_eq!(spoilt(12, total - 8), torn(total, 0));
}

#[test]
fn boot_information_out_of_reach_is_named() {
    let memory = Flat(vec![0xff; 0x40]);
    let what = "boot information";
    for addr in [0x40, u64::MAX - 3] {
        let error = BootInfo::parse(EntryKind::Multiboot2, addr, &memory).err();
        assert_eq!(error, Some(BootInfoError::Unreachable { what, addr }));
    }
    let mut memory = Flat(vec![0; 0x40]);
    memory.put32(0, 0x1000).put32(8, 9).put32(12, 0x200);
    let error = BootInfo::parse(EntryKind::Multiboot2, 0, &memory).err();
    let addr = 0x208;
    assert_eq!(error, Some(BootInfoError::Unreachable { what, addr }));
}

#[test]
fn a_command_line_ends_inside_its_tag() {
    let mut tags = good();
    tags[0].1.pop();
    assert_eq!(parsed(&tags).err(), Some(BootInfoError::CommandLineTooLong));
    tags[0].1 = vec![b'a'; 0x1800];
    assert_eq!(parsed(&tags).err(), Some(BootInfoError::CommandLineTooLong));
}

#[test]
fn maps_without_ram_or_without_end_are_refused() {
    let mut tags = good();
    tags[3].1 = map(24, &[(0, 0x1000, 2)]);
    assert_eq!(parsed(&tags).err(), Some(BootInfoError::NoMemoryMap));
    tags[3].1 = map(24, &[(1, u64::MAX, 1)]);
    let (what, start, size) = ("memory map entry", 1, u64::MAX);
    assert_eq!(
        parsed(&tags).err(),
        Some(BootInfoError::AbsurdRange { what, start, size })
    );
    let many: Vec<_> = (0..129).map(|n| (n * 0x2000, 0x1000, 1)).collect();
    tags[3].1 = map(24, &many);
    assert!(matches!(
        parsed(&tags).err(),
        Some(BootInfoError::TooMany { .. })
    ));
    let joined: Vec<_> = (0..129).map(|n| (n * 0x1000, 0x1000, 1)).collect();
    tags[3].1 = map(32, &joined);
    assert_eq!(
        parsed(&tags).expect("one range").memory[..],
        [ram(0, 129 * 0x1000)]
    );
}

proptest! {
    /// Whatever stands there: parsing ends, and no range wraps.
    #[test]
    fn garbage_never_panics(
        tags in prop::collection::vec((0u32..20, prop::collection::vec(any::<u8>(), 0..64)), 0..12),
        spoil in prop::collection::vec((0usize..0x400, any::<u8>()), 0..4),
    ) {
        let mut all = tags;
        all.push((END, vec![]));
        let mut memory = information(&all);
        for (at, byte) in spoil {
            memory.0[INFO as usize + at] = byte;
        }
        if let Ok(boot) = of(&memory) {
            for entry in &boot.memory {
                prop_assert!(entry.size > 0 && entry.start.checked_add(entry.size).is_some());
            }
        }
    }
}
