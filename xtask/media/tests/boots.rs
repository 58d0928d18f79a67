//! The disk under SeaBIOS and under OVMF, in each format: GRUB finds the ELF,
//! the ELF its memory and its command line, and as this PC has no hypervisor,
//! it says so and ends.
//!
//! QEMU's VMBus needs KVM and has no disks, so nothing here can go on from
//! there to a disk on VMBus: `vmbus.rs` does, without firmware.

mod made;

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use firn_boot_tests::Emulator;
use firn_lab::{Cache, Packages};
use firn_media::{Format, save};

const CMDLINE: &str = "log=info colour=red -- disks; poweroff";
/// What is to be read on COM1 and at port 0xE9 alike.
const WORDS: [&str; 4] = [
    "option 'colour=red' is unknown",
    "entered by Multiboot2",
    "KiB usable",
    "'TCGTCGTCGTCG'",
];

#[derive(Clone, Copy)]
enum Firmware {
    Bios,
    Uefi,
}

/// The tools and the disk, made once.
fn made() -> Result<&'static (Packages, Vec<u8>)> {
    static MADE: OnceLock<Result<(Packages, Vec<u8>), String>> = OnceLock::new();
    let made = MADE.get_or_init(|| made::make(CMDLINE).map_err(|e| format!("{e:#}")));
    made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn boots(firmware: Firmware, format: Format) -> Result<()> {
    let (tools, disk) = made()?;
    let emulator = Emulator::new()?;
    let path = |name: &str| emulator.folder.path(name);
    let shown = |name: &str| path(name).to_string_lossy().into_owned();
    save(tools, disk, format, &path("disk"))?;

    let mut args: Vec<String> = ["-m", "256"].map(str::to_owned).to_vec();
    let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
    match firmware {
        Firmware::Bios => add("-M", "pc".into()),
        Firmware::Uefi => {
            let code = tools.path("usr/share/OVMF/OVMF_CODE_4M.fd");
            std::fs::copy(tools.path("usr/share/OVMF/OVMF_VARS_4M.fd"), path("vars"))?;
            let flash = "if=pflash,format=raw";
            add("-M", "q35".into());
            add(
                "-drive",
                format!("{flash},readonly=on,file={}", code.display()),
            );
            add("-drive", format!("{flash},file={}", shown("vars")));
        }
    }
    let (driver, file) = (format.driver(), shown("disk"));
    let node = "node-name=disk,file.driver=file,file.filename";
    add("-blockdev", format!("driver={driver},{node}={file}"));
    add("-device", "ide-hd,drive=disk".into());
    add("-serial", format!("file:{}", shown("com1")));
    let said = emulator.run(&args)?;

    let com1 = String::from_utf8_lossy(&std::fs::read(path("com1"))?).into_owned();
    let code = said.code;
    for (place, text) in [("COM1", &com1), ("port 0xE9", &said.early)] {
        for word in WORDS {
            ensure!(
                text.contains(word),
                "no {word} at {place}; exit code {code}; COM1:\n{com1}"
            );
        }
    }
    ensure!(code == Emulator::CRASHED, "exit code {code}; COM1:\n{com1}");
    Ok(())
}

#[test]
fn raw_by_bios() -> Result<()> {
    boots(Firmware::Bios, Format::Raw)
}

#[test]
fn vhd_by_bios() -> Result<()> {
    boots(Firmware::Bios, Format::Vhd)
}

#[test]
fn vhdx_by_bios() -> Result<()> {
    boots(Firmware::Bios, Format::Vhdx)
}

#[test]
fn raw_by_uefi() -> Result<()> {
    boots(Firmware::Uefi, Format::Raw)
}

#[test]
fn vhd_by_uefi() -> Result<()> {
    boots(Firmware::Uefi, Format::Vhd)
}

#[test]
fn vhdx_by_uefi() -> Result<()> {
    boots(Firmware::Uefi, Format::Vhdx)
}

/// Azure takes a fixed VHD of whole MiB only: the disk, then a footer.
#[test]
fn a_vhd_is_the_disk_and_a_footer() -> Result<()> {
    let (tools, disk) = made()?;
    let folder = Cache::open()?.run_folder()?;
    let file = folder.path("disk.vhd");
    save(tools, disk, Format::Vhd, &file)?;
    let bytes = std::fs::read(&file)?;
    let (body, footer) = bytes.split_at(bytes.len() - 512);
    ensure!(body == disk && body.len() % (1 << 20) == 0);
    ensure!(footer.starts_with(b"conectix") && footer[60..64] == 2u32.to_be_bytes());
    ensure!(footer[48..56] == (body.len() as u64).to_be_bytes());
    Ok(())
}
