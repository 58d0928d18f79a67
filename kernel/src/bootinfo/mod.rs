//! What the monitor told us: memory map, command line, RSDP, modules.
//!
//! Three boot protocols end in one [`BootInfo`]: PVH (`pvh`), the Linux 64-bit
//! entry with its zero page (`linux`), and `multiboot2`. The parsers read
//! physical memory only through [`PhysMemory`], copy everything out once, and
//! take nothing on trust: what is torn or absurd is an error that names it.

mod linux;
mod multiboot2;
mod pvh;

use core::fmt;

use heapless::{String, Vec};

/// Longest command line taken over, in bytes; a longer one is an error.
pub const COMMAND_LINE_MAX: usize = 4096;
/// Most memory map entries taken over (an e820 table holds 128).
pub const MEMORY_ENTRIES_MAX: usize = 128;
/// Most modules taken over.
pub const MODULES_MAX: usize = 8;

/// Which entry point the monitor used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// PVH: `hvm_start_info` (Xen `public/arch-x86/hvm/start_info.h`).
    Pvh,
    /// Linux 64-bit boot protocol: the zero page (`struct boot_params`).
    Linux,
    /// Multiboot2: the boot information of GRUB (Multiboot2 Specification 2.0).
    Multiboot2,
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pvh => "PVH",
            Self::Linux => "Linux's 64-bit entry",
            Self::Multiboot2 => "Multiboot2",
        })
    }
}

/// What a range of physical memory is, in e820 terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Usable memory (e820 type 1).
    Ram,
    /// Anything else, by its e820 number: ours to leave alone.
    Other(u32),
}

/// One entry of the monitor's memory map; `start + size` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes, not zero.
    pub size: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// Memory that the monitor filled for us: a file loaded beside the kernel (an
/// initrd), or Multiboot2's boot information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// All that is kept of the boot protocol, copied out of its structures.
#[derive(Debug)]
pub struct BootInfo {
    /// The entry point used.
    pub entry: EntryKind,
    /// The command line, empty if there was none.
    pub command_line: String<COMMAND_LINE_MAX>,
    /// The memory map as the monitor gave it: unsorted, possibly overlapping.
    pub memory: Vec<MemoryEntry, MEMORY_ENTRIES_MAX>,
    /// Physical address of the ACPI RSDP, if the monitor said one.
    pub rsdp: Option<u64>,
    /// Modules; their memory is reserved.
    pub modules: Vec<Module, MODULES_MAX>,
}

/// Why the monitor's boot information is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootInfoError {
    /// A structure lies outside the memory that is mapped at boot.
    Unreachable {
        /// Which structure.
        what: &'static str,
        /// Its physical address.
        addr: u64,
    },
    /// A magic number is wrong: this is not the structure it should be.
    BadMagic {
        /// Which structure.
        what: &'static str,
        /// The value found.
        found: u32,
    },
    /// There is no RAM in the memory map, or no map (hvm_start_info before
    /// version 1).
    NoMemoryMap,
    /// A tag of Multiboot2 is shorter than what it must hold, or runs out of
    /// the boot information; or no last tag comes (`size` 0, at its end).
    TornTag {
        /// Its offset in the boot information; 0 is the whole.
        at: u32,
        /// Its length in bytes, as it says itself.
        size: u32,
    },
    /// The loader left EFI's boot services running, which nobody asked for.
    FirmwareAtWork,
    /// More entries than a sane monitor gives.
    TooMany {
        /// Entries of what.
        what: &'static str,
        /// How many were announced.
        count: u32,
    },
    /// A range wraps around the end of the address space.
    AbsurdRange {
        /// Range of what.
        what: &'static str,
        /// Its start.
        start: u64,
        /// Its length.
        size: u64,
    },
    /// The command line has no end within [`COMMAND_LINE_MAX`] bytes, or
    /// within its tag.
    CommandLineTooLong,
    /// The command line is not UTF-8; the offset of the first bad byte.
    CommandLineNotText(usize),
}

impl fmt::Display for BootInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unreachable { what, addr } => {
                write!(f, "{what} at {addr:#x} lies outside the first 4 GiB")
            }
            Self::BadMagic { what, found } => write!(f, "{what} has the wrong magic {found:#x}"),
            Self::NoMemoryMap => f.write_str("the monitor gave no memory map"),
            Self::TornTag { at, size } => {
                write!(f, "the boot information is torn at byte {at}: {size} bytes")
            }
            Self::FirmwareAtWork => f.write_str("EFI's boot services still run"),
            Self::TooMany { what, count } => write!(f, "{count} {what} are too many"),
            Self::AbsurdRange { what, start, size } => {
                write!(f, "{what} at {start:#x} of {size:#x} bytes wraps around")
            }
            Self::CommandLineTooLong => {
                write!(
                    f,
                    "the command line has no end, or more than {COMMAND_LINE_MAX} bytes"
                )
            }
            Self::CommandLineNotText(at) => {
                write!(f, "the command line is not UTF-8 at byte {at}")
            }
        }
    }
}

/// Read access to physical memory as it is mapped at boot.
pub trait PhysMemory {
    /// Copies `into.len()` bytes at `addr` out; `false` if not all of them
    /// can be reached, and then `into` is unspecified.
    #[must_use]
    fn read(&self, addr: u64, into: &mut [u8]) -> bool;
}

impl BootInfo {
    /// Parses what the monitor left at physical address `info`.
    ///
    /// # Errors
    /// [`BootInfoError`] says what is missing or absurd.
    pub fn parse(
        entry: EntryKind,
        info: u64,
        memory: &impl PhysMemory,
    ) -> Result<Self, BootInfoError> {
        let mut boot = Self {
            entry,
            command_line: String::new(),
            memory: Vec::new(),
            rsdp: None,
            modules: Vec::new(),
        };
        match entry {
            EntryKind::Pvh => pvh::parse(info, memory, &mut boot)?,
            EntryKind::Linux => linux::parse(info, memory, &mut boot)?,
            EntryKind::Multiboot2 => multiboot2::parse(info, memory, &mut boot)?,
        }
        if boot.memory.iter().all(|e| e.kind != MemoryKind::Ram) {
            return Err(BootInfoError::NoMemoryMap);
        }
        Ok(boot)
    }

    fn add_memory(&mut self, start: u64, size: u64, e820: u32) -> Result<(), BootInfoError> {
        if size == 0 {
            return Ok(());
        }
        let what = "memory map entry";
        check_range(what, start, size)?;
        let kind = if e820 == 1 {
            MemoryKind::Ram
        } else {
            MemoryKind::Other(e820)
        };
        // Firmware may cut what is one range into many.
        if let Some(last) = self.memory.last_mut()
            && last.kind == kind
            && last.start + last.size == start
        {
            last.size += size;
            return Ok(());
        }
        let full = BootInfoError::TooMany {
            what: "memory map entries",
            count: u32::MAX,
        };
        self.memory
            .push(MemoryEntry { start, size, kind })
            .map_err(|_| full)
    }

    fn add_module(&mut self, start: u64, size: u64) -> Result<(), BootInfoError> {
        check_range("module", start, size)?;
        let full = BootInfoError::TooMany {
            what: "modules",
            count: MODULES_MAX as u32 + 1,
        };
        self.modules.push(Module { start, size }).map_err(|_| full)
    }

    /// Takes over the NUL-terminated command line at `addr` (0: none), whose
    /// NUL is among the first `most` bytes.
    fn read_command_line(
        &mut self,
        addr: u64,
        most: u64,
        memory: &impl PhysMemory,
    ) -> Result<(), BootInfoError> {
        if addr == 0 {
            return Ok(());
        }
        let mut text: Vec<u8, COMMAND_LINE_MAX> = Vec::new();
        loop {
            let mut byte = [0];
            let at = addr.checked_add(text.len() as u64);
            if text.len() as u64 >= most {
                return Err(BootInfoError::CommandLineTooLong);
            }
            if !at.is_some_and(|at| memory.read(at, &mut byte)) {
                return Err(BootInfoError::Unreachable {
                    what: "command line",
                    addr,
                });
            }
            if byte[0] == 0 {
                break;
            }
            text.push(byte[0])
                .map_err(|_| BootInfoError::CommandLineTooLong)?;
        }
        self.command_line = String::from_utf8(text)
            .map_err(|e| BootInfoError::CommandLineNotText(e.valid_up_to()))?;
        Ok(())
    }
}

fn check_range(what: &'static str, start: u64, size: u64) -> Result<(), BootInfoError> {
    match start.checked_add(size) {
        Some(_) => Ok(()),
        None => Err(BootInfoError::AbsurdRange { what, start, size }),
    }
}

/// Reads `N` bytes at `addr`, or says which structure cannot be reached.
fn read_bytes<const N: usize>(
    memory: &impl PhysMemory,
    what: &'static str,
    addr: u64,
) -> Result<[u8; N], BootInfoError> {
    let mut bytes = [0; N];
    match memory.read(addr, &mut bytes) {
        true => Ok(bytes),
        false => Err(BootInfoError::Unreachable { what, addr }),
    }
}

/// Calls `take` with the first `N` bytes of each of `count` records from `addr`
/// on, which lie `step` bytes apart.
fn each<const N: usize>(
    memory: &impl PhysMemory,
    what: &'static str,
    addr: u64,
    (step, count): (u32, u32),
    mut take: impl FnMut(&[u8; N]) -> Result<(), BootInfoError>,
) -> Result<(), BootInfoError> {
    for index in 0..u64::from(count) {
        let at = addr
            .checked_add(index * u64::from(step))
            .ok_or(BootInfoError::Unreachable { what, addr })?;
        take(&read_bytes(memory, what, at)?)?;
    }
    Ok(())
}

/// The little-endian `u32` at `offset`; offsets are constants of the callers,
/// inside the array they read from.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset..]
        .first_chunk()
        .map_or(0, |b| u32::from_le_bytes(*b))
}

/// The little-endian `u64` at `offset`, see [`u32_at`].
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[offset..]
        .first_chunk()
        .map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
