//! The zero page of the Linux 64-bit boot protocol
//! (Linux, `Documentation/arch/x86/zero-page.rst` and `boot.rst`).

use super::{BootInfo, BootInfoError, PhysMemory, read_bytes, u32_at, u64_at};

const ZERO_PAGE_BYTES: usize = 4096;
const HEADER_MAGIC: u32 = 0x5372_6448; // "HdrS"

const RSDP: usize = 0x070;
const EXT_RAMDISK_IMAGE: usize = 0x0c0;
const EXT_RAMDISK_SIZE: usize = 0x0c4;
const EXT_COMMAND_LINE: usize = 0x0c8;
const E820_ENTRIES: usize = 0x1e8;
const HEADER: usize = 0x202;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_BYTES: usize = 20;
const E820_ENTRIES_MAX: u8 = 128;

pub(super) fn parse(
    info: u64,
    memory: &impl PhysMemory,
    boot: &mut BootInfo,
) -> Result<(), BootInfoError> {
    let what = "zero page";
    let page: [u8; ZERO_PAGE_BYTES] = read_bytes(memory, what, info)?;
    let magic = u32_at(&page, HEADER);
    if magic != HEADER_MAGIC {
        return Err(BootInfoError::BadMagic { what, found: magic });
    }
    boot.rsdp = Some(u64_at(&page, RSDP)).filter(|&addr| addr != 0);
    let command_line = split(&page, COMMAND_LINE, EXT_COMMAND_LINE);
    boot.read_command_line(command_line, u64::MAX, memory)?;

    let size = split(&page, RAMDISK_SIZE, EXT_RAMDISK_SIZE);
    if size != 0 {
        boot.add_module(split(&page, RAMDISK_IMAGE, EXT_RAMDISK_IMAGE), size)?;
    }
    let count = page[E820_ENTRIES];
    if count > E820_ENTRIES_MAX {
        return Err(BootInfoError::TooMany {
            what: "memory map entries",
            count: count.into(),
        });
    }
    for index in 0..usize::from(count) {
        let entry = &page[E820_TABLE + index * E820_ENTRY_BYTES..];
        boot.add_memory(u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16))?;
    }
    Ok(())
}

/// A 64-bit value whose halves lie apart: the protocol grew.
fn split(page: &[u8], low: usize, high: usize) -> u64 {
    u64::from(u32_at(page, high)) << 32 | u64::from(u32_at(page, low))
}
