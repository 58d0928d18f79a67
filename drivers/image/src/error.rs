//! How work on an image disk fails.

use crate::{Gone, SlotId};
use core::fmt;
use core::time::Duration;
use firn_block::identity::TableError;
use firn_block::{IoError, Why};

/// What is wrong with bytes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A header slot's checksum, or a field of it.
    Header {
        /// Which slot.
        slot: SlotId,
        /// What.
        what: &'static str,
    },
    /// The chunk table: its checksum, or a field of it.
    Table(&'static str),
    /// A chunk: its checksum or, sealed, its tag.
    Chunk {
        /// Which, from 0.
        index: u32,
        /// What.
        what: &'static str,
    },
    /// Sealed, and the key does not open it: another key, or it was altered.
    Seal,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { slot, what } => write!(f, "header slot {slot}: {what}"),
            Self::Table(what) => write!(f, "chunk table: {what}"),
            Self::Chunk { index, what } => write!(f, "chunk {index}: {what}"),
            Self::Seal => f.write_str("the key does not open it"),
        }
    }
}

/// Why a step on the image disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The disk has no queue any more.
    Gone,
    /// A request failed.
    Io {
        /// What it was for.
        what: &'static str,
        /// Where, in sectors of 512 bytes.
        sector: u64,
        /// How.
        error: IoError,
    },
    /// A request was not accepted.
    Refused {
        /// What it was for.
        what: &'static str,
        /// Why.
        why: Why,
    },
    /// Nothing completed for so long. Requests are still with the host: their
    /// memory must not be used before the disk has been disconnected.
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// Requests still with the host.
        in_flight: usize,
        /// How long nothing came.
        waited: Duration,
    },
    /// Memory could not be made known to the host, or there is too little.
    Memory(&'static str),
    /// Bytes on the disk are wrong.
    Damaged(Damage),
    /// The disk has a partition table, and it is wrong.
    Partitions(TableError),
    /// A step out of order: a mistake of the caller.
    Order(&'static str),
}

impl From<Gone> for Error {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the image disk is gone"),
            Self::Io {
                what,
                sector,
                error,
            } => write!(f, "{what} at sector {sector}: {error}"),
            Self::Refused { what, why } => write!(f, "{what}: {why}"),
            Self::Stalled {
                what,
                in_flight,
                waited,
            } => write!(
                f,
                "{what}: no answer for {} ms, {in_flight} requests with the host",
                waited.as_millis()
            ),
            Self::Memory(what) => write!(f, "memory: {what}"),
            Self::Damaged(damage) => write!(f, "damaged: {damage}"),
            Self::Partitions(error) => error.fmt(f),
            Self::Order(what) => write!(f, "out of order: {what}"),
        }
    }
}

impl core::error::Error for Error {}

/// How writing the header that makes an image valid failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Nothing went to the disk: the old state holds, undo as before.
    Untouched(Error),
    /// The image may be valid, now or later: [`crate::Store::void`] it before
    /// anything goes on, and do not go on if that fails.
    Unknown(Error),
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untouched(error) => write!(f, "not committed: {error}"),
            Self::Unknown(error) => write!(f, "it is unknown whether it is committed: {error}"),
        }
    }
}

impl core::error::Error for Commit {}
