//! VHDX, to be read: which part of the file holds which block of the disk
//! (\[MS-VHDX\], "Virtual Hard Disk v2 (VHDX) File Format", sections 2.2 to 2.6).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use crc::{CRC_32_ISCSI, Crc};
use uuid::{Uuid, uuid};

const SIGNATURE: &[u8] = b"vhdxfile";
/// Both copies of the header, and of the region table.
const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
const HEADER_BYTES: usize = 4096;
const REGIONS_BYTES: usize = 64 << 10;
const CHECKSUM: std::ops::Range<usize> = 4..8;

const BLOCK_TABLE: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");

/// Tables of entries of this size, behind a head of half or all of it.
const ENTRY: usize = 32;
const MOST_ENTRIES: usize = 2047;
/// A table of 64 KiB and what its entries name, which is a few words.
const METADATA_BYTES: usize = 1 << 20;
/// In the file parameters' second word: what is not here is in another file.
const HAS_PARENT: u32 = 2;
/// Sectors whose presence one block of bits tells; a group of the block table.
const GROUP_SECTORS: u64 = 1 << 23;
/// States of a block, in its table entry's lowest bits.
const STATE: u64 = 7;
const NOT_PRESENT_TO_UNMAPPED: std::ops::RangeInclusive<u64> = 0..=3;
const PRESENT: u64 = 6;
/// The place in the file, in the same entry: whole MiB.
const PLACE: u64 = !0xf_ffff;
/// More than any disk of ours: 1 TiB.
const MOST_BYTES: u64 = 1 << 40;

/// Where the blocks of a disk are.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Bytes of a block.
    size: u64,
    /// Each one's place in the file; those without are zeros.
    places: Vec<Option<u64>>,
}

/// The disk's size in bytes, and where its blocks are, if the file is a VHDX.
pub(super) fn read(file: &File) -> Result<Option<(u64, Blocks)>> {
    let mut signature = [0; SIGNATURE.len()];
    match file.read_exact_at(&mut signature, 0) {
        Ok(()) if signature == SIGNATURE => layout(file).context("VHDX").map(Some),
        _ => Ok(None),
    }
}

fn layout(file: &File) -> Result<(u64, Blocks)> {
    check_header(file)?;
    let regions = REGIONS.iter().find_map(|at| {
        let table = bytes(file, *at, REGIONS_BYTES).ok()?;
        (table.starts_with(b"regi") && is_sound(&table)).then_some(table)
    });
    let regions = regions.context("no region table")?;
    let count = u32_at(&regions, 8) as usize;
    let region = |which: Uuid| {
        let entry = entry(&regions[ENTRY / 2..], count, which);
        entry.map(|entry| (u64_at(entry, 16), u32_at(entry, 24)))
    };
    let (at, length) = region(METADATA).context("no metadata")?;
    let disk = metadata(&bytes(file, at, METADATA_BYTES.min(length as usize))?)?;
    let (at, length) = region(BLOCK_TABLE).context("no block table")?;
    let places = places(file, &disk, at, length.into())?;
    let size = disk.block;
    Ok((disk.bytes, Blocks { size, places }))
}

/// A log that was not played would mean that the rest cannot be believed.
fn check_header(file: &File) -> Result<()> {
    let headers = HEADERS.iter().filter_map(|at| {
        let header = bytes(file, *at, HEADER_BYTES).ok()?;
        (header.starts_with(b"head") && is_sound(&header)).then_some(header)
    });
    let newest = headers.max_by_key(|header| u64_at(header, 8));
    let header = newest.context("no header")?;
    let log = &header[48..64];
    ensure!(log.iter().all(|byte| *byte == 0), "its log was not played");
    Ok(())
}

/// What the metadata say.
struct Disk {
    bytes: u64,
    block: u64,
    sector: u64,
}

fn metadata(region: &[u8]) -> Result<Disk> {
    ensure!(
        region.starts_with(b"metadata") && region.len() >= ENTRY,
        "no metadata"
    );
    let count = u16::from_le_bytes([region[10], region[11]]).into();
    let item = |which: Uuid, length: usize| {
        let entry = entry(&region[ENTRY..], count, which);
        let at = entry.map(|entry| u32_at(entry, 16) as usize);
        let there = at.and_then(|at| region.get(at..)?.get(..length));
        there.with_context(|| format!("no {which}"))
    };
    let parameters = item(FILE_PARAMETERS, 8)?;
    ensure!(
        u32_at(parameters, 4) & HAS_PARENT == 0,
        "a part of it is in another file"
    );
    let disk = Disk {
        bytes: u64_at(item(DISK_SIZE, 8)?, 0),
        block: u32_at(parameters, 0).into(),
        sector: u32_at(item(SECTOR_SIZE, 4)?, 0).into(),
    };
    let usual = disk.bytes <= MOST_BYTES
        && disk.bytes.is_multiple_of(512)
        && disk.block.is_power_of_two()
        && (1 << 20..=256 << 20).contains(&disk.block)
        && disk.sector == 512;
    ensure!(
        usual,
        "{} bytes in blocks of {} and sectors of {}",
        disk.bytes,
        disk.block,
        disk.sector
    );
    Ok(disk)
}

/// Reads the block table: after each group of blocks an entry of another kind.
fn places(file: &File, disk: &Disk, at: u64, length: u64) -> Result<Vec<Option<u64>>> {
    let group = GROUP_SECTORS * disk.sector / disk.block;
    let count = disk.bytes.div_ceil(disk.block);
    let entries = count + count.saturating_sub(1) / group;
    ensure!(entries * 8 <= length, "its block table is too short");
    let table = bytes(file, at, entries as usize * 8)?;
    let place = |block: u64| {
        let entry = u64_at(&table, (block + block / group) as usize * 8);
        match entry & STATE {
            state if NOT_PRESENT_TO_UNMAPPED.contains(&state) => Ok(None),
            PRESENT => Ok(Some(entry & PLACE)),
            state => anyhow::bail!("block {block} is in state {state}"),
        }
    };
    (0..count).map(place).collect()
}

impl Blocks {
    /// Fills `to` with what is at offset `at` of the disk.
    pub(super) fn read_at(&self, file: &File, mut at: u64, mut to: &mut [u8]) -> io::Result<()> {
        while !to.is_empty() {
            let inside = at % self.size;
            let now = to.len().min((self.size - inside) as usize);
            let (part, rest) = to.split_at_mut(now);
            match self.places.get((at / self.size) as usize) {
                Some(Some(place)) => file.read_exact_at(part, place + inside)?,
                Some(None) => part.fill(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            (at, to) = (at + now as u64, rest);
        }
        Ok(())
    }
}

/// The entry that begins with an identifier.
fn entry(table: &[u8], count: usize, which: Uuid) -> Option<&[u8]> {
    let entries = table.chunks_exact(ENTRY).take(count.min(MOST_ENTRIES));
    let name = which.to_bytes_le();
    entries.into_iter().find(|entry| entry.starts_with(&name))
}

/// Whether the checksum is that of the rest.
fn is_sound(structure: &[u8]) -> bool {
    let said = u32_at(structure, CHECKSUM.start);
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut sum = crc.digest();
    sum.update(&structure[..CHECKSUM.start]);
    sum.update(&[0; 4]);
    sum.update(&structure[CHECKSUM.end..]);
    sum.finalize() == said
}

fn bytes(file: &File, at: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    file.read_exact_at(&mut bytes, at).map(|()| bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}
