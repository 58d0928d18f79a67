//! Boot media: one disk that starts the ELF by BIOS and by UEFI.
//!
//! GRUB, from Debian's packages, loads the ELF by Multiboot2 either way. The
//! disk is written without root, loop devices or anything installed:
//!
//! ```no_run
//! # use std::path::Path;
//! # use firn_media::Format;
//! # fn main() -> anyhow::Result<()> {
//! let cache = firn_lab::Cache::open()?;
//! let tools = firn_lab::Packages::of_media(&cache, &|step| println!("{step}"))?;
//! let elf = std::fs::read("target/firn.elf")?;
//! let disk = firn_media::disk(&tools, &elf, "log=info -- disks; poweroff")?;
//! firn_media::save(&tools, &disk, Format::Vhdx, Path::new("target/firn.vhdx"))?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod file;
mod grub;
mod layout;

use anyhow::Result;
use firn_lab::Packages;

pub use file::{Format, save};

/// The bytes of a disk that starts `elf` with the command line `cmdline`.
///
/// # Errors
/// GRUB's tools fail, the command line cannot be handed over as it is, or the
/// ELF does not fit.
pub fn disk(tools: &Packages, elf: &[u8], cmdline: &str) -> Result<Vec<u8>> {
    let bios = grub::bios(tools, layout::CORE_AT)?;
    let efi = grub::efi(tools)?;
    let config = grub::config(cmdline)?;
    let files = [
        // Where UEFI looks on a disk that it was told nothing of.
        ("EFI/BOOT/BOOTX64.EFI", efi.as_slice()),
        (grub::CONFIG, config.as_bytes()),
        (grub::KERNEL, elf),
    ];
    layout::lay_out(&bios, &files)
}
