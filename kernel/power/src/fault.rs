//! What goes wrong in a step, as the machine tells it.

use alloc::string::String;
use core::fmt;
use firn_block::IoError;

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The deadline came first.
    Timeout,
    /// A request failed.
    Io(IoError),
    /// The disk or its backend has gone.
    Gone,
    /// No memory for it.
    NoMemory,
    /// The image does not fit; both in bytes.
    NoSpace {
        /// What it needs.
        needed: u64,
        /// What there is.
        there: u64,
    },
    /// The machine or the disk cannot do it; the text says what.
    Cannot(&'static str),
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("it took too long"),
            Self::Io(error) => error.fmt(f),
            Self::Gone => f.write_str("the disk is gone"),
            Self::NoMemory => f.write_str("memory has run out"),
            Self::NoSpace { needed, there } => {
                write!(f, "it needs {needed} bytes and there are {there}")
            }
            Self::Cannot(what) => f.write_str(what),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for Fault {}

impl From<IoError> for Fault {
    fn from(error: IoError) -> Self {
        match error {
            IoError::Gone => Self::Gone,
            other => Self::Io(other),
        }
    }
}
