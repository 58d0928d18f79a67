//! What sense data mean, by name (SPC-4, annex F).

use crate::sense::{Key, Sense};
use core::fmt;

/// What happened to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was carried out.
    Done,
    /// The disk is not ready, and will be.
    BecomingReady,
    /// The disk is not ready.
    NotReady,
    /// There is no medium.
    NoMedium,
    /// The medium cannot be read there.
    UnreadableMedium,
    /// The medium cannot be written there.
    UnwritableMedium,
    /// The hardware failed.
    Hardware,
    /// The disk does not know the command.
    UnknownCommand,
    /// The disk does not do what the command asks for.
    InvalidField,
    /// The range is not within the disk.
    OutOfRange,
    /// There is no such unit.
    NoUnit,
    /// The disk may not be written.
    WriteProtected,
    /// There is no space left behind a thin disk.
    SpaceExhausted,
    /// The command was aborted.
    Aborted,
    /// Something changed; the command was not carried out.
    Attention(Attention),
    /// Data differ.
    Miscompare,
    /// Something else.
    Other(Sense),
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Power on, or a reset.
    Reset,
    /// The size.
    Capacity,
    /// What the disk is or does.
    Parameters,
    /// Which units there are.
    Units,
    /// Something else.
    Other,
}

impl Condition {
    /// The name of what happened.
    #[must_use]
    pub const fn of(sense: Sense) -> Self {
        match (sense.key, sense.code, sense.qualifier) {
            (Key::NO_SENSE | Key::RECOVERED, _, _) => Self::Done,
            (Key::NOT_READY, 0x04, 0x01) => Self::BecomingReady,
            (Key::NOT_READY, 0x3a, _) => Self::NoMedium,
            (Key::NOT_READY, _, _) => Self::NotReady,
            (Key::MEDIUM_ERROR, 0x03 | 0x0c, _) => Self::UnwritableMedium,
            (Key::MEDIUM_ERROR, _, _) => Self::UnreadableMedium,
            (Key::HARDWARE_ERROR, _, _) => Self::Hardware,
            (Key::ILLEGAL_REQUEST, 0x20, _) => Self::UnknownCommand,
            (Key::ILLEGAL_REQUEST, 0x21, _) => Self::OutOfRange,
            (Key::ILLEGAL_REQUEST, 0x25, _) => Self::NoUnit,
            (Key::ILLEGAL_REQUEST, _, _) => Self::InvalidField,
            (Key::UNIT_ATTENTION, 0x29, _) => Self::Attention(Attention::Reset),
            (Key::UNIT_ATTENTION, 0x2a, 0x09) => Self::Attention(Attention::Capacity),
            (Key::UNIT_ATTENTION, 0x2a, _) => Self::Attention(Attention::Parameters),
            (Key::UNIT_ATTENTION, 0x3f, 0x0e) => Self::Attention(Attention::Units),
            (Key::UNIT_ATTENTION, 0x3f, _) => Self::Attention(Attention::Parameters),
            (Key::UNIT_ATTENTION, _, _) => Self::Attention(Attention::Other),
            (Key::DATA_PROTECT, 0x27, 0x07) => Self::SpaceExhausted,
            (Key::DATA_PROTECT, _, _) => Self::WriteProtected,
            (Key::ABORTED_COMMAND, _, _) => Self::Aborted,
            (Key::MISCOMPARE, _, _) => Self::Miscompare,
            _ => Self::Other(sense),
        }
    }

    /// Whether the same command may well work if it is sent again.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Attention(_) | Self::BecomingReady | Self::Aborted
        )
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::BecomingReady => "the disk becomes ready",
            Self::NotReady => "the disk is not ready",
            Self::NoMedium => "no medium",
            Self::UnreadableMedium => "the medium cannot be read there",
            Self::UnwritableMedium => "the medium cannot be written there",
            Self::Hardware => "hardware error",
            Self::UnknownCommand => "unknown command",
            Self::InvalidField => "invalid field in the command",
            Self::OutOfRange => "block out of range",
            Self::NoUnit => "no such unit",
            Self::WriteProtected => "the disk is write-protected",
            Self::SpaceExhausted => "no space left behind the disk",
            Self::Aborted => "the command was aborted",
            Self::Attention(Attention::Reset) => "the disk was reset",
            Self::Attention(Attention::Capacity) => "the disk's size changed",
            Self::Attention(Attention::Parameters) => "the disk's parameters changed",
            Self::Attention(Attention::Units) => "the list of units changed",
            Self::Attention(Attention::Other) => "unit attention",
            Self::Miscompare => "data differ",
            Self::Other(_) => "unknown condition",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(sense) => write!(f, "{sense}"),
            named => f.write_str(named.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: u8, code: u8, qualifier: u8) -> Condition {
        Condition::of(Sense {
            key: Key(key),
            code,
            qualifier,
            deferred: false,
            information: None,
        })
    }

    #[test]
    fn conditions_have_the_names_of_the_standard() {
        assert_eq!(of(1, 0x17, 0), Condition::Done);
        assert_eq!(of(2, 4, 1), Condition::BecomingReady);
        assert_eq!(of(2, 0x3a, 0), Condition::NoMedium);
        assert_eq!(of(3, 0x11, 0), Condition::UnreadableMedium);
        assert_eq!(of(3, 0x0c, 2), Condition::UnwritableMedium);
        assert_eq!(of(5, 0x21, 0), Condition::OutOfRange);
        assert_eq!(of(5, 0x20, 0), Condition::UnknownCommand);
        assert_eq!(of(6, 0x2a, 9), Condition::Attention(Attention::Capacity));
        assert_eq!(of(6, 0x2a, 1), Condition::Attention(Attention::Parameters));
        assert_eq!(of(6, 0x29, 0), Condition::Attention(Attention::Reset));
        assert_eq!(of(7, 0x27, 0), Condition::WriteProtected);
        assert_eq!(of(7, 0x27, 7), Condition::SpaceExhausted);
        assert!(of(6, 0x28, 0).is_passing() && !of(3, 0x11, 0).is_passing());
        assert!(matches!(of(9, 1, 2), Condition::Other(_)));
    }
}
