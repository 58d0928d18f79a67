//! The rules of storvsp that a host can break, by name.

use crate::ring;
use crate::wire::ring::PacketType;
use crate::wire::vstor::{Operation, SrbStatus};
use core::fmt;
use firn_block::slots::WrongId;

/// A rule that the host broke. The controller's disks fail; nothing it sent after
/// that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Of the ring.
    Ring(ring::Offence),
    /// A completion that names no request of ours.
    UnknownId(u64),
    /// A completion of a request that is not in flight.
    StaleId(u64),
    /// A completion by another channel than its request went on.
    WrongChannel(u16),
    /// A completion that is shorter than completions are.
    TooShort(usize),
    /// A completion with another operation.
    WrongOperation(Operation),
    /// A packet of a kind that storvsp does not send.
    UnknownPacket(PacketType),
    /// A notice that storvsp does not send.
    UnknownNotice(Operation),
    /// More bytes were moved than were asked for.
    MovedTooMuch {
        /// What was asked for.
        asked: u32,
        /// What was moved.
        moved: u32,
    },
    /// More sense data than there is room for.
    SenseTooLong(u8),
    /// A request ended in a way that the protocol does not know.
    UnknownSrbStatus(SrbStatus),
    /// Events without work beyond any reason.
    EventStorm,
    /// Requests were not answered, not even after a reset.
    NoAnswer {
        /// How many.
        outstanding: usize,
    },
}

impl Offence {
    /// The rule, in words that fit into an I/O error.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Ring(offence) => offence.rule(),
            Self::UnknownId(_) => "completion with an unknown id",
            Self::StaleId(_) => "completion of a request that is not in flight",
            Self::WrongChannel(_) => "completion on another channel",
            Self::TooShort(_) => "completion that ends too early",
            Self::WrongOperation(_) => "completion with the wrong operation",
            Self::UnknownPacket(_) => "packet of an unknown kind",
            Self::UnknownNotice(_) => "unknown notice",
            Self::MovedTooMuch { .. } => "more bytes moved than asked for",
            Self::SenseTooLong(_) => "more sense data than there is room for",
            Self::UnknownSrbStatus(_) => "request ended in an unknown way",
            Self::EventStorm => "events without work",
            Self::NoAnswer { .. } => "requests without an answer at the deadline",
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
            Self::UnknownId(id) | Self::StaleId(id) => write!(f, " ({id:#x})"),
            Self::WrongChannel(number) => write!(f, " (channel {number})"),
            Self::TooShort(bytes) => write!(f, " ({bytes} bytes)"),
            Self::WrongOperation(operation) | Self::UnknownNotice(operation) => {
                write!(f, " ({operation})")
            }
            Self::UnknownPacket(kind) => write!(f, " ({kind})"),
            Self::MovedTooMuch { asked, moved } => write!(f, " (asked {asked}, moved {moved})"),
            Self::SenseTooLong(bytes) => write!(f, " ({bytes} bytes)"),
            Self::UnknownSrbStatus(status) => write!(f, " ({status})"),
            Self::NoAnswer { outstanding } => write!(f, " ({outstanding} requests)"),
            Self::Ring(_) | Self::EventStorm => Ok(()),
        }
    }
}

impl core::error::Error for Offence {}

impl From<ring::Offence> for Offence {
    fn from(offence: ring::Offence) -> Self {
        Self::Ring(offence)
    }
}

impl From<WrongId> for Offence {
    fn from(wrong: WrongId) -> Self {
        match wrong {
            WrongId::Unknown(id) => Self::UnknownId(id),
            WrongId::Stale(id) => Self::StaleId(id),
        }
    }
}
