//! What tells one disk from another wherever it is plugged in: its partition
//! table.
//!
//! The table is read with the `gpt_disk_io` crate from bytes that were copied
//! off the disk; everything in it is checked, nothing is believed.

use crate::SECTOR;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use gpt_disk_io::gpt_disk_types::{BlockSize, GptHeader, GptPartitionEntry, Guid};
use gpt_disk_io::{BlockIoAdapter, Disk};

/// Entries that are looked at; the usual number, and the least a table has.
const MAX_ENTRIES: u32 = 128;

/// A GUID partition table (UEFI specification, chapter 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// Names the disk.
    pub disk: Guid,
    /// The entries in use.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 1 on.
    pub number: u32,
    /// What it is for.
    pub kind: Guid,
    /// Names the partition.
    pub id: Guid,
    /// A label for people.
    pub name: String,
    /// First sector, in units of 512 bytes.
    pub first: u64,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
}

/// Why a partition table is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A logical block size that no table has.
    BlockSize(u32),
    /// The checksum of the header or of the entries is wrong.
    Checksum(&'static str),
    /// A field has a value that cannot be.
    Field(&'static str),
    /// The entries lie beyond the bytes that were given.
    TooFar,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlockSize(bytes) => write!(f, "no partition table has blocks of {bytes} bytes"),
            Self::Checksum(what) => write!(f, "the partition table's {what} checksum is wrong"),
            Self::Field(what) => write!(f, "the partition table's {what} cannot be"),
            Self::TooFar => f.write_str("the partition entries are not at the disk's start"),
        }
    }
}

impl core::error::Error for TableError {}

impl PartitionTable {
    /// How much of the disk's start [`PartitionTable::parse`] wants, in bytes.
    #[must_use]
    pub const fn wanted(logical_block: u32) -> usize {
        2 * logical_block as usize + MAX_ENTRIES as usize * size_of::<GptPartitionEntry>()
    }

    /// Reads the table from the first bytes of a disk; `None` where there is
    /// none. `capacity` is the disk's size in sectors of 512 bytes.
    ///
    /// # Errors
    /// [`TableError`] when there is a table, and it is damaged.
    pub fn parse(
        start: &[u8],
        logical_block: u32,
        capacity: u64,
    ) -> Result<Option<Self>, TableError> {
        let block = BlockSize::new(logical_block).ok_or(TableError::BlockSize(logical_block))?;
        let mut disk = Disk::new(BlockIoAdapter::new(start, block))
            .map_err(|_| TableError::BlockSize(logical_block))?;
        let mut buffer = vec![0; logical_block as usize];
        let Ok(header) = disk.read_primary_gpt_header(&mut buffer) else {
            return Ok(None);
        };
        if !header.is_signature_valid() {
            return Ok(None);
        }
        check(&header)?;
        let layout = header
            .get_partition_entry_array_layout()
            .map_err(|_| TableError::Field("entry size"))?;
        let bytes = layout
            .num_bytes_rounded_to_block_as_usize(block)
            .filter(|bytes| *bytes <= start.len())
            .ok_or(TableError::TooFar)?;
        let mut storage = vec![0; bytes];
        let entries = disk
            .read_gpt_partition_entry_array(layout, &mut storage)
            .map_err(|_| TableError::TooFar)?;
        if entries.calculate_crc32() != header.partition_entry_array_crc32 {
            return Err(TableError::Checksum("entry"));
        }
        let per_block = u64::from(logical_block) / SECTOR;
        let mut partitions = Vec::new();
        for index in 0..layout.num_entries {
            let Some(entry) = entries.get_partition_entry(index) else {
                break;
            };
            if entry.is_used() {
                partitions.push(partition(index, entry, per_block, capacity)?);
            }
        }
        Ok(Some(Self {
            disk: header.disk_guid,
            partitions,
        }))
    }
}

fn check(header: &GptHeader) -> Result<(), TableError> {
    if header.calculate_header_crc32() != header.header_crc32 {
        return Err(TableError::Checksum("header"));
    }
    if header.number_of_partition_entries.to_u32() > MAX_ENTRIES {
        return Err(TableError::Field("number of entries"));
    }
    Ok(())
}

fn partition(
    index: u32,
    entry: &GptPartitionEntry,
    per_block: u64,
    capacity: u64,
) -> Result<Partition, TableError> {
    let wrong = TableError::Field("partition range");
    let range = entry.lba_range().ok_or(wrong)?;
    let first = range.start().to_u64().checked_mul(per_block).ok_or(wrong)?;
    let blocks = range.end().to_u64() - range.start().to_u64();
    let sectors = blocks
        .checked_add(1)
        .and_then(|blocks| blocks.checked_mul(per_block))
        .ok_or(wrong)?;
    if first.checked_add(sectors).is_none_or(|end| end > capacity) {
        return Err(wrong);
    }
    let kind = entry.partition_type_guid;
    let name = entry.name;
    Ok(Partition {
        number: index + 1,
        kind: kind.0,
        id: entry.unique_partition_guid,
        name: name.chars().collect(),
        first,
        sectors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt_disk_io::gpt_disk_types::{
        GptPartitionEntryArray, GptPartitionType, LbaLe, U32Le, guid,
    };

    const DISK: Guid = guid!("11111111-2222-3333-4444-555555555555");
    const CAPACITY: u64 = 1 << 20;

    /// The start of a disk with one partition of `last - 63` blocks from 64 on.
    fn disk(block: u32, last: u64) -> Vec<u8> {
        let mut header = GptHeader {
            my_lba: LbaLe::from_u64(1),
            partition_entry_lba: LbaLe::from_u64(2),
            number_of_partition_entries: U32Le::from_u32(MAX_ENTRIES),
            disk_guid: DISK,
            ..GptHeader::default()
        };
        let size = BlockSize::new(block).expect("a block size");
        let layout = header
            .get_partition_entry_array_layout()
            .expect("the usual layout");
        let bytes = layout
            .num_bytes_rounded_to_block_as_usize(size)
            .expect("small");
        let mut storage = vec![0; bytes];
        let mut entries = GptPartitionEntryArray::new(layout, size, &mut storage).expect("fits");
        *entries.get_partition_entry_mut(0).expect("the first") = GptPartitionEntry {
            partition_type_guid: GptPartitionType(DISK),
            unique_partition_guid: DISK,
            starting_lba: LbaLe::from_u64(64),
            ending_lba: LbaLe::from_u64(last),
            name: "data".parse().expect("a name"),
            ..GptPartitionEntry::default()
        };
        header.partition_entry_array_crc32 = entries.calculate_crc32();
        header.update_header_crc32();
        let mut start = vec![0; PartitionTable::wanted(block)];
        let mut io = Disk::new(BlockIoAdapter::new(&mut start[..], size)).expect("a disk");
        let mut buffer = vec![0; block as usize];
        io.write_primary_gpt_header(&header, &mut buffer)
            .expect("written");
        io.write_gpt_partition_entry_array(&entries)
            .expect("written");
        drop(io);
        start
    }

    #[test]
    fn reads_partitions_at_both_block_sizes() {
        for (block, per_block) in [(512, 1), (4096, 8)] {
            let table = PartitionTable::parse(&disk(block, 127), block, CAPACITY)
                .expect("a sound table")
                .expect("a table");
            assert_eq!(table.disk, DISK);
            let [part] = &table.partitions[..] else {
                panic!("one partition, not {:?}", table.partitions);
            };
            assert_eq!((part.number, part.name.as_str()), (1, "data"));
            assert_eq!((part.first, part.sectors), (64 * per_block, 64 * per_block));
        }
    }

    #[test]
    fn a_disk_without_a_table_has_none() {
        let empty = vec![0; PartitionTable::wanted(512)];
        assert_eq!(PartitionTable::parse(&empty, 512, CAPACITY), Ok(None));
        assert_eq!(PartitionTable::parse(&[], 512, CAPACITY), Ok(None));
    }

    #[test]
    fn every_flipped_bit_of_header_and_entry_is_noticed() {
        let good = disk(512, 127);
        let sound = PartitionTable::parse(&good, 512, CAPACITY);
        for at in (512..512 + 92).chain(1024..1024 + 128) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_ne!(
                    PartitionTable::parse(&bad, 512, CAPACITY),
                    sound,
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn partitions_stay_on_the_disk() {
        let outside = disk(512, CAPACITY);
        assert_eq!(
            PartitionTable::parse(&outside, 512, CAPACITY),
            Err(TableError::Field("partition range"))
        );
        let backwards = disk(512, 3);
        assert_eq!(
            PartitionTable::parse(&backwards, 512, CAPACITY),
            Err(TableError::Field("partition range"))
        );
        assert_eq!(
            PartitionTable::parse(&outside, 100, CAPACITY),
            Err(TableError::BlockSize(100))
        );
    }
}
