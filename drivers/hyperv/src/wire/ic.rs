//! Integration services: what the host asks of the guest as a whole. Each is a
//! channel of its own whose packets have two heads (public guest drivers,
//! `hyperv.h`).

use super::layout;

/// What stands before every message: the channel is used as a pipe.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Pipe {
    /// One: data.
    pub kind: u32,
    /// Bytes that follow.
    pub bytes: u32,
}
layout!(Pipe, 8, { kind @ 0, bytes @ 4 });

firn_block::open_enum! {
    /// What a message is about.
    pub enum MessageKind: u16 {
        /// Which versions the host speaks.
        NEGOTIATE = 0 => "negotiation",
        /// Whether the guest lives.
        HEARTBEAT = 1 => "heartbeat",
        /// That the guest shall stop.
        SHUTDOWN = 3 => "shutdown",
        /// What time it is.
        TIME_SYNC = 4 => "time synchronisation",
    }
}

/// A version: of the head, or of a service's messages.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[repr(C)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second.
    pub minor: u16,
}
layout!(Version, 4, { major @ 0, minor @ 2 });

impl Version {
    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The same as a number that grows with it.
    #[must_use]
    pub const fn rank(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The head of a message.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Head {
    /// The version of this head.
    pub frame: Version,
    /// A [`MessageKind`].
    pub kind: u16,
    /// The version of what follows.
    pub message: Version,
    /// Bytes of what follows.
    pub bytes: u16,
    /// In an answer: how it went.
    pub status: u32,
    /// Comes back with the answer.
    pub transaction: u8,
    /// [`TRANSACTION`], [`REQUEST`], [`RESPONSE`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
layout!(Head, 20, { frame @ 0, kind @ 4, message @ 6, bytes @ 10, status @ 12, transaction @ 16, flags @ 17 });

/// Where what follows both heads begins.
pub const BODY: usize = size_of::<Pipe>() + size_of::<Head>();

/// Flag: a part of a transaction.
pub const TRANSACTION: u8 = 1;
/// Flag: its beginning.
pub const REQUEST: u8 = 2;
/// Flag: its end.
pub const RESPONSE: u8 = 4;

/// Status: done, or about to be.
pub const OK: u32 = 0;
/// Status: not done (`E_FAIL`).
pub const FAILED: u32 = 0x8000_4005;

/// A [`MessageKind::NEGOTIATE`]; `frames` versions of the head follow, then
/// `messages` versions of the messages.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Negotiate {
    /// How many versions of the head follow; in an answer one, or none.
    pub frames: u16,
    /// How many versions of the messages.
    pub messages: u16,
    /// Zero.
    pub reserved: u32,
}
layout!(Negotiate, 8, { frames @ 0, messages @ 2 });

/// A [`MessageKind::SHUTDOWN`]; a text for people follows, of 2048 bytes.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Shutdown {
    /// Why, as Windows counts reasons.
    pub reason: u32,
    /// In how many seconds.
    pub timeout: u32,
    /// [`FORCE`], and what is to be done in the bits above.
    pub flags: u32,
}
layout!(Shutdown, 12, { reason @ 0, timeout @ 4, flags @ 8 });

/// Of [`Shutdown::flags`]: whoever would rather not is not asked.
pub const FORCE: u32 = 1;

/// A [`MessageKind::HEARTBEAT`].
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Heartbeat {
    /// Goes back with one added.
    pub sequence: u64,
    /// Zero.
    pub reserved: [u32; 8],
}
layout!(Heartbeat, 40, { sequence @ 0 });

/// A [`MessageKind::TIME_SYNC`] before version 4.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C, packed)]
pub struct OldTime {
    /// The host's time: units of 100 ns since 1601.
    pub host: u64,
    /// The guest's, if it tells.
    pub guest: u64,
    /// How long messages take.
    pub round_trip: u64,
    /// [`SYNC`] or [`SAMPLE`].
    pub flags: u8,
}
layout!(OldTime, 25, { host @ 0, flags @ 24 });

/// The beginning of a [`MessageKind::TIME_SYNC`] from version 4 on; how good the
/// host's clock is follows.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C, packed)]
pub struct Time {
    /// The host's time: units of 100 ns since 1601.
    pub host: u64,
    /// The partition's reference time when that was read, in the same units.
    pub reference: u64,
    /// [`SYNC`] or [`SAMPLE`].
    pub flags: u8,
}
layout!(Time, 17, { host @ 0, reference @ 8, flags @ 16 });

/// Of a time: the guest's clock is to be set, because it stood still.
pub const SYNC: u8 = 1;
/// Of a time: it is told so often that clocks can be kept from drifting.
pub const SAMPLE: u8 = 2;
/// Seconds from 1601 to 1970.
pub const EPOCH: u64 = 11_644_473_600;
