//! Blocks that say what they are: written by `verify`, checked by `verify` and
//! by the host. `docs/verify-format.md` describes the bytes.
//!
//! Every 512-byte sector of a block carries the whole description, so that a
//! block of which only some sectors arrived, or arrived elsewhere, is told from
//! one that was damaged, and the sector can be named. Pure functions: no disk,
//! no time, no allocation.

use crate::rng::{Rng, mix};
use core::fmt;
use crc::{CRC_32_ISCSI, Crc, Table};
use firn_block::SECTOR;

/// Bytes in a sector.
pub const SECTOR_BYTES: usize = SECTOR as usize;

/// First bytes of every sector.
pub const MAGIC: [u8; 4] = *b"FRNV";

/// Version of the format.
pub const VERSION: u16 = 1;

/// Smallest and largest block in bytes.
pub const BLOCK_SIZES: core::ops::RangeInclusive<u32> = 512..=(16 << 20);

const PAYLOAD: core::ops::Range<usize> = 40..504;
const INDEX: usize = 504;
const CHECKSUM: usize = 508;

pub(crate) static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What one run of `verify` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Tells this run's blocks from other runs'.
    pub seed: u64,
    /// Tells this writing of a block from earlier ones.
    pub generation: u64,
    /// Bytes in a block, a multiple of 512.
    pub block: u32,
}

impl Pattern {
    /// The 512 bytes that belong to `sector`, the `index`th of its block.
    #[must_use]
    pub fn sector(&self, sector: u64, index: u32) -> [u8; SECTOR_BYTES] {
        let mut bytes = [0; SECTOR_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seed.to_le_bytes());
        bytes[16..24].copy_from_slice(&sector.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.block.to_le_bytes());
        let mut words = Rng::new(mix(mix(self.seed ^ mix(sector)) ^ self.generation));
        for word in bytes[PAYLOAD].as_chunks_mut::<8>().0 {
            *word = words.next_u64().to_le_bytes();
        }
        bytes[INDEX..CHECKSUM].copy_from_slice(&index.to_le_bytes());
        let checksum = CRC32C.checksum(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Fills `data`, which starts at a block boundary, with what belongs to the
    /// sectors from `sector` on. A part of a sector at the end is left alone.
    pub fn fill(&self, sector: u64, data: &mut [u8]) {
        let sectors = data.as_chunks_mut::<SECTOR_BYTES>().0;
        for ((sector, index), bytes) in self.places(sector).zip(sectors) {
            *bytes = self.sector(sector, index);
        }
    }

    /// Checks that `data`, which starts at a block boundary, is what belongs to
    /// the sectors from `sector` on. A part of a sector at the end is ignored.
    ///
    /// # Errors
    /// The first sector that is wrong, and how.
    pub fn check(&self, sector: u64, data: &[u8]) -> Result<(), Mismatch> {
        let sectors = data.as_chunks::<SECTOR_BYTES>().0;
        let mut places = self.places(sector).zip(sectors);
        match places.position(|((sector, index), found)| *found != self.sector(sector, index)) {
            Some(wrong) => Err(self.explain(sector, sectors, wrong)),
            None => Ok(()),
        }
    }

    /// Sectors in a block.
    const fn of(&self) -> u32 {
        match self.block / SECTOR as u32 {
            0 => 1,
            sectors => sectors,
        }
    }

    /// Sector numbers from `sector` on, each with its index in its block.
    fn places(&self, sector: u64) -> impl Iterator<Item = (u64, u32)> {
        let indices = (0..self.of()).cycle();
        (0u64..).map(move |at| sector.wrapping_add(at)).zip(indices)
    }

    /// Says what is wrong with `sectors[wrong]`, seen together with the other
    /// sectors of its block.
    #[cold]
    fn explain(&self, first: u64, sectors: &[[u8; SECTOR_BYTES]], wrong: usize) -> Mismatch {
        let of = self.of() as usize;
        let start = wrong - wrong % of;
        let block = sectors.iter().skip(start).take(of);
        let numbers = self.places(first.wrapping_add(start as u64));
        let bad = numbers
            .zip(block.clone())
            .filter(|((sector, index), found)| **found != self.sector(*sector, *index));
        let (bad, of) = (bad.count() as u32, block.count() as u32);
        let sector = first.wrapping_add(wrong as u64);
        let what = self.difference(sector, (wrong - start) as u32, &sectors[wrong]);
        let what = match what {
            Difference::Generation { found } if bad < of => Difference::Torn { found },
            what => what,
        };
        Mismatch {
            sector,
            what,
            bad,
            of,
        }
    }

    fn difference(&self, sector: u64, index: u32, found: &[u8; SECTOR_BYTES]) -> Difference {
        let expected = self.sector(sector, index);
        if found.iter().all(|byte| *byte == 0) {
            return Difference::Zero;
        }
        let header = Header::of(found);
        if header.intact {
            return self.other(sector, index, &header, &expected, found);
        }
        let differing = expected.iter().zip(found).filter(|(a, b)| a != b).count();
        // Two unrelated sectors have next to no bytes in common.
        if header.magic || differing < SECTOR_BYTES / 2 {
            return damaged(&expected, found);
        }
        Difference::Foreign
    }

    /// A sector that was written like this on purpose: for another place, by
    /// another run, at another time.
    fn other(
        &self,
        sector: u64,
        index: u32,
        header: &Header,
        expected: &[u8; SECTOR_BYTES],
        found: &[u8; SECTOR_BYTES],
    ) -> Difference {
        if !header.magic {
            Difference::Foreign
        } else if header.version != VERSION {
            Difference::Version {
                found: header.version,
            }
        } else if header.seed != self.seed {
            Difference::Seed { found: header.seed }
        } else if header.sector != sector {
            Difference::Misdirected {
                found: header.sector,
            }
        } else if header.generation != self.generation {
            Difference::Generation {
                found: header.generation,
            }
        } else if header.block != self.block || header.index != index {
            Difference::Block {
                found: header.block,
            }
        } else {
            damaged(expected, found)
        }
    }
}

/// The first byte that differs.
fn damaged(expected: &[u8; SECTOR_BYTES], found: &[u8; SECTOR_BYTES]) -> Difference {
    let mut pairs = expected.iter().zip(found).enumerate();
    let differing = pairs.clone().filter(|(_, (a, b))| a != b).count();
    let first = pairs.find(|(_, (a, b))| a != b);
    let (at, (expected, found)) = first.unwrap_or((0, (&0, &0)));
    Difference::Damaged {
        at: at as u16,
        expected: *expected,
        found: *found,
        differing: differing as u16,
    }
}

/// What a sector says of itself.
struct Header {
    magic: bool,
    intact: bool,
    version: u16,
    seed: u64,
    sector: u64,
    generation: u64,
    block: u32,
    index: u32,
}

impl Header {
    fn of(bytes: &[u8; SECTOR_BYTES]) -> Self {
        fn field<const N: usize>(bytes: &[u8; SECTOR_BYTES], at: usize) -> [u8; N] {
            core::array::from_fn(|i| bytes[at + i])
        }
        let checksum = u32::from_le_bytes(field(bytes, CHECKSUM));
        Self {
            magic: bytes[0..4] == MAGIC,
            intact: checksum == CRC32C.checksum(&bytes[..CHECKSUM]),
            version: u16::from_le_bytes(field(bytes, 4)),
            seed: u64::from_le_bytes(field(bytes, 8)),
            sector: u64::from_le_bytes(field(bytes, 16)),
            generation: u64::from_le_bytes(field(bytes, 24)),
            block: u32::from_le_bytes(field(bytes, 32)),
            index: u32::from_le_bytes(field(bytes, INDEX)),
        }
    }
}

/// A sector that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which, in units of 512 bytes from the start of the disk.
    pub sector: u64,
    /// How it differs.
    pub what: Difference,
    /// How many sectors of its block are wrong.
    pub bad: u32,
    /// How many sectors the block has.
    pub of: u32,
}

/// How a sector differs from what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// All zeros: never written, lost or discarded.
    Zero,
    /// Nothing that `verify` ever wrote.
    Foreign,
    /// Another version of the format.
    Version {
        /// Which.
        found: u16,
    },
    /// Another run's.
    Seed {
        /// Its seed.
        found: u64,
    },
    /// This run's, but it belongs to another sector.
    Misdirected {
        /// Which.
        found: u64,
    },
    /// Another generation, as the rest of its block: an older write that was
    /// not replaced, or a newer one.
    Generation {
        /// Which.
        found: u64,
    },
    /// Another generation than other sectors of its block.
    Torn {
        /// Which.
        found: u64,
    },
    /// Written with another block size.
    Block {
        /// In bytes.
        found: u32,
    },
    /// Changed after it was written.
    Damaged {
        /// First byte that differs, within the sector.
        at: u16,
        /// What it should be.
        expected: u8,
        /// What it is.
        found: u8,
        /// How many bytes differ.
        differing: u16,
    },
}

impl Difference {
    /// A short name that does not change.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Foreign => "foreign",
            Self::Version { .. } => "version",
            Self::Seed { .. } => "other-seed",
            Self::Misdirected { .. } => "misdirected",
            Self::Generation { .. } => "generation",
            Self::Torn { .. } => "torn",
            Self::Block { .. } => "block-size",
            Self::Damaged { .. } => "damaged",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("all zeros"),
            Self::Foreign => f.write_str("not a block of verify"),
            Self::Version { found } => write!(f, "format version {found} instead of {VERSION}"),
            Self::Seed { found } => write!(f, "from another run, seed {found}"),
            Self::Misdirected { found } => write!(f, "misdirected: it belongs to sector {found}"),
            Self::Generation { found } => write!(f, "of generation {found}"),
            Self::Torn { found } => write!(f, "torn: of generation {found} unlike its neighbours"),
            Self::Block { found } => write!(f, "written with a block size of {found}"),
            Self::Damaged {
                at,
                expected,
                found,
                differing,
            } => write!(
                f,
                "damaged: {differing} bytes differ, first byte {at} is {found:#04x} instead of {expected:#04x}"
            ),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {} is {}", self.sector, self.what)?;
        write!(
            f,
            " ({} of the block's {} sectors are wrong)",
            self.bad, self.of
        )
    }
}

impl core::error::Error for Mismatch {}

#[cfg(test)]
mod tests;
