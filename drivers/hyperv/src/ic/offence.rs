//! The rules of integration services that a host can break, by name.

use crate::ring;
use crate::wire::ic::MessageKind;
use crate::wire::ring::PacketType;
use core::fmt;

/// A rule that the host broke. The service's channel is closed; nothing that
/// comes by it after that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Of the ring.
    Ring(ring::Offence),
    /// A packet of a kind that services do not use.
    UnknownPacket(PacketType),
    /// A packet that is shorter than its heads.
    TooShort(usize),
    /// A packet whose heads say other lengths than it has.
    WrongLength {
        /// What the heads say.
        says: u32,
        /// Bytes there are.
        has: usize,
    },
    /// A message that is none of this service's.
    WrongKind(MessageKind),
    /// A message that is shorter than its kind.
    MessageTooShort(MessageKind, usize),
    /// A message before a version was agreed on.
    NoVersion(MessageKind),
    /// A negotiation over no versions, or over more than there are.
    Versions {
        /// Of the head.
        frames: u16,
        /// Of the messages.
        messages: u16,
    },
    /// The host does not read its answers.
    NoRoom,
}

impl Offence {
    /// The rule, in words.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Ring(offence) => offence.rule(),
            Self::UnknownPacket(_) => "packet of an unknown kind",
            Self::TooShort(_) => "packet shorter than its heads",
            Self::WrongLength { .. } => "packet of another length than its heads say",
            Self::WrongKind(_) => "message of another service",
            Self::MessageTooShort(..) => "message shorter than its kind",
            Self::NoVersion(_) => "message before a version was agreed on",
            Self::Versions { .. } => "impossible list of versions",
            Self::NoRoom => "answers that are not read",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Ring(offence) = self {
            return write!(f, "{offence}");
        }
        f.write_str(self.rule())?;
        match self {
            Self::UnknownPacket(kind) => write!(f, " ({kind})"),
            Self::TooShort(bytes) => write!(f, " ({bytes} bytes)"),
            Self::WrongLength { says, has } => write!(f, " ({says} said, {has} there)"),
            Self::WrongKind(kind) | Self::NoVersion(kind) => write!(f, " ({kind})"),
            Self::MessageTooShort(kind, bytes) => write!(f, " ({kind}, {bytes} bytes)"),
            Self::Versions { frames, messages } => {
                write!(f, " ({frames} of heads, {messages} of messages)")
            }
            Self::Ring(_) | Self::NoRoom => Ok(()),
        }
    }
}

impl core::error::Error for Offence {}

impl From<ring::Offence> for Offence {
    fn from(offence: ring::Offence) -> Self {
        Self::Ring(offence)
    }
}
