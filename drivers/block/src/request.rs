//! Requests, the buffers they carry, and how they end.

use crate::gate::Lifecycle;
use crate::shm::Region;
use crate::{SECTOR, TokenId};
use core::fmt;

/// What a request does. Sector addresses are in [`SECTOR`]s of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Disk to buffer.
    Read,
    /// Buffer to disk; durable only after a later flush.
    Write,
    /// Everything that completed before this was submitted becomes durable.
    Flush,
    /// The range's content is no longer needed.
    Discard {
        /// Old content must become unreadable on the medium as well.
        secure: bool,
    },
}

impl Op {
    /// Whether the request moves data through a buffer.
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }

    /// Whether the request changes the disk.
    #[must_use]
    pub const fn modifies(self) -> bool {
        matches!(self, Self::Write | Self::Discard { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard { secure: false } => "discard",
            Self::Discard { secure: true } => "secure discard",
        })
    }
}

/// Registered memory: whole pages that a queue made known to the host.
///
/// Move-only: while a request with it is in flight nobody else has it. Its
/// content is copied in and out, never borrowed, because the host may write it
/// at any time.
#[derive(Debug)]
pub struct Buffer {
    region: Region,
    queue: u32,
    index: u32,
}

impl Buffer {
    /// Made by a queue when it registers `region` as its number `index`;
    /// `queue` tells one queue's buffers from another's.
    #[must_use]
    pub const fn new(region: Region, queue: u32, index: u32) -> Self {
        Self {
            region,
            queue,
            index,
        }
    }

    /// The memory itself.
    #[must_use]
    pub const fn region(&self) -> &Region {
        &self.region
    }

    /// The queue that registered it.
    #[must_use]
    pub const fn queue(&self) -> u32 {
        self.queue
    }

    /// Its number within that queue.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// A handle to some of the pages, to be used beside this one: so that many
    /// requests can carry parts of one large registration. Costs nothing. Which
    /// part is in flight is then the caller's to know.
    ///
    /// # Panics
    /// When the pages are not all inside.
    #[must_use]
    pub fn part(&self, first: usize, pages: usize) -> Self {
        Self {
            region: self.region.pages(first, pages),
            ..*self
        }
    }

    /// Gives the memory up; for the queue that unregisters it.
    #[must_use]
    pub fn into_region(self) -> Region {
        self.region
    }
}

/// One I/O, owned by whoever may still change it.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Data of a read or write.
    pub buffer: Option<Buffer>,
    /// Where the data starts in the buffer, in bytes; a multiple of 512.
    pub offset: usize,
    /// Whatever the submitter wants back with the completion.
    pub cookie: u64,
}

impl Request {
    /// A request for `bytes` bytes from the start of `buffer`.
    #[must_use]
    pub const fn data(op: Op, sector: u64, buffer: Buffer, bytes: usize) -> Self {
        Self {
            op,
            sector,
            sectors: (bytes as u64).div_ceil(SECTOR),
            buffer: Some(buffer),
            offset: 0,
            cookie: 0,
        }
    }

    /// A flush.
    #[must_use]
    pub const fn flush() -> Self {
        Self {
            op: Op::Flush,
            sector: 0,
            sectors: 0,
            buffer: None,
            offset: 0,
            cookie: 0,
        }
    }

    /// A discard of `sectors` sectors.
    #[must_use]
    pub const fn discard(sector: u64, sectors: u64, secure: bool) -> Self {
        Self {
            op: Op::Discard { secure },
            sector,
            sectors,
            buffer: None,
            offset: 0,
            cookie: 0,
        }
    }

    /// The same with a cookie.
    #[must_use]
    pub fn with_cookie(mut self, cookie: u64) -> Self {
        self.cookie = cookie;
        self
    }

    /// Length of the range in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }
}

/// The end of an accepted request; gives the buffer back.
#[derive(Debug)]
pub struct Completion {
    /// Which request.
    pub token: TokenId,
    /// The request as it was submitted, buffer included.
    pub request: Request,
    /// How it ended.
    pub result: Result<(), IoError>,
}

/// How an accepted request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The host reports that the operation failed.
    Failed {
        /// The host's status, as on the wire.
        status: i16,
    },
    /// The host reports an error that has a name.
    Reported(&'static str),
    /// The host cannot do this operation (any more): nothing was made durable
    /// or discarded.
    NotSupported,
    /// The disk was detached before the request was carried out, or while it
    /// was: its effect is unknown.
    Gone,
    /// The host broke the protocol and the device was failed; the text names
    /// the rule.
    DeviceFailed(&'static str),
    /// The disk came back different while the request was in flight, and can
    /// not carry it out any more. A part of it may have been carried out before.
    DiskChanged(Why),
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { status } => write!(f, "the host reports an error (status {status})"),
            Self::Reported(what) => write!(f, "the host reports: {what}"),
            Self::NotSupported => f.write_str("the host does not support the operation"),
            Self::Gone => f.write_str("the disk is gone"),
            Self::DeviceFailed(rule) => write!(f, "the device failed: {rule}"),
            Self::DiskChanged(why) => write!(f, "the disk changed under the request: {why}"),
        }
    }
}

impl core::error::Error for IoError {}

/// A request that was not accepted, and why. Nothing happened to it.
#[derive(Debug)]
pub struct Refused {
    /// The reason.
    pub why: Why,
    /// The request, buffer included.
    pub request: Request,
}

/// Why a request was refused before it touched the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No room now: poll, then submit again. The only reason that passes by
    /// itself.
    Full,
    /// The disk takes no requests in this state.
    NotLive(Lifecycle),
    /// A write or discard to a read-only disk.
    ReadOnly,
    /// The range is empty or leaves the disk.
    OutOfRange {
        /// Size of the disk in sectors of 512 bytes.
        capacity: u64,
    },
    /// Sector, length or buffer offset is no multiple of what the disk asks.
    Misaligned {
        /// The unit in bytes.
        unit: u32,
    },
    /// A read or write without a buffer, or one that the buffer cannot hold.
    NoRoomInBuffer,
    /// The buffer was registered with another queue.
    ForeignBuffer,
    /// The disk does not offer the operation.
    Unsupported(Op),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::NotLive(state) => write!(f, "the disk is {state}"),
            Self::ReadOnly => f.write_str("the disk is read-only"),
            Self::OutOfRange { capacity } => {
                write!(f, "the range is not within the disk's {capacity} sectors")
            }
            Self::Misaligned { unit } => write!(f, "the range is not aligned to {unit} bytes"),
            Self::NoRoomInBuffer => f.write_str("the buffer is missing or too small"),
            Self::ForeignBuffer => f.write_str("the buffer belongs to another disk"),
            Self::Unsupported(op) => write!(f, "the disk does not offer {op}"),
        }
    }
}

impl core::error::Error for Why {}
