//! `hvm_start_info` (Xen, `public/arch-x86/hvm/start_info.h`).

use super::{
    BootInfo, BootInfoError, MEMORY_ENTRIES_MAX, MODULES_MAX, PhysMemory, read_bytes, u32_at,
    u64_at,
};

const MAGIC: u32 = 0x336e_c578;
const MEMORY_MAP_SINCE: u32 = 1;
const START_INFO_BYTES: usize = 56;
const MODULE_BYTES: usize = 32;
const MEMORY_ENTRY_BYTES: usize = 24;

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
    boot.read_command_line(u64_at(&start, 24), memory)?;

    let count = bounded("modules", u32_at(&start, 12), MODULES_MAX)?;
    each::<MODULE_BYTES>(memory, "module list", u64_at(&start, 16), count, |module| {
        boot.add_module(u64_at(module, 0), u64_at(module, 8))
    })?;
    let count = bounded("memory map entries", u32_at(&start, 48), MEMORY_ENTRIES_MAX)?;
    each::<MEMORY_ENTRY_BYTES>(memory, "memory map", u64_at(&start, 40), count, |entry| {
        boot.add_memory(u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16))
    })
}

fn bounded(what: &'static str, count: u32, max: usize) -> Result<u32, BootInfoError> {
    match count as usize <= max {
        true => Ok(count),
        false => Err(BootInfoError::TooMany { what, count }),
    }
}

/// Calls `take` with each of `count` records of `N` bytes from `addr` on.
fn each<const N: usize>(
    memory: &impl PhysMemory,
    what: &'static str,
    addr: u64,
    count: u32,
    mut take: impl FnMut(&[u8; N]) -> Result<(), BootInfoError>,
) -> Result<(), BootInfoError> {
    for index in 0..u64::from(count) {
        let at = addr
            .checked_add(index * N as u64)
            .ok_or(BootInfoError::Unreachable { what, addr })?;
        take(&read_bytes(memory, what, at)?)?;
    }
    Ok(())
}
