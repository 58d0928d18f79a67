//! Loading a kernel and entering it: as openvmm does, in long mode on an identity
//! map, RSI at the zero page (Linux' x86 boot protocol, 64-bit), or as GRUB does,
//! from a boot medium.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

use crate::acpi;
use crate::medium::{Medium, Start};
use crate::memory::Memory;
use crate::multiboot;
use crate::options::Options;

/// Where everything lies; kernels begin at [`KERNEL`].
const GDT: u64 = 0x1000;
const ZERO_PAGE: u64 = 0x2000;
const CMDLINE: u64 = 0x3000;
const PAGE_TABLES: u64 = 0x4000;
const KERNEL: u64 = 0x10_0000;
/// Behind the start of a bzImage's part that is loaded.
const BZIMAGE_ENTRY: u64 = 0x200;

const PAGE: u64 = 4096;
const E820_RAM: u32 = 1;
const E820_ACPI: u32 = 3;
/// "HdrS", and the boot sector's mark.
const HEADER: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;

const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
const CODE_32: u16 = 0x28;
const SEGMENTS: usize = 6;

/// Present, writable; and for the lowest level: 2 MiB at once.
const TABLE_ENTRY: u64 = 3;
const LARGE_PAGE: u64 = 0x83;

/// How the processor enters the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In long mode, RSI at the zero page.
    Linux(u64),
    /// In 32-bit protected mode, EBX at the boot information.
    Multiboot {
        /// The first instruction.
        entry: u64,
        /// The boot information.
        info: u64,
    },
}

/// Loads all that the guest finds; gives its entry.
///
/// # Errors
/// A file is missing, is no kernel or medium, or does not fit.
pub fn load(memory: &Memory, options: &Options) -> Result<Entry> {
    if let Some(path) = &options.media {
        let start = Medium::open(path)?.start();
        return load_as_grub(memory, &start.with_context(|| path.display().to_string())?);
    }
    let path = options.kernel.as_deref().context("no kernel")?;
    let (header, entry, end) =
        kernel(memory.map(), path).with_context(|| format!("loading {}", path.display()))?;
    let initrd = options.initrd.as_deref();
    let initrd = initrd.map(|path| ramdisk(memory, path, end)).transpose()?;
    surround(memory, options, header, initrd)?;
    Ok(Entry::Linux(entry))
}

/// Loads what a medium starts.
fn load_as_grub(memory: &Memory, start: &Start) -> Result<Entry> {
    let (map, tables) = (memory.map(), acpi::tables());
    map.write_slice(&tables, GuestAddress(acpi::BASE))?;
    // The processor has its segments from here, until the kernel brings its own.
    write_gdt(map)?;
    let ranges = ranges(memory.bytes(), tables.len() as u64);
    let rsdp = &tables[..acpi::RSDP_BYTES];
    multiboot::load(map, &start.kernel, &start.cmdline, &ranges, rsdp)
}

/// Loads a few instructions instead of a kernel; gives their entry.
///
/// # Errors
/// They do not fit.
pub fn load_code(memory: &Memory, code: &[u8], options: &Options) -> Result<Entry> {
    memory.map().write_slice(code, GuestAddress(KERNEL))?;
    surround(memory, options, setup_header::default(), None)?;
    Ok(Entry::Linux(KERNEL))
}

/// Everything but the kernel.
fn surround(
    memory: &Memory,
    options: &Options,
    header: setup_header,
    initrd: Option<(u32, u32)>,
) -> Result<()> {
    let map = memory.map();
    let cmdline = &options.cmdline;
    ensure!(
        cmdline.len() < PAGE as usize && !cmdline.contains('\0'),
        "a command line of {} bytes",
        cmdline.len()
    );
    map.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    let tables = acpi::tables();
    map.write_slice(&tables, GuestAddress(acpi::BASE))?;
    write_gdt(map)?;
    write_page_tables(map)?;
    let params = zero_page(header, cmdline, initrd, memory.bytes(), tables.len() as u64);
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, map).context("the zero page")
}

/// Header of a bzImage (or an empty one), entry, and the first free address.
fn kernel(map: &GuestMemoryMmap, path: &Path) -> Result<(setup_header, u64, u64)> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).context("no kernel")?;
    file.rewind()?;
    let high = Some(GuestAddress(KERNEL));
    if magic == *b"\x7fELF" {
        let loaded = Elf::load(map, None, &mut file, high)?;
        let header = setup_header {
            header: HEADER,
            boot_flag: BOOT_FLAG,
            kernel_alignment: 0x10_0000,
            ..setup_header::default()
        };
        return Ok((header, loaded.kernel_load.raw_value(), loaded.kernel_end));
    }
    let loaded = BzImage::load(map, None, &mut file, high)?;
    let Some(header) = loaded.setup_header else {
        bail!("a bzImage without a header");
    };
    let start = loaded.kernel_load.raw_value();
    // It unpacks itself behind its own end.
    let end = start + u64::from(header.init_size);
    Ok((header, start + BZIMAGE_ENTRY, end.max(loaded.kernel_end)))
}

/// Puts it at the end of memory; gives address and size.
fn ramdisk(memory: &Memory, path: &Path, behind: u64) -> Result<(u32, u32)> {
    let content = fs::read(path).with_context(|| path.display().to_string())?;
    let size = content.len() as u64;
    let at = memory.bytes().checked_sub(size).map(|at| at & !(PAGE - 1));
    let at = at.filter(|at| *at >= behind);
    let at = at.with_context(|| format!("no memory for {}", path.display()))?;
    memory.map().write_slice(&content, GuestAddress(at))?;
    Ok((u32::try_from(at)?, u32::try_from(size)?))
}

fn zero_page(
    header: setup_header,
    cmdline: &str,
    initrd: Option<(u32, u32)>,
    memory: u64,
    acpi_bytes: u64,
) -> boot_params {
    let mut params = boot_params {
        hdr: header,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    params.hdr.cmdline_size = cmdline.len() as u32;
    if let Some((at, size)) = initrd {
        (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = (at, size);
    }
    let ranges = ranges(memory, acpi_bytes);
    for (entry, (from, to, kind)) in params.e820_table.iter_mut().zip(ranges) {
        *entry = boot_e820_entry {
            addr: from,
            size: to - from,
            r#type: kind,
        };
    }
    params.e820_entries = ranges.len() as u8;
    params
}

/// What lies where in memory: first, behind the last, and e820's kind.
fn ranges(memory: u64, acpi_bytes: u64) -> [(u64, u64, u32); 3] {
    let behind = (acpi::BASE + acpi_bytes).next_multiple_of(PAGE);
    [
        (0, acpi::BASE, E820_RAM),
        (acpi::BASE, behind, E820_ACPI),
        (behind, memory, E820_RAM),
    ]
}

fn write_gdt(map: &GuestMemoryMmap) -> Result<()> {
    let gdt: [u64; SEGMENTS] = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x008f_8b00_0000_ffff,
        0x00cf_9b00_0000_ffff,
    ];
    let bytes: Vec<u8> = gdt.into_iter().flat_map(u64::to_le_bytes).collect();
    Ok(map.write_slice(&bytes, GuestAddress(GDT))?)
}

/// The first 4 GiB, where they are.
fn write_page_tables(map: &GuestMemoryMmap) -> Result<()> {
    let entry = |at: u64, value: u64| map.write_slice(&value.to_le_bytes(), GuestAddress(at));
    let pointers = PAGE_TABLES + PAGE;
    entry(PAGE_TABLES, pointers | TABLE_ENTRY)?;
    for gigabyte in 0..4 {
        let directory = pointers + PAGE * (1 + gigabyte);
        entry(pointers + 8 * gigabyte, directory | TABLE_ENTRY)?;
        for at in 0..512 {
            let frame = gigabyte << 30 | at << 21;
            entry(directory + 8 * at, frame | LARGE_PAGE)?;
        }
    }
    Ok(())
}

/// The general registers at the entry.
#[must_use]
pub fn registers(entry: Entry) -> kvm_regs {
    let registers = kvm_regs {
        rflags: 2,
        ..kvm_regs::default()
    };
    match entry {
        Entry::Linux(rip) => kvm_regs {
            rip,
            rsi: ZERO_PAGE,
            ..registers
        },
        Entry::Multiboot { entry, info } => kvm_regs {
            rip: entry,
            rax: multiboot::MAGIC,
            rbx: info,
            ..registers
        },
    }
}

/// The system registers at the entry.
#[must_use]
pub fn system_registers(reset: kvm_sregs, entry: Entry) -> kvm_sregs {
    let segment = |selector, type_, s, l, db, limit| kvm_segment {
        limit,
        selector,
        type_,
        s,
        l,
        db,
        present: 1,
        g: u8::from(limit == u32::MAX),
        ..kvm_segment::default()
    };
    let data = segment(DATA, 3, 1, 0, 1, u32::MAX);
    let mut sregs = kvm_sregs {
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: segment(TASK, 11, 0, 0, 0, 0xffff),
        ..reset
    };
    match entry {
        Entry::Linux(_) => {
            sregs.cs = segment(CODE, 11, 1, 1, 0, u32::MAX);
            // Protection and paging; PAE; SCE, LME, LMA, NXE.
            (sregs.cr0, sregs.cr3) = (0x8000_0001, PAGE_TABLES);
            (sregs.cr4, sregs.efer) = (0x20, 0xd01);
        }
        Entry::Multiboot { .. } => {
            sregs.cs = segment(CODE_32, 11, 1, 0, 1, u32::MAX);
            // Protection, and nothing else.
            (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (1, 0, 0, 0);
        }
    }
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, SEGMENTS as u16 * 8 - 1);
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs
}
