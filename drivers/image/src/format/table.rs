//! The table: which disks the memory knew, and where each chunk lies.

use super::{CHUNK_PAGES, padded};
use crate::{DiskIdentity, Header, SavedDisk};
use alloc::vec::Vec;
use core::mem::offset_of;
use firn_block::{DiskId, PAGE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an entry, of either kind.
pub(crate) const ENTRY_BYTES: usize = 64;

/// A chunk of memory. All zero where nothing of it is stored.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct RawEntry {
    /// Checksum of the stored bytes, or the tag of the seal.
    pub(crate) sum: [u8; 16],
    /// Where, in bytes from the start of the data.
    pub(crate) place: u64,
    /// Bytes stored there, without the zeros up to the next page.
    pub(crate) stored: u32,
    /// How: nothing, the pages one after the other, or those as an LZ4 block.
    pub(crate) coding: u32,
    /// Which of the chunk's pages are stored, a bit each.
    pub(crate) pages: [u64; CHUNK_PAGES / 64],
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct RawDisk {
    id: u32,
    logical_block: u32,
    capacity: u64,
    kind: u32,
    flags: u32,
    identity: [u8; 16],
    reserved: [u8; 24],
}

const _: () = {
    assert!(size_of::<RawEntry>() == ENTRY_BYTES);
    assert!(offset_of!(RawEntry, place) == 16);
    assert!(offset_of!(RawEntry, coding) == 28);
    assert!(offset_of!(RawEntry, pages) == 32);
    assert!(size_of::<RawDisk>() == ENTRY_BYTES);
    assert!(offset_of!(RawDisk, capacity) == 8);
    assert!(offset_of!(RawDisk, identity) == 24);
};

pub(crate) const NOTHING: u32 = 0;
pub(crate) const RAW: u32 = 1;
pub(crate) const LZ4: u32 = 2;

const BY_GUID: u32 = 1;
const BY_PRINT: u32 = 2;
const READ_ONLY: u32 = 1;

impl RawEntry {
    /// How many pages are stored.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether page `index` of the chunk is stored.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.pages[index / 64] >> (index % 64) & 1 != 0
    }

    /// Notes that page `index` of the chunk is stored.
    pub(crate) fn set(&mut self, index: usize) {
        self.pages[index / 64] |= 1 << (index % 64);
    }

    /// The stored pages, as runs of neighbours: first page and count.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let first = (at..CHUNK_PAGES).find(|page| self.has(*page))?;
            let end = (first..CHUNK_PAGES).find(|page| !self.has(*page));
            at = end.unwrap_or(CHUNK_PAGES);
            Some((first, at - first))
        })
    }

    /// Bytes on the disk.
    pub(crate) const fn padded(&self) -> u64 {
        padded(self.stored as u64)
    }

    /// What a seal covers beside the bytes: all but the tag itself.
    pub(crate) fn sealed_part(&self) -> &[u8] {
        &self.as_bytes()[size_of_val(&self.sum)..]
    }

    /// Whether the entry can be: pages within the chunk's `pages`, lengths that
    /// fit, the place right behind the entry before it.
    fn check(&self, pages: usize, place: u64) -> Result<(), &'static str> {
        if self.coding == NOTHING {
            let zero = *self == Self::default();
            return zero.then_some(()).ok_or("an empty entry is not empty");
        }
        let full = self.page_count() * PAGE;
        if full == 0 || (pages..CHUNK_PAGES).any(|page| self.has(page)) {
            return Err("an entry's pages cannot be");
        }
        let fits = match self.coding {
            RAW => self.stored as usize == full,
            LZ4 => self.stored > 0 && (self.stored as usize) < full,
            _ => return Err("an entry's coding is unknown"),
        };
        if !fits {
            return Err("an entry's length cannot be");
        }
        if self.place != place {
            return Err("an entry's place is wrong");
        }
        Ok(())
    }
}

/// Whether the entries are those of `header`: every one possible, and together
/// exactly what it says.
pub(crate) fn check(header: &Header, entries: &[RawEntry]) -> Result<(), &'static str> {
    let mut left = header.heap.bytes as usize / PAGE;
    let (mut place, mut stored) = (0, 0);
    for entry in entries {
        let pages = left.min(CHUNK_PAGES);
        entry.check(pages, place)?;
        left -= pages;
        place += entry.padded();
        stored += entry.page_count() as u64;
    }
    if place != header.stored || stored != header.pages {
        return Err("its entries are not what the header says");
    }
    Ok(())
}

impl From<&SavedDisk> for RawDisk {
    fn from(disk: &SavedDisk) -> Self {
        let mut identity = [0; 16];
        let kind = match disk.identity {
            DiskIdentity::Guid(guid) => {
                identity = guid;
                BY_GUID
            }
            DiskIdentity::Print(print) => {
                identity[..8].copy_from_slice(&print.to_le_bytes());
                BY_PRINT
            }
        };
        Self {
            id: disk.id.0,
            logical_block: disk.logical_block,
            capacity: disk.capacity,
            kind,
            flags: if disk.read_only { READ_ONLY } else { 0 },
            identity,
            reserved: [0; 24],
        }
    }
}

/// The disks that a table names.
pub(crate) fn disks(raw: &[RawDisk]) -> Result<Vec<SavedDisk>, &'static str> {
    raw.iter().map(disk).collect()
}

fn disk(raw: &RawDisk) -> Result<SavedDisk, &'static str> {
    let [a, b, c, d, e, f, g, h, rest @ ..] = raw.identity;
    let identity = match raw.kind {
        BY_GUID => DiskIdentity::Guid(raw.identity),
        BY_PRINT if rest == [0; 8] => {
            DiskIdentity::Print(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        _ => return Err("a disk's identity is unknown"),
    };
    if raw.reserved != [0; 24] || raw.flags & !READ_ONLY != 0 {
        return Err("a disk's reserved bytes are not zero");
    }
    Ok(SavedDisk {
        id: DiskId(raw.id),
        capacity: raw.capacity,
        logical_block: raw.logical_block,
        read_only: raw.flags & READ_ONLY != 0,
        identity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CHUNK, Generation, State};
    use alloc::vec;

    fn header(pages: u64, stored: u64) -> Header {
        let mut header = Header::bare(Generation(1), State::Valid, 1 << 20);
        header.heap.bytes = CHUNK as u64 + 3 * PAGE as u64;
        header.chunks = 2;
        header.pages = pages;
        header.stored = stored * PAGE as u64;
        header
    }

    /// A chunk with pages 0 to 4 and 9, and one with its last page.
    fn entries() -> Vec<RawEntry> {
        let mut first = RawEntry {
            stored: 6 * PAGE as u32,
            coding: RAW,
            ..RawEntry::default()
        };
        for page in [0, 1, 2, 3, 4, 9] {
            first.set(page);
        }
        let mut second = RawEntry {
            place: 6 * PAGE as u64,
            stored: 100,
            coding: LZ4,
            ..RawEntry::default()
        };
        second.set(2);
        vec![first, second]
    }

    #[test]
    fn runs_are_the_pages_and_nothing_else() {
        let [first, second] = entries()[..] else {
            panic!("two");
        };
        assert!(first.runs().eq([(0, 5), (9, 1)]));
        assert!(second.runs().eq([(2, 1)]));
        let mut all = RawEntry::default();
        (0..CHUNK_PAGES).for_each(|page| all.set(page));
        assert!(all.runs().eq([(0, CHUNK_PAGES)]));
        assert_eq!(RawEntry::default().runs().count(), 0);
    }

    /// A change, and what is said about it.
    type Lie = (fn(&mut [RawEntry]), &'static str);

    #[test]
    fn a_right_checksum_makes_no_entry_true() {
        assert_eq!(check(&header(7, 7), &entries()), Ok(()));
        let lies: [Lie; 11] = [
            (|e| e[0].coding = 3, "an entry's coding is unknown"),
            (|e| e[0].coding = 0, "an empty entry is not empty"),
            (|e| e[0].pages = [0; 4], "an entry's pages cannot be"),
            (|e| e[1].set(3), "an entry's pages cannot be"),
            (|e| e[0].stored -= 1, "an entry's length cannot be"),
            (|e| e[0].stored = u32::MAX, "an entry's length cannot be"),
            (|e| e[1].stored = 4096, "an entry's length cannot be"),
            (|e| e[1].stored = 0, "an entry's length cannot be"),
            (|e| e[1].place = 0, "an entry's place is wrong"),
            (|e| e[1].place = u64::MAX, "an entry's place is wrong"),
            (
                |e| e[1] = RawEntry::default(),
                "its entries are not what the header says",
            ),
        ];
        for (number, (lie, what)) in lies.into_iter().enumerate() {
            let mut entries = entries();
            lie(&mut entries);
            assert_eq!(check(&header(7, 7), &entries), Err(what), "lie {number}");
        }
        let what = "its entries are not what the header says";
        assert_eq!(check(&header(8, 7), &entries()), Err(what));
        assert_eq!(check(&header(7, 8), &entries()), Err(what));
    }

    #[test]
    fn disks_come_back_and_strange_ones_do_not() {
        let saved = SavedDisk {
            id: DiskId(4),
            capacity: 77,
            logical_block: 4096,
            read_only: true,
            identity: DiskIdentity::Print(99),
        };
        let raw = RawDisk::from(&saved);
        assert_eq!(disks(&[raw]), Ok(vec![saved]));
        let strange = [
            RawDisk { kind: 3, ..raw },
            RawDisk { flags: 2, ..raw },
            RawDisk {
                reserved: [1; 24],
                ..raw
            },
            RawDisk {
                identity: [1; 16],
                ..raw
            },
        ];
        for raw in strange {
            assert!(disks(&[raw]).is_err());
        }
    }
}
