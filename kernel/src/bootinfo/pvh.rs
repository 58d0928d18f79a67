//! `hvm_start_info` (Xen, `public/arch-x86/hvm/start_info.h`).

use super::{
    BootInfo, BootInfoError, MEMORY_ENTRIES_MAX, MODULES_MAX, PhysMemory, each, read_bytes, u32_at,
    u64_at,
};

const MAGIC: u32 = 0x336e_c578;
const MEMORY_MAP_SINCE: u32 = 1;
const START_INFO_BYTES: usize = 56;
const MODULE_BYTES: u32 = 32;
const MEMORY_ENTRY_BYTES: u32 = 24;

pub(super) fn parse(
    info: u64,
    memory: &impl PhysMemory,
    boot: &mut BootInfo,
) -> Result<(), BootInfoError> {
    let what = "hvm_start_info";
    let start: [u8; START_INFO_BYTES] = read_bytes(memory, what, info)?;
    let magic = u32_at(&start, 0);
    if magic != MAGIC {
        return Err(BootInfoError::BadMagic { what, found: magic });
    }
    if u32_at(&start, 4) < MEMORY_MAP_SINCE {
        return Err(BootInfoError::NoMemoryMap);
    }
    boot.rsdp = Some(u64_at(&start, 32)).filter(|&addr| addr != 0);
    boot.read_command_line(u64_at(&start, 24), u64::MAX, memory)?;

    let count = bounded("modules", u32_at(&start, 12), MODULES_MAX)?;
    let (list, size) = (u64_at(&start, 16), (MODULE_BYTES, count));
    each(memory, "module list", list, size, |module: &[u8; 16]| {
        boot.add_module(u64_at(module, 0), u64_at(module, 8))
    })?;
    let count = bounded("memory map entries", u32_at(&start, 48), MEMORY_ENTRIES_MAX)?;
    let (map, size) = (u64_at(&start, 40), (MEMORY_ENTRY_BYTES, count));
    each(memory, "memory map", map, size, |entry: &[u8; 24]| {
        boot.add_memory(u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16))
    })
}

fn bounded(what: &'static str, count: u32, max: usize) -> Result<u32, BootInfoError> {
    match count as usize <= max {
        true => Ok(count),
        false => Err(BootInfoError::TooMany { what, count }),
    }
}
