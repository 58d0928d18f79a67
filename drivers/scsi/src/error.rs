//! Why the data of a command make no sense.

use core::fmt;

/// Data that came back are not what the command's answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataError {
    /// They end before what must be there.
    Short {
        /// What was read.
        what: &'static str,
        /// How many bytes came.
        bytes: usize,
    },
    /// The answer is to another question.
    WrongPage {
        /// The page that was asked for.
        asked: u8,
        /// The page that came.
        came: u8,
    },
    /// A length that does not fit what it is the length of.
    Length {
        /// What was read.
        what: &'static str,
        /// The length.
        length: u32,
    },
    /// A block size that is no power of two from 512 to 65536.
    BlockSize(u32),
    /// More blocks than a disk can be addressed with.
    TooLarge {
        /// The number of the last block.
        last: u64,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { what, bytes } => write!(f, "{what} ends after {bytes} bytes"),
            Self::WrongPage { asked, came } => {
                write!(f, "asked for VPD page {asked:#04x}, got {came:#04x}")
            }
            Self::Length { what, length } => write!(f, "{what} has an impossible length {length}"),
            Self::BlockSize(bytes) => write!(f, "blocks of {bytes} bytes"),
            Self::TooLarge { last } => write!(f, "a last block {last} cannot be"),
        }
    }
}

impl core::error::Error for DataError {}
