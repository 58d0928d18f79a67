//! Sense data, in both formats (SPC-4, section 4.5).

use crate::bytes::{u32_at, u64_at};
use core::fmt;

firn_block::open_enum! {
    /// What kind of thing happened.
    pub enum Key: u8 {
        /// Nothing.
        NO_SENSE = 0x0 => "no sense",
        /// It worked in the end.
        RECOVERED = 0x1 => "recovered error",
        /// Not now.
        NOT_READY = 0x2 => "not ready",
        /// The medium is bad there.
        MEDIUM_ERROR = 0x3 => "medium error",
        /// The hardware is.
        HARDWARE_ERROR = 0x4 => "hardware error",
        /// The command makes no sense.
        ILLEGAL_REQUEST = 0x5 => "illegal request",
        /// Something changed, and this command was the first to be told.
        UNIT_ATTENTION = 0x6 => "unit attention",
        /// It may not be written.
        DATA_PROTECT = 0x7 => "data protect",
        /// It was aborted.
        ABORTED_COMMAND = 0xb => "aborted command",
        /// Data differ.
        MISCOMPARE = 0xe => "miscompare",
    }
}

/// What a disk says about a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// What kind of thing happened.
    pub key: Key,
    /// What happened.
    pub code: u8,
    /// What exactly.
    pub qualifier: u8,
    /// It was an earlier command that failed.
    pub deferred: bool,
    /// A number that belongs to it: of a block, for media errors.
    pub information: Option<u64>,
}

/// Bytes that are no sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenseError {
    /// There are none.
    Empty,
    /// They are of no format that is known.
    Format(u8),
    /// They end before the key.
    Short(usize),
}

impl fmt::Display for SenseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no sense data"),
            Self::Format(code) => write!(f, "sense data of unknown format {code:#04x}"),
            Self::Short(bytes) => write!(f, "sense data of {bytes} bytes"),
        }
    }
}

impl core::error::Error for SenseError {}

impl Sense {
    /// Reads sense data of any length. What a host cuts off is not there; the
    /// key is the least.
    ///
    /// # Errors
    /// [`SenseError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SenseError> {
        let first = *bytes.first().ok_or(SenseError::Empty)?;
        match first & 0x7f {
            0x70 | 0x71 => Self::fixed(bytes, first),
            0x72 | 0x73 => Self::descriptors(bytes, first),
            other => Err(SenseError::Format(other)),
        }
    }

    fn fixed(bytes: &[u8], first: u8) -> Result<Self, SenseError> {
        let key = *bytes.get(2).ok_or(SenseError::Short(bytes.len()))?;
        // The length counts what follows it; codes beyond it do not count.
        let length = 8 + bytes.get(7).map_or(0, |rest| usize::from(*rest));
        let valid = &bytes[..bytes.len().min(length)];
        let byte = |at: usize| valid.get(at).copied().unwrap_or(0);
        let information = u32_at(bytes, 3).map(u64::from);
        Ok(Self {
            key: Key(key & 0xf),
            code: byte(12),
            qualifier: byte(13),
            deferred: first & 1 != 0,
            information: information.filter(|_| first & 0x80 != 0),
        })
    }

    fn descriptors(bytes: &[u8], first: u8) -> Result<Self, SenseError> {
        let key = *bytes.get(1).ok_or(SenseError::Short(bytes.len()))?;
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let end = (8 + usize::from(byte(7))).min(bytes.len());
        let mut information = None;
        let mut at = 8;
        // Each descriptor is at least its head, so this ends.
        while let Some([kind, length]) = bytes.get(at..end).and_then(|rest| rest.first_chunk()) {
            let valid = byte(at + 2) & 0x80 != 0;
            if *kind == 0 && valid {
                information = u64_at(&bytes[..end], at + 4);
            }
            at += 2 + usize::from(*length);
        }
        Ok(Self {
            key: Key(key & 0xf),
            code: byte(2),
            qualifier: byte(3),
            deferred: first & 1 != 0,
            information,
        })
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, qualifier) = (self.code, self.qualifier);
        write!(f, "{} ({code:02x}/{qualifier:02x})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn fixed(key: u8, code: u8, qualifier: u8, information: u32) -> Vec<u8> {
        let mut bytes = vec![0; 18];
        (bytes[0], bytes[2], bytes[7]) = (0xf0, key, 10);
        bytes[3..7].copy_from_slice(&information.to_be_bytes());
        (bytes[12], bytes[13]) = (code, qualifier);
        bytes
    }

    fn described(key: u8, code: u8, qualifier: u8, information: u64) -> Vec<u8> {
        let mut bytes = vec![0x72, key, code, qualifier, 0, 0, 0, 16];
        // One that is not known before the one that is.
        bytes.extend([0x02, 2, 0, 0, 0x00, 10, 0x80, 0]);
        bytes.extend(information.to_be_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn both_formats_say_the_same(
            key in 0..16u8, code: u8, qualifier: u8, information: u32
        ) {
            let a = Sense::parse(&fixed(key, code, qualifier, information)).expect("whole");
            let b = described(key, code, qualifier, information.into());
            prop_assert_eq!(a, Sense::parse(&b).expect("whole"));
            prop_assert_eq!((a.key, a.code, a.qualifier), (Key(key), code, qualifier));
            prop_assert_eq!(a.information, Some(u64::from(information)));
        }

        #[test]
        fn any_length_of_anything_is_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..40), first in 0x6fu8..0x75
        ) {
            let _ = Sense::parse(&bytes);
            let mut known = vec![first];
            known.extend(bytes);
            match Sense::parse(&known) {
                Ok(sense) => prop_assert!(sense.key.0 < 16),
                Err(SenseError::Short(len)) => prop_assert!(len < 3),
                Err(SenseError::Format(format)) => prop_assert!(!(0x70..0x74).contains(&format)),
                Err(SenseError::Empty) => prop_assert!(false, "there is a byte"),
            }
        }

        #[test]
        fn what_is_cut_off_is_not_there(cut in 3..18usize) {
            let whole = fixed(3, 0x11, 0x04, 77);
            let sense = Sense::parse(&whole[..cut]).expect("the key is there");
            prop_assert_eq!(sense.key, Key::MEDIUM_ERROR);
            prop_assert_eq!(sense.code, if cut > 12 { 0x11 } else { 0 });
            prop_assert_eq!(sense.information, (cut > 6).then_some(77));
        }
    }

    #[test]
    fn deferred_errors_and_lengths_that_lie() {
        let mut bytes = fixed(4, 0x44, 0, 0);
        bytes[0] = 0x71;
        let sense = Sense::parse(&bytes).expect("whole");
        assert!(sense.deferred && sense.information.is_none());
        // The code lies beyond the length.
        bytes[7] = 2;
        assert_eq!(Sense::parse(&bytes).expect("whole").code, 0);
        assert_eq!(Sense::parse(&[]), Err(SenseError::Empty));
        assert_eq!(Sense::parse(&[0x70, 0]), Err(SenseError::Short(2)));
        assert_eq!(Sense::parse(&[0x72]), Err(SenseError::Short(1)));
        assert_eq!(Sense::parse(&[0x7f; 18]), Err(SenseError::Format(0x7f)));
    }
}
