use std::io::{Cursor, Write};

use crc::{CRC_32_ISCSI, Crc};
use fatfs::FormatVolumeOptions;
use gpt::mbr::ProtectiveMBR;
use uuid::Uuid;

use super::*;

const DISK: usize = 4 << 20;
const FIRST: u64 = 2048;
const SECTORS: u64 = 4096;
/// In a VHDX, behind the table of what they are.
const ITEMS: usize = 64 << 10;
const LINE: &str = "multiboot2 /firn/firn.elf 'log=info' '--' 'poweroff'\nboot\n";

/// A disk with one partition that has these files.
fn disk(kind: gpt::partition_types::Type, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; DISK];
    let mut device = Cursor::new(&mut disk[..]);
    let mbr = ProtectiveMBR::with_lb_size((DISK / 512 - 1) as u32);
    mbr.overwrite_lba0(&mut device).unwrap();
    let config = GptConfig::new().writable(true);
    let mut table = config.create_from_device(device, None).unwrap();
    table
        .add_partition_at("EFI", 2, FIRST, SECTORS, kind, 0)
        .unwrap();
    table.write().unwrap();
    let part = &mut disk[FIRST as usize * 512..][..SECTORS as usize * 512];
    fatfs::format_volume(Cursor::new(&mut *part), FormatVolumeOptions::new()).unwrap();
    let system = FileSystem::new(Cursor::new(part), FsOptions::new()).unwrap();
    for (path, content) in files {
        let root = system.root_dir();
        root.create_dir("firn").unwrap();
        let mut file = root.create_file(path).unwrap();
        file.write_all(content).unwrap();
        file.flush().unwrap();
    }
    system.unmount().unwrap();
    disk
}

fn usual() -> Vec<u8> {
    let kernel: Vec<u8> = (0..70_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
    let files = [(CONFIG, LINE.as_bytes()), ("firn/firn.elf", &kernel)];
    disk(partition_types::EFI, &files)
}

fn medium(file: &[u8]) -> Result<Medium> {
    let there = tempfile::NamedTempFile::new()?;
    std::fs::write(there.path(), file)?;
    Medium::open(there.path())
}

fn refused(file: &[u8]) -> String {
    let start = medium(file).and_then(|medium| medium.start());
    format!("{:#}", start.unwrap_err())
}

/// The disk, and the footer of a fixed VHD.
fn vhd(mut disk: Vec<u8>) -> Vec<u8> {
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(FOOTER);
    footer[FOOTER_SIZE].copy_from_slice(&(disk.len() as u64).to_be_bytes());
    footer[FOOTER_KIND].copy_from_slice(&FIXED);
    disk.extend(footer);
    disk
}

/// Sets the checksum of a structure.
fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let sum = Crc::<u32>::new(&CRC_32_ISCSI).checksum(structure);
    structure[4..8].copy_from_slice(&sum.to_le_bytes());
}

fn entry(which: &str, at: u64, length: u32) -> Vec<u8> {
    let mut entry = Uuid::parse_str(which).unwrap().to_bytes_le().to_vec();
    entry.extend(at.to_le_bytes());
    entry.extend(length.to_le_bytes());
    entry.resize(32, 0);
    entry
}

/// The disk as a VHDX with blocks of 1 MiB, from behind forwards; the last one,
/// which must be zeros, is not there.
fn vhdx(disk: &[u8]) -> Vec<u8> {
    const MIB: usize = 1 << 20;
    let blocks: Vec<&[u8]> = disk.chunks(MIB).collect();
    let mut file = vec![0; (2 + blocks.len()) * MIB];
    file[..8].copy_from_slice(b"vhdxfile");
    for (number, at) in [(1u64, 64 << 10), (2, 128 << 10)] {
        let header = &mut file[at..][..4096];
        header[..4].copy_from_slice(b"head");
        header[8..16].copy_from_slice(&number.to_le_bytes());
        seal(header);
    }
    let regions = &mut file[192 << 10..][..64 << 10];
    regions[..4].copy_from_slice(b"regi");
    regions[8] = 2;
    let bat = entry("2dc27766-f623-4200-9d64-115e9bfd4a08", 512 << 10, 4096);
    let metadata = entry("8b7ca206-4790-4b9a-b8fe-575f050f886e", 1 << 20, 1 << 20);
    regions[16..48].copy_from_slice(&bat);
    regions[48..80].copy_from_slice(&metadata);
    seal(regions);
    let metadata = &mut file[MIB..][..MIB];
    metadata[..8].copy_from_slice(b"metadata");
    metadata[10] = 3;
    for (number, (which, value)) in [
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", MIB as u64),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", disk.len() as u64),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", 512),
    ]
    .into_iter()
    .enumerate()
    {
        let place = ITEMS | number << 3;
        let item = entry(which, place as u64 | 8 << 32, 0);
        metadata[32 + 32 * number..][..32].copy_from_slice(&item);
        metadata[place..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let last = blocks.len() - 1;
    for (number, block) in blocks[..last].iter().enumerate() {
        let place = (1 + last - number) * MIB;
        file[place..][..MIB].copy_from_slice(block);
        let entry = (place as u64 | 6).to_le_bytes();
        file[(512 << 10) + 8 * number..][..8].copy_from_slice(&entry);
    }
    assert!(blocks[last].iter().all(|byte| *byte == 0), "not zeros");
    file
}

#[test]
fn every_format_starts_the_same_kernel() {
    let raw = usual();
    // The copy of the partition table is in the last block: zeros for a VHDX.
    let mut without = raw.clone();
    without[DISK - (1 << 20)..].fill(0);
    for file in [raw.clone(), vhd(raw), vhdx(&without)] {
        let medium = medium(&file).unwrap();
        assert_eq!(medium.bytes, DISK as u64);
        let start = medium.start().unwrap();
        assert_eq!(start.cmdline, "log=info -- poweroff");
        assert_eq!(start.kernel.len(), 70_000);
        let right = |(n, byte): (usize, &u8)| *byte == n as u8 ^ (n >> 8) as u8;
        assert!(start.kernel.iter().enumerate().all(right));
        let disk = medium.disk();
        let mut middle = vec![0; 3 << 20];
        disk.read(1024, &mut middle).unwrap();
        assert!(middle == without[1024 * 512..][..3 << 20]);
        assert!(disk.write(0, &[1; 512]).is_err());
    }
}

#[test]
fn what_no_firmware_would_start_is_named() {
    assert!(refused(&[0; 100]).contains("no whole sector"));
    assert!(refused(&[0; 4096]).contains("no partition table"));
    let other = disk(partition_types::BIOS, &[]);
    assert!(refused(&other).contains("no EFI system partition"));
    let empty = disk(partition_types::EFI, &[]);
    assert!(refused(&empty).contains(CONFIG));
    let alone = disk(partition_types::EFI, &[(CONFIG, LINE.as_bytes())]);
    assert!(refused(&alone).contains("firn/firn.elf"));
}

#[test]
fn a_vhd_or_vhdx_of_another_kind_is_refused() {
    let mut differencing = vhd(usual());
    let kind = differencing.len() - 512 + FOOTER_KIND.end - 1;
    differencing[kind] = 4;
    assert!(refused(&differencing).contains("not a fixed one"));

    let sound = vhdx(&[0; DISK]);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = sound.clone();
        change(&mut file);
        refused(&file)
    };
    // The older header has no log: it is the newer one that counts.
    let log = |file: &mut Vec<u8>| {
        file[(128 << 10) + 48] = 1;
        seal(&mut file[128 << 10..][..4096]);
    };
    assert!(with(&log).contains("log was not played"));
    let torn = |file: &mut Vec<u8>| {
        file[(64 << 10) + 100] = 1;
        file[(128 << 10) + 100] = 1;
    };
    assert!(with(&torn).contains("no header"));
    assert!(with(&|file| file[192 << 10] = 0).contains("no region table"));
    let parent = |file: &mut Vec<u8>| file[(1 << 20) + ITEMS + 4] = 2;
    assert!(with(&parent).contains("in another file"));
    let huge = |file: &mut Vec<u8>| file[(1 << 20) + ITEMS + 8 + 5] = 0xff;
    assert!(with(&huge).contains("bytes in blocks of"));
    let long = |file: &mut Vec<u8>| file[(1 << 20) + ITEMS + 8 + 4] = 0xff;
    assert!(with(&long).contains("too short"));
    let state = |file: &mut Vec<u8>| file[512 << 10] |= 1;
    assert!(with(&state).contains("is in state 7"));
}
