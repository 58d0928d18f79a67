//! GRUB: its two programs, made by `grub-mkimage`, and its configuration.
//!
//! A BIOS reads the disk's first sector, which must know where the second part
//! lies, whose own first sector must know where the rest lies. `grub-install`
//! writes these numbers on a disk that it can open as one; here they are put
//! into the bytes. Offsets are those of GRUB's boot sectors (GRUB 2.12,
//! `include/grub/i386/pc/boot.h`).

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use firn_lab::Packages;

/// GRUB's configuration, on the EFI system partition.
pub(crate) const CONFIG: &str = "firn/grub.cfg";
/// The ELF, on the EFI system partition.
pub(crate) const KERNEL: &str = "firn/firn.elf";
/// Where both programs look for [`CONFIG`]: on the disk that they came from.
const PREFIX: &str = "(,gpt2)/firn";
/// What both need. All of it is inside the program: no module is loaded later.
const MODULES: &[&str] = &["part_gpt", "fat", "normal", "multiboot2", "serial"];
/// The longest command line that the ELF takes, with its end.
const COMMAND_LINE_MAX: usize = 4096;

/// In `boot.img`: the sector of the second part, and the drive (0xff: the one
/// that the BIOS names).
const KERNEL_SECTOR: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
/// In `boot.img`: a jump over what mends the drive number of a careless BIOS;
/// `grub-install` takes it out on hard disks.
const DRIVE_CHECK: usize = 0x66;
/// In the second part's first sector: first sector of the rest, how many, and
/// the segment that they are loaded to.
const REST: usize = 0x200 - 12;
const REST_SEGMENT: u16 = 0x820;

/// What a BIOS starts.
pub(crate) struct Bios {
    /// The code of the first sector.
    pub(crate) boot: [u8; 440],
    /// What the BIOS boot partition holds.
    pub(crate) core: Vec<u8>,
}

/// GRUB for a BIOS, with its second part at sector `at`.
pub(crate) fn bios(tools: &Packages, at: u64) -> Result<Bios> {
    let path = tools.path("usr/lib/grub/i386-pc/boot.img");
    let boot = fs::read(&path).with_context(|| path.display().to_string())?;
    let core = make(tools, "i386-pc", &["biosdisk"])?;
    install(boot, core, at)
}

/// GRUB for UEFI.
pub(crate) fn efi(tools: &Packages) -> Result<Vec<u8>> {
    make(tools, "x86_64-efi", &[])
}

fn make(tools: &Packages, platform: &str, more: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("grub");
    let shown = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let modules = shown(&tools.path("usr/lib/grub").join(platform));
    let out_text = shown(&out);
    let mut args = vec![
        "-O", platform, "-d", &modules, "-p", PREFIX, "-o", &out_text,
    ];
    args.extend(MODULES.iter().chain(more));
    tools.run("usr/bin/grub-mkimage", &args)?;
    fs::read(&out).context("grub-mkimage made nothing")
}

/// Puts the numbers into both first sectors, after a look at what stands there.
fn install(mut boot: Vec<u8>, mut core: Vec<u8>, at: u64) -> Result<Bios> {
    let known = boot.len() == 512
        && boot[KERNEL_SECTOR..][..8] == 1u64.to_le_bytes()
        && boot[BOOT_DRIVE] == 0xff
        && boot[DRIVE_CHECK] == 0xeb;
    ensure!(known, "this GRUB's first sector is laid out in another way");
    boot[KERNEL_SECTOR..][..8].copy_from_slice(&at.to_le_bytes());
    boot[DRIVE_CHECK..][..2].fill(0x90);

    let rest = core.len().div_ceil(512).saturating_sub(1);
    let known = core.len() > 512
        && core[REST + 8..][..2] == u16::try_from(rest)?.to_le_bytes()
        && core[REST + 10..][..2] == REST_SEGMENT.to_le_bytes();
    ensure!(known, "this GRUB's second part is laid out in another way");
    core[REST..][..8].copy_from_slice(&(at + 1).to_le_bytes());
    let code = boot.first_chunk().context("a whole sector")?;
    Ok(Bios { boot: *code, core })
}

/// The configuration that starts the ELF at once. Messages of GRUB go to COM1 as
/// well, where there is one.
pub(crate) fn config(cmdline: &str) -> Result<String> {
    let words = quoted(cmdline)?;
    Ok(format!(
        "if serial --unit=0 --speed=115200; then terminal_output console serial; fi\n\
         multiboot2 /{KERNEL}{words}\n\
         boot\n"
    ))
}

/// The words of a command line as GRUB's language has them.
fn quoted(cmdline: &str) -> Result<String> {
    // GRUB hands a word over with a backslash before each of these.
    if let Some(bad) = cmdline
        .chars()
        .find(|c| matches!(c, '\\' | '\'' | '"') || c.is_control())
    {
        bail!("the command line contains {bad:?}, which GRUB does not hand over as it is");
    }
    ensure!(
        cmdline.len() < COMMAND_LINE_MAX,
        "the command line has {} bytes; the limit is {}",
        cmdline.len(),
        COMMAND_LINE_MAX - 1
    );
    let words = cmdline.split_whitespace();
    Ok(words.map(|word| format!(" '{word}'")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First sectors as GRUB has them before they are installed.
    fn uninstalled() -> (Vec<u8>, Vec<u8>) {
        let (mut boot, mut core) = (vec![0; 512], vec![7; 1300]);
        boot[KERNEL_SECTOR] = 1;
        boot[BOOT_DRIVE] = 0xff;
        boot[DRIVE_CHECK..][..2].copy_from_slice(&[0xeb, 5]);
        core[REST..512].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8]);
        (boot, core)
    }

    #[test]
    fn each_part_learns_where_the_next_one_is() {
        let (boot, core) = uninstalled();
        let bios = install(boot, core, 0x1_0000_0800).unwrap();
        assert_eq!(bios.boot[0x5c..0x64], 0x1_0000_0800u64.to_le_bytes());
        assert_eq!(bios.boot[0x66..0x68], [0x90; 2]);
        assert_eq!(bios.core[0x1f4..0x1fc], 0x1_0000_0801u64.to_le_bytes());
        assert_eq!(bios.core[0x1fc..0x200], [2, 0, 0x20, 8]);
    }

    #[test]
    fn another_grub_is_refused() {
        for at in [KERNEL_SECTOR, BOOT_DRIVE, DRIVE_CHECK] {
            let (mut boot, core) = uninstalled();
            boot[at] ^= 1;
            assert!(install(boot, core, 2048).is_err(), "{at:#x}");
        }
        for at in [REST + 8, REST + 10] {
            let (boot, mut core) = uninstalled();
            core[at] ^= 1;
            assert!(install(boot, core, 2048).is_err(), "{at:#x}");
        }
        let (boot, core) = uninstalled();
        assert!(install(boot, core[..512].to_vec(), 2048).is_err());
    }

    #[test]
    fn words_reach_the_kernel_as_they_are() {
        let words = quoted("log=info  -- verify disk=xvda size=$x; poweroff").unwrap();
        let expected = " 'log=info' '--' 'verify' 'disk=xvda' 'size=$x;' 'poweroff'";
        assert_eq!(words, expected);
        assert_eq!(quoted("").unwrap(), "");
        for bad in ["text=\"a b\"", "it's", "a\\b", "a\nboot"] {
            assert!(quoted(bad).is_err(), "{bad}");
        }
        assert!(quoted(&"a".repeat(4095)).is_ok());
        assert!(quoted(&"a".repeat(4096)).is_err());
    }
}
