//! Why a step of a freeze was not done.

use super::connect::ConnectError;
use crate::wire::grant_table::GrantRef;
use core::fmt;
use firn_block::gate::Lifecycle;
use firn_block::{DiskId, IoError, Why};

pub use firn_block::{Busy, DiskStep};

/// A step that failed: which disk, which step, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// The disk.
    pub disk: DiskId,
    /// What was to be done.
    pub step: DiskStep,
    /// Why it was not.
    pub why: WhyNot,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.disk, self.step, self.why)
    }
}

impl core::error::Error for StepError {}

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// The disk is in a state that the step does not start from, or came into
    /// one on the way.
    State(Lifecycle),
    /// The backend offers no way to make writes durable.
    NoFlush,
    /// It was not done within its deadline; so many requests had not ended.
    Deadline {
        /// Requests in flight.
        in_flight: usize,
    },
    /// The flush failed.
    Io(IoError),
    /// The flush was refused.
    Refused(Why),
    /// The ring is not idle.
    Busy(Busy),
    /// The backend closed and keeps pages of registered memory mapped.
    StillMapped {
        /// One of the grants.
        first: GrantRef,
        /// How many grants.
        grants: usize,
    },
    /// The handshake, to connect or to close, failed.
    Connect(ConnectError),
    /// The device was removed.
    Removed,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "the disk is {state}"),
            Self::NoFlush => f.write_str(
                "its backend offers no flush: nothing that was written to it is known to be durable",
            ),
            Self::Deadline { in_flight: 0 } => f.write_str("not done within the deadline"),
            Self::Deadline { in_flight } => {
                write!(f, "{in_flight} requests in flight at the deadline")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(why) => write!(f, "{why}"),
            Self::Busy(busy) => write!(f, "{busy}"),
            Self::StillMapped { first, grants } => write!(
                f,
                "the backend closed and keeps {grants} pages of buffers mapped, {first} among them"
            ),
            Self::Connect(error) => write!(f, "{error}"),
            Self::Removed => f.write_str("the device was removed"),
        }
    }
}
