//! Where everything lies on the disk: a protective MBR with GRUB's first
//! sector, a GPT, a BIOS boot partition with the rest of GRUB, and an EFI
//! system partition (FAT) with the files.

use std::io::{Cursor, Write};

use anyhow::{Context, Result, ensure};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use gpt::mbr::ProtectiveMBR;
use gpt::{GptConfig, partition_types};

use crate::grub::Bios;

const SECTOR: usize = 512;
/// Sectors of a MiB: everything begins at one.
const MIB: u64 = (1 << 20) / SECTOR as u64;
const DISK: u64 = 32 * MIB;

/// The first sector of the BIOS boot partition.
pub(crate) const CORE_AT: u64 = MIB;
const CORE_SECTORS: u64 = MIB;
/// The EFI system partition, before the table's copy at the disk's end.
const ESP_AT: u64 = CORE_AT + CORE_SECTORS;
const ESP_SECTORS: u64 = DISK - MIB - ESP_AT;

/// The whole disk. `files` are paths on the EFI system partition and contents.
pub(crate) fn lay_out(bios: &Bios, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut disk = vec![0; DISK as usize * SECTOR];
    partition(&mut disk, bios.boot).context("writing the partition table")?;
    let core = range(&mut disk, CORE_AT, CORE_SECTORS);
    ensure!(
        bios.core.len() <= core.len(),
        "GRUB's core of {} bytes is larger than its partition",
        bios.core.len()
    );
    core[..bios.core.len()].copy_from_slice(&bios.core);
    let esp = range(&mut disk, ESP_AT, ESP_SECTORS);
    fill(esp, files).context("writing the EFI system partition")?;
    Ok(disk)
}

fn range(disk: &mut [u8], first: u64, sectors: u64) -> &mut [u8] {
    &mut disk[first as usize * SECTOR..][..sectors as usize * SECTOR]
}

/// Identifiers are random: two disks of one host must not look the same.
fn partition(disk: &mut [u8], boot: [u8; 440]) -> Result<()> {
    let mut device = Cursor::new(disk);
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(DISK - 1)?);
    mbr.set_bootcode(boot);
    mbr.overwrite_lba0(&mut device)?;
    let mut table = GptConfig::new()
        .writable(true)
        .create_from_device(device, None)?;
    let bios = partition_types::BIOS;
    table.add_partition_at("GRUB", 1, CORE_AT, CORE_SECTORS, bios, 0)?;
    let efi = partition_types::EFI;
    table.add_partition_at("EFI system", 2, ESP_AT, ESP_SECTORS, efi, 0)?;
    table.write()?;
    Ok(())
}

fn fill(esp: &mut [u8], files: &[(&str, &[u8])]) -> Result<()> {
    let mut window = Cursor::new(esp);
    let label = FormatVolumeOptions::new().volume_label(*b"FIRN       ");
    fatfs::format_volume(&mut window, label)?;
    let system = FileSystem::new(window, FsOptions::new())?;
    for (path, content) in files {
        let root = system.root_dir();
        for (slash, _) in path.match_indices('/') {
            root.create_dir(&path[..slash])?;
        }
        let mut file = root.create_file(path)?;
        let written = file.write_all(content).and_then(|()| file.flush());
        written.with_context(|| format!("{path}, {} bytes", content.len()))?;
    }
    system.unmount()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_laid_out_reads_back() {
        let bios = Bios {
            boot: [0xb0; 440],
            core: vec![0xc0; 70_000],
        };
        let files = [("a/b/one", &[1; 3_000_000][..]), ("a/two", b"2")];
        let mut disk = lay_out(&bios, &files).unwrap();
        assert_eq!(disk.len(), 32 << 20);
        assert_eq!(disk[..440], [0xb0; 440]);
        assert_eq!(disk[510..512], [0x55, 0xaa]);
        assert_eq!(disk[450], 0xee, "a protective partition");

        let table = GptConfig::new();
        let device = Cursor::new(&mut disk[..]);
        let table = table.open_from_device(device).unwrap();
        assert!(table.backup_header().is_ok());
        let of = |number: u32| {
            let part = &table.partitions()[&number];
            (part.part_type_guid.clone(), part.first_lba, part.last_lba)
        };
        assert_eq!(of(1), (partition_types::BIOS, 2048, 4095));
        assert_eq!(of(2), (partition_types::EFI, 4096, 63_487));

        let core = range(&mut disk, CORE_AT, CORE_SECTORS);
        assert_eq!(core[..70_000], bios.core);
        let esp = Cursor::new(range(&mut disk, ESP_AT, ESP_SECTORS));
        let system = FileSystem::new(esp, FsOptions::new()).unwrap();
        for (path, content) in files {
            let mut read = Vec::new();
            let mut file = system.root_dir().open_file(path).unwrap();
            file.read_to_end(&mut read).unwrap();
            assert!(read == content, "{path}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let bios = |bytes| Bios {
            boot: [0; 440],
            core: vec![0; bytes],
        };
        let error = lay_out(&bios((1 << 20) + 1), &[]).unwrap_err();
        assert!(error.to_string().contains("core of 1048577 bytes"));
        let file = vec![0; 30 << 20];
        let error = lay_out(&bios(0), &[("large", &file)]).unwrap_err();
        assert!(format!("{error:#}").contains("large, 31457280 bytes"));
    }
}
