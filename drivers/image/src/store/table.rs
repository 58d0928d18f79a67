//! The chunk table of an image that is read.

use super::{Area, MAX_RUNS};
use crate::format::CHUNK_PAGES;
use crate::format::table::{self, ENTRY_BYTES, NOTHING, RAW, RawDisk, RawEntry};
use crate::seal::Seal;
use crate::{Damage, Header, Key, SavedDisk, SlotId};
use alloc::vec::Vec;
use core::fmt;
use firn_block::PAGE;
use zerocopy::FromBytes;

/// A chunk table that was read and verified, and the disks beside it.
#[derive(Clone)]
pub struct Table {
    pub(super) header: Header,
    pub(super) area: Area,
    /// Where the VALID header lies.
    pub(super) slot: SlotId,
    disks: Vec<SavedDisk>,
    pub(super) entries: Vec<RawEntry>,
    pub(super) seal: Option<Seal>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = f.debug_struct("Table");
        table.field("header", &self.header);
        table.field("disks", &self.disks).finish_non_exhaustive()
    }
}

impl Table {
    /// The header that it belongs to.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The disks that the image names.
    #[must_use]
    pub fn disks(&self) -> &[SavedDisk] {
        &self.disks
    }

    /// The chunks that are stored, in order: number, pages, bytes on the disk,
    /// and whether it is compressed.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, usize, u64, bool)> + '_ {
        let numbered = (0..).zip(&self.entries);
        numbered
            .filter(|(_, entry)| entry.coding != NOTHING)
            .map(|(index, entry)| {
                let compressed = entry.coding == table::LZ4;
                (index, entry.page_count(), entry.padded(), compressed)
            })
    }

    /// The pages of chunk `index`, as counted from the memory's start.
    pub(super) fn pages_of(&self, index: u32) -> (usize, usize) {
        let all = self.header.heap.bytes as usize / PAGE;
        let first = index as usize * CHUNK_PAGES;
        (first, all.min(first + CHUNK_PAGES))
    }

    /// The pages of a chunk that the image does not hold.
    pub(super) fn absent(&self, chunk: usize) -> Option<impl Iterator<Item = usize> + '_> {
        let entry = self.entries.get(chunk)?;
        let (first, end) = self.pages_of(chunk as u32);
        Some((first..end).filter(move |page| !entry.has(page - first)))
    }

    /// Where the stored pages of chunk `index` belong, counted from the memory's
    /// start; without the first `skip`.
    pub(super) fn stored(&self, index: u32, skip: usize) -> impl Iterator<Item = usize> + '_ {
        let entry = self.entries.get(index as usize);
        let (first, end) = self.pages_of(index);
        let has = move |page: &usize| entry.is_some_and(|entry| entry.has(page - first));
        (first..end).filter(has).skip(skip)
    }

    /// Whether a chunk can be read straight into the memory.
    pub(super) fn in_place(&self, entry: &RawEntry) -> bool {
        self.seal.is_none() && entry.coding == RAW && entry.runs().count() <= MAX_RUNS
    }
}

/// A table from its bytes, which end with the zeros behind it.
pub(super) fn parse_table(
    header: Header,
    area: Area,
    slot: SlotId,
    key: Option<&Key>,
    bytes: &[u8],
) -> Result<Table, Damage> {
    let wrong = Damage::Table;
    let seal = match (header.sealed, key) {
        (true, Some(key)) => Some(Seal::new(key, &header)),
        (false, None) => None,
        _ => return Err(Damage::Seal),
    };
    let split = header.disks as usize * ENTRY_BYTES;
    let end = header.table_bytes() as usize;
    let (disks, rest) = bytes.split_at_checked(split).ok_or(wrong("it is short"))?;
    let entries = rest.get(..end - split).ok_or(wrong("it is short"))?;
    let behind = bytes.get(end..).unwrap_or_default();
    if behind.iter().any(|byte| *byte != 0) {
        return Err(wrong("there is something behind it"));
    }
    let disks = list::<RawDisk>(disks).ok_or(wrong("no room for it"))?;
    let entries = list::<RawEntry>(entries).ok_or(wrong("no room for it"))?;
    match &seal {
        Some(seal) => {
            // The header first: a wrong key shows there.
            if seal.header(&header) != header.layout.tag {
                return Err(Damage::Seal);
            }
            let tag = seal
                .table(&disks, &entries)
                .ok_or(wrong("no room for it"))?;
            if tag != header.layout.table_sum {
                return Err(wrong("it is not what was sealed"));
            }
        }
        None => {
            let sum = crate::format::sum::of_table(header.generation, &disks, &entries);
            if sum != header.layout.table_sum {
                return Err(wrong("its checksum is wrong"));
            }
        }
    }
    table::check(&header, &entries).map_err(wrong)?;
    Ok(Table {
        header,
        area,
        slot,
        disks: table::disks(&disks).map_err(wrong)?,
        entries,
        seal,
    })
}

/// Fixed-size records from bytes.
fn list<T: FromBytes>(bytes: &[u8]) -> Option<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(bytes.len() / size_of::<T>()).ok()?;
    let pieces = bytes.chunks_exact(size_of::<T>());
    all.extend(pieces.filter_map(|piece| T::read_from_bytes(piece).ok()));
    Some(all)
}
