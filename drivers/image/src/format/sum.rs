//! Checksums: XXH64, seeded so that bytes verify only in their place.
//! docs/adr/0010-checksums.md says why this one.

use super::{header::RawHeader, table};
use crate::Generation;
use xxhash_rust::xxh64::{Xxh64, xxh64};
use zerocopy::IntoBytes;

/// What a sum is for; part of the seed.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Table,
    Chunk(u32),
}

/// A running sum.
pub(crate) struct Sum(Xxh64);

impl Sum {
    /// A sum of image `generation`: another image's bytes, or another chunk's,
    /// have another.
    pub(crate) fn new(generation: Generation, of: Of) -> Self {
        let place = match of {
            Of::Table => 1 << 32,
            Of::Chunk(index) => u64::from(index),
        };
        // Odd, so no two generations of one place share a seed.
        let seed = generation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place;
        Self(Xxh64::new(seed))
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum as it stands in an entry: eight bytes, then zeros.
    pub(crate) fn end(&self) -> [u8; 16] {
        let mut sum = [0; 16];
        sum[..8].copy_from_slice(&self.0.digest().to_le_bytes());
        sum
    }
}

/// The checksum at the end of a header.
pub(crate) fn of_header(header: &RawHeader) -> u64 {
    const SEED: u64 = u64::from_le_bytes(super::MAGIC);
    let bytes = header.as_bytes();
    xxh64(&bytes[..bytes.len() - size_of::<u64>()], SEED)
}

/// The checksum of a table, with the zeros behind it.
pub(crate) fn of_table(
    generation: Generation,
    disks: &[table::RawDisk],
    entries: &[table::RawEntry],
) -> [u8; 16] {
    let mut sum = Sum::new(generation, Of::Table);
    sum.add(disks.as_bytes());
    sum.add(entries.as_bytes());
    let bytes = super::table_bytes(disks.len() as u64, entries.len() as u64);
    let zeros = [0; firn_block::PAGE];
    sum.add(&zeros[..(super::padded(bytes) - bytes) as usize]);
    sum.end()
}

/// A fingerprint: the sum of some bytes of a disk.
pub(crate) struct Print(Xxh64);

impl Print {
    pub(crate) fn new() -> Self {
        Self(Xxh64::new(0))
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn end(&self) -> u64 {
        self.0.digest()
    }
}
