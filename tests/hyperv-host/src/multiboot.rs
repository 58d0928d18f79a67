//! Entering a kernel as GRUB does: by its Multiboot2 header, in 32-bit protected
//! mode, with boot information (Multiboot2 Specification 2.0).

use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::boot::Entry;

/// The header's mark, within the first 32 KiB, at a multiple of 8.
const HEADER: u32 = 0xe852_50d6;
const HEADER_WITHIN: usize = 32 << 10;
const ALIGN: usize = 8;
const HEAD: usize = 16;
/// 32-bit protected mode.
const ARCHITECTURE: u32 = 0;
/// Tags of the header, and the bit by which one may be passed over.
const NO_MORE: u16 = 0;
const ENTRY_ADDRESS: u16 = 3;
const OPTIONAL: u16 = 1;

/// Where the boot information lies.
const INFO: u64 = 0x1_0000;
/// In EAX at the entry: who entered.
pub(crate) const MAGIC: u64 = 0x36d7_6289;

/// Tags of the boot information.
const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const LOADER: u32 = 2;
const MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const RSDP: u32 = 15;
const MAP_ENTRY: u32 = 24;
const KIB: u64 = 1024;
const MIB: u64 = 1 << 20;

/// Puts an ELF file's segments where it wants them, and the boot information beside.
///
/// # Errors
/// It has no header, asks for what we do not do, or does not fit.
pub(crate) fn load(
    map: &GuestMemoryMmap,
    kernel: &[u8],
    cmdline: &str,
    memory: &[(u64, u64, u32)],
    rsdp: &[u8],
) -> Result<Entry> {
    let entry = entry(kernel)?;
    Elf::load(map, None, &mut Cursor::new(kernel), None).context("loading the kernel")?;
    let info = information(cmdline, memory, rsdp);
    let end = INFO + info.len() as u64;
    let room = memory.first().is_some_and(|(_, to, _)| end <= *to);
    ensure!(room, "{} bytes of boot information do not fit", info.len());
    map.write_slice(&info, GuestAddress(INFO))?;
    Ok(Entry::Multiboot { entry, info: INFO })
}

/// The entry that the header names.
fn entry(kernel: &[u8]) -> Result<u64> {
    let first = &kernel[..kernel.len().min(HEADER_WITHIN)];
    let header = (0..first.len())
        .step_by(ALIGN)
        .filter_map(|at| first.get(at..at + HEAD).map(|head| (at, head)))
        .find(|(_, head)| word(head, 0) == HEADER && sum(head) == 0);
    let (at, head) = header.context("no Multiboot2 header")?;
    ensure!(
        word(head, 4) == ARCHITECTURE,
        "a header for another processor"
    );
    let tags = first.get(at + HEAD..at + word(head, 8) as usize);
    let mut tags = tags.unwrap_or_default();
    let mut entry = None;
    while tags.len() >= ALIGN {
        let [kind, flags] = [word(tags, 0) as u16, (word(tags, 0) >> 16) as u16];
        let size = word(tags, 4) as usize;
        match kind {
            NO_MORE => return entry.context("the header names no entry"),
            ENTRY_ADDRESS if size == 12 && tags.len() >= size => {
                entry = Some(word(tags, 8).into());
            }
            _ if flags & OPTIONAL != 0 => {}
            _ => bail!("the header wants {kind}, of {size} bytes"),
        }
        let next = size.max(ALIGN).next_multiple_of(ALIGN);
        tags = tags.get(next..).unwrap_or_default();
    }
    bail!("the header does not end")
}

/// The four words of a header add up to nothing.
fn sum(head: &[u8]) -> u32 {
    let words = (0..HEAD).step_by(4).map(|at| word(head, at));
    words.fold(0, u32::wrapping_add)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

/// What GRUB says after a BIOS.
fn information(cmdline: &str, memory: &[(u64, u64, u32)], rsdp: &[u8]) -> Vec<u8> {
    let mut all = vec![0; 8];
    tag(&mut all, COMMAND_LINE, &[cmdline.as_bytes(), &[0]].concat());
    tag(&mut all, LOADER, b"firn-hyperv-host\0");
    let high = memory
        .iter()
        .find(|(from, to, _)| (*from..*to).contains(&MIB));
    let high = high.map_or(0, |(_, to, _)| (to - MIB) / KIB);
    let low = memory
        .first()
        .map_or(0, |(_, to, _)| to.min(&(640 * KIB)) / KIB);
    let sizes = [low as u32, high as u32].map(u32::to_le_bytes);
    tag(&mut all, MEMORY, sizes.as_flattened());
    let mut map = [MAP_ENTRY, 0].map(u32::to_le_bytes).concat();
    for (from, to, kind) in memory {
        map.extend(from.to_le_bytes());
        map.extend((to - from).to_le_bytes());
        map.extend(u64::from(*kind).to_le_bytes());
    }
    tag(&mut all, MEMORY_MAP, &map);
    tag(&mut all, RSDP, rsdp);
    tag(&mut all, END, &[]);
    let total = (all.len() as u32).to_le_bytes();
    all[..4].copy_from_slice(&total);
    all
}

fn tag(all: &mut Vec<u8>, kind: u32, body: &[u8]) {
    all.extend(kind.to_le_bytes());
    all.extend((8 + body.len() as u32).to_le_bytes());
    all.extend(body);
    all.resize(all.len().next_multiple_of(ALIGN), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose header has these tags.
    fn kernel(tags: &[u8]) -> Vec<u8> {
        let length = 16 + tags.len() as u32;
        let sum = 0u32.wrapping_sub(HEADER.wrapping_add(length));
        let head = [HEADER, 0, length, sum].map(u32::to_le_bytes);
        [&[0; 0x1000], head.as_flattened(), tags].concat()
    }

    const START: [u8; 16] = [3, 0, 0, 0, 12, 0, 0, 0, 8, 0, 0x10, 0, 0, 0, 0, 0];
    const LAST: [u8; 8] = [0, 0, 0, 0, 8, 0, 0, 0];

    #[test]
    fn the_header_names_the_entry() {
        let tags = [&START[..], &LAST].concat();
        assert_eq!(entry(&kernel(&tags)).unwrap(), 0x10_0008);
        let optional = [&[9, 0, 1, 0, 8, 0, 0, 0][..], &START, &LAST].concat();
        assert_eq!(entry(&kernel(&optional)).unwrap(), 0x10_0008);
    }

    #[test]
    fn what_the_header_asks_for_in_vain_is_named() {
        let refused = |kernel: &[u8]| entry(kernel).unwrap_err().to_string();
        let tags = |parts: &[&[u8]]| kernel(&parts.concat());
        assert!(refused(&tags(&[&LAST])).contains("names no entry"));
        assert!(refused(&tags(&[&START])).contains("does not end"));
        let wanted: [u8; 8] = [9, 0, 0, 0, 8, 0, 0, 0];
        assert!(refused(&tags(&[&wanted, &START, &LAST])).contains("wants 9"));
        let mut torn = tags(&[&START, &LAST]);
        torn[0x1000 + 12] ^= 1;
        assert!(refused(&torn).contains("no Multiboot2 header"));
        assert!(refused(b"").contains("no Multiboot2 header"));
        assert!(refused(&tags(&[&START])[..0x1014]).contains("does not end"));
    }

    #[test]
    fn the_information_is_what_grub_would_say() {
        let memory = [
            (0, 0xe_0000, 1),
            (0xe_0000, 0xe_3000, 3),
            (0xe_3000, 64 << 20, 1),
        ];
        let info = information("a b", &memory, &[7; 36]);
        assert_eq!(word(&info, 0) as usize, info.len());
        let (mut at, mut seen) = (8, Vec::new());
        while at < info.len() {
            let size = word(&info, at + 4) as usize;
            seen.push((word(&info, at), info[at + 8..at + size].to_vec()));
            at += size.next_multiple_of(8);
        }
        let body = |kind| &seen.iter().find(|(its, _)| *its == kind).unwrap().1;
        assert_eq!(body(COMMAND_LINE), b"a b\0");
        let sizes = [640u32, 63 << 10].map(u32::to_le_bytes);
        assert_eq!(body(MEMORY), sizes.as_flattened());
        assert_eq!(body(RSDP), &[7; 36]);
        assert_eq!(body(MEMORY_MAP).len(), 8 + 3 * 24);
        assert_eq!(body(MEMORY_MAP)[8 + 24 + 16], 3);
        assert_eq!(seen.last().unwrap().0, END);
    }
}
