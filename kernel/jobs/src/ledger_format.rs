//! The records of `ledger`: written and cross-checked by the job, counted by
//! the host from the disk's file. `docs/ledger-format.md` describes the bytes.
//!
//! A record names its ledger, its number and its place, and carries the link of
//! the record before it, so that records of two continuations of one ledger
//! never look like one chain.

mod audit;

pub use audit::{Acks, Audit, Tally};

use crate::rng::{Rng, mix};
use crate::verify_format::CRC32C;
use core::ops::Range;
use firn_block::SECTOR;

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"FRNL";

/// Version of the format.
pub const VERSION: u16 = 1;

/// Smallest and largest record in bytes.
pub const RECORD_SIZES: core::ops::RangeInclusive<u64> = 512..=(64 << 10);

/// Most records that are written and not yet acknowledged. Of a ledger that has
/// gone round its disk, so many of the oldest may be overwritten already.
pub const MAX_OPEN: u64 = 512;

/// How many records a ledger may have room for.
pub const SLOTS: core::ops::RangeInclusive<u64> = 2 * MAX_OPEN..=64 << 10;

/// What an acknowledgement starts with, on a console line of its own.
pub const ACK_PREFIX: &str = "firn-ack ";

const PAYLOAD_AT: usize = 72;
const CHECKSUM_BYTES: usize = 4;

/// Where a ledger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Tells it from other ledgers.
    pub ledger: u64,
    /// Its first sector, in units of 512 bytes.
    pub first: u64,
    /// Bytes of a record, a multiple of 512.
    pub record: u32,
    /// How many records fit; then the oldest are overwritten.
    pub slots: u64,
}

impl Layout {
    /// A ledger in `bytes` bytes from `first` on, or `None` if it has not room
    /// for [`SLOTS`] records or records of that size are not allowed.
    #[must_use]
    pub fn new(ledger: u64, first: u64, bytes: u64, record: u64) -> Option<Self> {
        let sizes = RECORD_SIZES.contains(&record) && record.is_multiple_of(SECTOR);
        let slots = bytes.checked_div(record)?;
        (sizes && SLOTS.contains(&slots)).then_some(Self {
            ledger,
            first,
            record: record as u32,
            slots,
        })
    }

    /// Which place record `seq` (from 1) has.
    #[must_use]
    pub const fn slot(&self, seq: u64) -> u64 {
        seq.wrapping_sub(1) % self.slots
    }

    /// The first sector of a place.
    #[must_use]
    pub const fn sector(&self, slot: u64) -> u64 {
        self.first + slot * (self.record as u64 / SECTOR)
    }

    /// The numbers that must be on the disk when everything up to `acked` is
    /// acknowledged, whatever was written since.
    #[must_use]
    pub const fn kept(&self, acked: u64) -> Range<u64> {
        let gone = acked.saturating_add(MAX_OPEN).saturating_sub(self.slots);
        gone.saturating_add(1)..acked.saturating_add(1)
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1.
    pub seq: u64,
    /// The boot that wrote it.
    pub boot: u64,
    /// How often its memory had been restored by then.
    pub restores: u32,
    /// How often it had come back from a suspend by then.
    pub resumes: u32,
    /// When it was made, in nanoseconds of the guest's clock.
    pub time: u64,
    /// The link of the record before, zero for the first.
    pub chain: u64,
}

/// What follows from a whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its checksum.
    pub checksum: u32,
    /// What the next record's `chain` must be.
    pub link: u64,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRecord {
    /// Another ledger's, or nothing of a ledger's.
    Foreign,
    /// One that arrived in part, or was damaged.
    Damaged,
    /// A whole one that belongs elsewhere.
    Misplaced {
        /// Its number.
        seq: u64,
    },
}

impl Record {
    /// Writes the record's bytes; `out` is as long as the layout says.
    pub fn fill(&self, layout: &Layout, out: &mut [u8]) -> Seal {
        let sector = layout.sector(layout.slot(self.seq));
        let (body, tail) = out.split_at_mut(out.len().saturating_sub(CHECKSUM_BYTES));
        let (head, payload) = body.split_at_mut(PAYLOAD_AT.min(body.len()));
        let mut header = [0; PAYLOAD_AT];
        header[0..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let words = [
            (8, layout.ledger),
            (16, self.seq),
            (24, sector),
            (32, self.boot),
            (40, u64::from(self.restores) | u64::from(self.resumes) << 32),
            (48, self.time),
            (56, self.chain),
            (64, u64::from(layout.record)),
        ];
        for (at, word) in words {
            header[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        head.copy_from_slice(&header[..head.len()]);
        let mut random = Rng::new(mix(mix(layout.ledger ^ mix(self.seq)) ^ self.chain));
        for word in payload.chunks_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes()[..word.len()]);
        }
        let checksum = CRC32C.checksum(body);
        tail.copy_from_slice(&checksum.to_le_bytes()[..tail.len()]);
        self.seal(checksum)
    }

    /// Reads what is at place `slot`.
    ///
    /// # Errors
    /// It is no record of this ledger, or not of this place.
    pub fn read(layout: &Layout, slot: u64, bytes: &[u8]) -> Result<(Self, Seal), NoRecord> {
        let word = |at: usize| -> u64 {
            let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
            word.map_or(0, u64::from_le_bytes)
        };
        let version = (word(0) >> 32) as u16;
        if bytes.get(..4) != Some(&MAGIC) || version != VERSION || word(8) != layout.ledger {
            return Err(NoRecord::Foreign);
        }
        let body = bytes.len().saturating_sub(CHECKSUM_BYTES);
        let (body, tail) = bytes.split_at(body);
        let checksum = CRC32C.checksum(body);
        let whole = tail == checksum.to_le_bytes() && word(64) == u64::from(layout.record);
        let seq = word(16);
        if !whole || seq == 0 {
            return Err(NoRecord::Damaged);
        }
        if layout.slot(seq) != slot || word(24) != layout.sector(slot) {
            return Err(NoRecord::Misplaced { seq });
        }
        let record = Self {
            seq,
            boot: word(32),
            restores: word(40) as u32,
            resumes: (word(40) >> 32) as u32,
            time: word(48),
            chain: word(56),
        };
        Ok((record, record.seal(checksum)))
    }

    fn seal(&self, checksum: u32) -> Seal {
        let link = mix(mix(self.chain ^ self.seq) ^ u64::from(checksum));
        Seal { checksum, link }
    }
}

#[cfg(test)]
mod tests;
