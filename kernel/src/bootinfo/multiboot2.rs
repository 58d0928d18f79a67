//! Multiboot2's boot information: a run of tags (Multiboot2 Specification 2.0,
//! "Boot information format").

use super::{BootInfo, BootInfoError, PhysMemory, each, read_bytes, u32_at, u64_at};

/// More than any boot loader has to say.
const TOTAL_MAX: u32 = 1 << 20;
/// Head of a tag, and of the whole.
const HEAD: u32 = 8;
/// Head of a tag that holds a table: entry size and version follow.
const TABLE_HEAD: u32 = 16;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
const RSDP_OLD: u32 = 14;
const RSDP_NEW: u32 = 15;
const EFI_MEMORY_MAP: u32 = 17;
const EFI_BOOT_SERVICES: u32 = 18;

const MEMORY_ENTRY_BYTES: usize = 24;
const EFI_ENTRY_BYTES: usize = 40;
const EFI_PAGE: u64 = 4096;
/// e820's numbers.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

pub(super) fn parse(
    info: u64,
    memory: &impl PhysMemory,
    boot: &mut BootInfo,
) -> Result<(), BootInfoError> {
    let head: [u8; HEAD as usize] = read_bytes(memory, "boot information", info)?;
    let total = u32_at(&head, 0);
    if !(2 * HEAD..=TOTAL_MAX).contains(&total) {
        return Err(torn(0, total));
    }
    // The RSDP is a copy that lies in here.
    boot.add_module(info, total.into())?;

    let (mut efi, mut new_rsdp) = (None, false);
    let mut at = HEAD;
    loop {
        let tag = Tag::read(memory, info, at, total)?;
        match tag.kind {
            END => break,
            COMMAND_LINE => {
                let most = tag.body(HEAD + 1)?;
                boot.read_command_line(tag.addr + u64::from(HEAD), most.into(), memory)?;
            }
            MODULE => {
                tag.body(TABLE_HEAD)?;
                let ends: [u8; 8] = tag.field(memory)?;
                let (start, end) = (u32_at(&ends, 0), u32_at(&ends, 4));
                let size = end.checked_sub(start).ok_or(torn(tag.at, tag.size))?;
                boot.add_module(start.into(), size.into())?;
            }
            MEMORY_MAP => tag.table(memory, |entry: &[u8; MEMORY_ENTRY_BYTES]| {
                boot.add_memory(u64_at(entry, 0), u64_at(entry, 8), u32_at(entry, 16))
            })?,
            RSDP_OLD | RSDP_NEW => {
                let new = tag.kind == RSDP_NEW;
                tag.body(HEAD + if new { 36 } else { 20 })?;
                if new || !new_rsdp {
                    boot.rsdp = Some(tag.addr + u64::from(HEAD));
                    new_rsdp = new;
                }
            }
            EFI_MEMORY_MAP => efi = Some(tag),
            EFI_BOOT_SERVICES => return Err(BootInfoError::FirmwareAtWork),
            _ => {}
        }
        at = tag.next(total);
    }
    // Loaders make the ordinary map from the firmware's, so one is enough.
    match efi {
        Some(tag) if boot.memory.is_empty() => {
            tag.table(memory, |entry: &[u8; EFI_ENTRY_BYTES]| add_efi(boot, entry))
        }
        _ => Ok(()),
    }
}

/// One descriptor of EFI's memory map (UEFI Specification, `GetMemoryMap`).
fn add_efi(boot: &mut BootInfo, entry: &[u8]) -> Result<(), BootInfoError> {
    let (start, pages) = (u64_at(entry, 8), u64_at(entry, 24));
    // Loader, boot services (which have ended) and free memory.
    let kind = match u32_at(entry, 0) {
        1..=4 | 7 => RAM,
        _ => RESERVED,
    };
    boot.add_memory(start, pages.saturating_mul(EFI_PAGE), kind)
}

/// One tag, of which all `size` bytes lie inside the boot information.
#[derive(Clone, Copy)]
struct Tag {
    kind: u32,
    /// Its offset in the boot information.
    at: u32,
    /// Its physical address.
    addr: u64,
    /// Bytes with its head, at least [`HEAD`].
    size: u32,
}

impl Tag {
    /// The tag at offset `at`, which is not beyond `total`.
    fn read(
        memory: &impl PhysMemory,
        info: u64,
        at: u32,
        total: u32,
    ) -> Result<Self, BootInfoError> {
        let left = total - at;
        if left < HEAD {
            return Err(torn(at, left));
        }
        let addr = info + u64::from(at);
        let head: [u8; HEAD as usize] = read_bytes(memory, "boot information", addr)?;
        let (kind, size) = (u32_at(&head, 0), u32_at(&head, 4));
        match (HEAD..=left).contains(&size) {
            true => Ok(Self {
                kind,
                at,
                addr,
                size,
            }),
            false => Err(torn(at, size)),
        }
    }

    /// Where the next one begins: always further on.
    fn next(&self, total: u32) -> u32 {
        (self.at + self.size.next_multiple_of(HEAD)).min(total)
    }

    /// Bytes behind the head, of a tag that must have `least` with it.
    fn body(&self, least: u32) -> Result<u32, BootInfoError> {
        match self.size >= least {
            true => Ok(self.size - HEAD),
            false => Err(torn(self.at, self.size)),
        }
    }

    /// What stands right behind the head.
    fn field<const N: usize>(&self, memory: &impl PhysMemory) -> Result<[u8; N], BootInfoError> {
        read_bytes(memory, "boot information", self.addr + u64::from(HEAD))
    }

    /// Calls `take` with the first `N` bytes of each entry of a table whose
    /// entries say how large they are.
    fn table<const N: usize>(
        &self,
        memory: &impl PhysMemory,
        take: impl FnMut(&[u8; N]) -> Result<(), BootInfoError>,
    ) -> Result<(), BootInfoError> {
        let room = self.body(TABLE_HEAD)? + HEAD - TABLE_HEAD;
        let step: [u8; 4] = self.field(memory)?;
        let step = u32_at(&step, 0);
        if (step as usize) < N || !room.is_multiple_of(step) {
            return Err(torn(self.at, self.size));
        }
        let first = self.addr + u64::from(TABLE_HEAD);
        each(memory, "memory map", first, (step, room / step), take)
    }
}

fn torn(at: u32, size: u32) -> BootInfoError {
    BootInfoError::TornTag { at, size }
}

#[cfg(test)]
mod tests;
