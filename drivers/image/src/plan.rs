//! Asking first: will the image fit, and may it be written?

use crate::{Generation, Header};
use core::fmt;
use core::ops::Range;
use firn_block::shm::Region;

/// The memory to be saved.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// All of it; nobody but the host's disk code touches it while it is read.
    pub memory: &'a Region,
    /// Pages whose content does not matter, in rising order: they are left out,
    /// and are zero after a restore.
    pub free: &'a [Range<usize>],
}

/// A key for sealed images, and what makes its use unique.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Compress chunks where that saves space.
    pub compress: bool,
    /// Encrypt and authenticate.
    pub key: Option<Key>,
    /// Fresh random bytes for this one image; needed with a key.
    pub salt: [u8; 12],
}

/// Why an image cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// The disk is somebody else's.
    Foreign,
    /// The disk holds another format version.
    Version(u32),
    /// The headers are damaged.
    Damaged(crate::Damage),
    /// An image that may still be restored is on the disk.
    HasImage(Generation),
    /// The disk is read-only.
    ReadOnly,
    /// The host offers nothing to make writes durable.
    NoFlush,
    /// The disk's blocks are larger than a page.
    BlockSize(u32),
    /// It does not fit.
    NoSpace {
        /// Sectors of 512 bytes that it may need.
        needs: u64,
        /// Sectors of 512 bytes that there are.
        have: u64,
    },
    /// More disks than an image can name.
    Disks(usize),
    /// The memory is none that an image can hold.
    Memory(&'static str),
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("not an image disk: `image format` makes it one"),
            Self::Version(version) => write!(
                f,
                "the disk has an image of format {version}: `image format` makes it ours"
            ),
            Self::Damaged(damage) => write!(f, "the image disk is damaged: {damage}"),
            Self::HasImage(generation) => write!(
                f,
                "image {generation} on the disk may still be restored: restore it, \
                 give it up with `cold`, or use another disk"
            ),
            Self::ReadOnly => f.write_str("the image disk is read-only"),
            Self::NoFlush => f.write_str("the host offers no flush for the image disk"),
            Self::BlockSize(bytes) => {
                write!(
                    f,
                    "the image disk has blocks of {bytes} bytes, more than a page"
                )
            }
            Self::NoSpace { needs, have } => {
                write!(f, "the image may need {needs} sectors, the disk has {have}")
            }
            Self::Disks(count) => write!(f, "{count} disks are more than an image can name"),
            Self::Memory(what) => write!(f, "the memory cannot be saved: {what}"),
        }
    }
}

impl core::error::Error for WhyNot {}

/// A freeze that fits: what [`crate::Store::write_chunks`] and the steps after
/// it work on. All memory that they need is in it.
#[derive(Debug)]
pub struct Plan {
    pub(crate) header: Header,
}

impl Plan {
    /// The generation that the image will have.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.header.generation
    }

    /// The header as it will be, or is, written.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }
}
