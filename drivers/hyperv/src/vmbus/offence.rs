//! The rules of VMBus that a host can break, by name.

use crate::wire::vmbus::Kind;
use core::fmt;

/// A rule that the host broke. The bus fails; nothing that comes by it after that
/// is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A message says that it is longer than messages are.
    MessageTooLong(u8),
    /// A message without a head.
    MessageWithoutHead(u8),
    /// A message that is shorter than its kind.
    MessageTooShort(Kind),
    /// A message of a kind that hosts do not send.
    MessageUnknown(Kind),
    /// A reply that nobody waits for.
    Unsolicited(Kind),
    /// A reply of the right kind to the wrong thing.
    Foreign(Kind),
    /// A version of 5.0 or newer without a connection for messages.
    NoConnectionId,
    /// An offer with a number that channels do not have.
    RelidOutOfRange(u32),
    /// An offer with a number that is in use.
    OfferedTwice(u32),
    /// An offer with a number that was not given back yet.
    OfferedTooEarly(u32),
    /// A second first channel of one device.
    InstanceTwice(u32),
    /// An offer without a connection for its events.
    OfferWithoutConnection(u32),
    /// An offer with a bit that monitor pages do not have.
    MonitorOutOfRange(u32),
    /// A rescind of what was not offered.
    RescindUnknown(u32),
    /// A second rescind.
    RescindTwice(u32),
}

impl Offence {
    /// The rule, in words that fit into an I/O error.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::MessageTooLong(_) => "message longer than its slot",
            Self::MessageWithoutHead(_) => "message without a head",
            Self::MessageTooShort(_) => "message shorter than its kind",
            Self::MessageUnknown(_) => "message that hosts do not send",
            Self::Unsolicited(_) => "reply that nobody waits for",
            Self::Foreign(_) => "reply to something else",
            Self::NoConnectionId => "version without a connection for messages",
            Self::RelidOutOfRange(_) => "relid out of range",
            Self::OfferedTwice(_) => "relid offered twice",
            Self::OfferedTooEarly(_) => "relid offered before it was released",
            Self::InstanceTwice(_) => "device offered twice",
            Self::OfferWithoutConnection(_) => "offer without a connection",
            Self::MonitorOutOfRange(_) => "monitor bit out of range",
            Self::RescindUnknown(_) => "rescind of an unknown relid",
            Self::RescindTwice(_) => "second rescind",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())?;
        match self {
            Self::MessageTooLong(bytes) | Self::MessageWithoutHead(bytes) => {
                write!(f, " ({bytes} bytes)")
            }
            Self::MessageTooShort(kind)
            | Self::MessageUnknown(kind)
            | Self::Unsolicited(kind)
            | Self::Foreign(kind) => write!(f, " ({kind})"),
            Self::NoConnectionId => Ok(()),
            Self::RelidOutOfRange(relid)
            | Self::OfferedTwice(relid)
            | Self::OfferedTooEarly(relid)
            | Self::InstanceTwice(relid)
            | Self::OfferWithoutConnection(relid)
            | Self::MonitorOutOfRange(relid)
            | Self::RescindUnknown(relid)
            | Self::RescindTwice(relid) => write!(f, " (relid {relid})"),
        }
    }
}

impl core::error::Error for Offence {}
