//! The two header slots, and what they mean together.

use crate::format::{self, SLOT_BYTES, header};
use crate::{BuildId, Cpu, Damage, Heap, Reason};
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
    /// The build that froze.
    pub build: BuildId,
    /// The memory's bounds.
    pub heap: Heap,
    /// What the CPU offered.
    pub cpu: Cpu,
    /// Wall clock at the freeze, in nanoseconds since 1970.
    pub time: u64,
    /// Who asked for it.
    pub reason: Reason,
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
    pub(crate) layout: Layout,
}

/// The fields of a header that only this crate needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) table_sum: [u8; 16],
    pub(crate) salt: [u8; 12],
    pub(crate) tag: [u8; 16],
}

impl Header {
    /// A header that describes no memory.
    pub(crate) fn bare(generation: Generation, state: State, area_sectors: u64) -> Self {
        Self {
            generation,
            state,
            build: BuildId([0; 32]),
            heap: Heap {
                address: 0,
                bytes: 0,
            },
            cpu: Cpu::default(),
            time: 0,
            reason: Reason::default(),
            chunks: 0,
            disks: 0,
            pages: 0,
            stored: 0,
            area_sectors,
            sealed: false,
            layout: Layout::default(),
        }
    }
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
    /// An image that may be restored; the slot is where its header lies.
    Valid(Header, SlotId),
}

impl Slots {
    /// What the front of an area holds: both slots, and what follows them up to
    /// the table. Who only wants to know the state, such as a host that looks
    /// at a disk's file, may give the first two blocks of 4 KiB.
    #[must_use]
    pub fn parse(front: &[u8]) -> Self {
        let (blocks, rest) = front.as_chunks::<SLOT_BYTES>();
        let slot = |at: usize, id| {
            let block = blocks.get(at);
            block.map_or(Slot::Foreign, |block| header::parse(block, id))
        };
        let others = blocks.iter().skip(2).flatten().chain(rest);
        Self {
            a: slot(0, SlotId::A),
            b: slot(1, SlotId::B),
            rest_blank: others.into_iter().all(|byte| *byte == 0),
        }
    }

    /// What slot `id` holds.
    #[must_use]
    pub const fn get(&self, id: SlotId) -> &Slot {
        match id {
            SlotId::A => &self.a,
            SlotId::B => &self.b,
        }
    }

    /// What the slots mean: the newest generation counts, and an end of it
    /// beats its being valid. A slot that is damaged might have held anything,
    /// so nothing is certain then.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.a, &self.b) {
            (Slot::Blank, Slot::Blank) if self.rest_blank => Verdict::Blank,
            (Slot::Version(version), _) | (_, Slot::Version(version)) => Verdict::Version(*version),
            (Slot::Header(a), Slot::Header(b)) => both(a, b),
            // A first format that ended between its two writes.
            (Slot::Header(a), Slot::Blank) if a.state == State::Empty => {
                Verdict::Ended(*a, SlotId::A)
            }
            (Slot::Header(_) | Slot::Damaged(_), other) => other_is_wrong(&self.a, other),
            (other, Slot::Header(_) | Slot::Damaged(_)) => damaged(SlotId::A, other),
            _ => Verdict::Foreign,
        }
    }

    /// The generation that a freeze would take: one more than any known.
    #[must_use]
    pub fn next_generation(&self) -> Generation {
        let of = |slot: &Slot| match slot {
            Slot::Header(header) => header.generation.0,
            _ => 0,
        };
        Generation(of(&self.a).max(of(&self.b)).saturating_add(1))
    }
}

/// Slot A is ours; which of the two is to be named.
fn other_is_wrong(a: &Slot, b: &Slot) -> Verdict {
    match a {
        Slot::Damaged(_) => damaged(SlotId::A, a),
        _ => damaged(SlotId::B, b),
    }
}

fn damaged(slot: SlotId, held: &Slot) -> Verdict {
    let what = match held {
        Slot::Damaged(what) => what,
        Slot::Blank => "it is blank",
        _ => "it is not a header",
    };
    Verdict::Damaged(Damage::Header { slot, what })
}

/// Two sound headers.
fn both(a: &Header, b: &Header) -> Verdict {
    let ((new, at), (old, other)) = match a.generation >= b.generation {
        true => ((a, SlotId::A), (b, SlotId::B)),
        false => ((b, SlotId::B), (a, SlotId::A)),
    };
    let lost = |slot, what| Verdict::Damaged(Damage::Header { slot, what });
    let same = new.generation == old.generation;
    match (new.state, old.state) {
        (state, _) if state.is_end() => Verdict::Ended(*new, at),
        (_, state) if same && state.is_end() => Verdict::Ended(*old, other),
        (State::Valid, State::Valid) if same => lost(other, "both slots hold the image"),
        (State::Valid, _) if !same => Verdict::Valid(*new, at),
        (State::Empty, State::Empty) if same => Verdict::Ended(*old, other),
        (State::Empty, _) if !same => Verdict::Ended(*new, at),
        _ => lost(other, "it does not go with the other one"),
    }
}

impl State {
    /// Whether an image in this state is never restored, whatever the other
    /// slot says.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Consumed | Self::Abandoned | Self::Void)
    }
}

const _: () = assert!(format::TABLE_PLACE.is_multiple_of(SLOT_BYTES as u64));
