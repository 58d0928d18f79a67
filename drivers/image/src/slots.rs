//! The two header slots, and what they mean together.

use crate::{Damage, Meta};
use core::fmt;

/// Counts the images of one disk; each freeze takes the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the two places of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotId {
    /// The first block.
    A,
    /// The second block.
    B,
}

impl SlotId {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What a header says of its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No image yet: the disk was formatted.
    Empty,
    /// A whole image that may be restored.
    Valid,
    /// A restore of the image was begun; says nothing else. Never the only
    /// copy of a header.
    Tried,
    /// It was restored; never again.
    Consumed,
    /// Somebody went on without it; never again.
    Abandoned,
    /// Its commit went wrong; it never was.
    Void,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Valid => "valid",
            Self::Tried => "tried",
            Self::Consumed => "consumed",
            Self::Abandoned => "abandoned",
            Self::Void => "void",
        })
    }
}

/// A header that was read, and whose checksum and fields are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which image.
    pub generation: Generation,
    /// What became of it.
    pub state: State,
    /// How often a restore was begun.
    pub attempts: u32,
    /// The build that froze.
    pub build: crate::BuildId,
    /// The memory's bounds.
    pub heap: crate::Heap,
    /// What the CPU offered.
    pub cpu: crate::Cpu,
    /// Wall clock at the freeze, in nanoseconds since 1970.
    pub time: u64,
    /// Who asked for it.
    pub reason: crate::Reason,
    /// Number of chunks.
    pub chunks: u32,
    /// Number of disks that it names.
    pub disks: u32,
    /// Pages of the memory that are stored.
    pub pages: u64,
    /// Bytes on the disk, without headers and table.
    pub stored: u64,
    /// Sectors of the disk or partition at the freeze.
    pub area_sectors: u64,
    /// Whether it is encrypted and authenticated.
    pub sealed: bool,
}

/// What one slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Zeros.
    Blank,
    /// Something that is not ours.
    Foreign,
    /// Ours, of a format that this program does not know.
    Version(u32),
    /// Ours, and wrong.
    Damaged(&'static str),
    /// A sound header.
    Header(Header),
}

/// Both slots, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Slot A.
    pub a: Slot,
    /// Slot B.
    pub b: Slot,
    /// Whether everything else in front of the table is zero.
    pub rest_blank: bool,
}

/// What both slots mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was ever written here.
    Blank,
    /// The disk is somebody else's.
    Foreign,
    /// Ours, of another format version.
    Version(u32),
    /// Ours, but it cannot be told for certain what the newest state is: no
    /// restore, and no freeze before somebody decides.
    Damaged(Damage),
    /// No image to restore: formatted, or the last one was ended.
    Ended(Header, SlotId),
    /// An image that may be restored; the slot is where its header lies. Its
    /// `attempts` are those of both slots.
    Valid(Header, SlotId),
}

impl Slots {
    /// What the slots mean: the newest generation counts, and an end of it
    /// beats its being valid. A slot that is damaged might have held anything,
    /// so nothing is certain then.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::Blank
    }

    /// The generation that a freeze would take.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        Generation(1)
    }
}

/// Keeps the type of [`Meta`] beside what it becomes.
impl Header {
    /// Whether this header describes a memory like `meta`'s.
    #[must_use]
    pub fn describes(&self, meta: &Meta) -> bool {
        self.build == meta.build && self.heap == meta.heap
    }
}
