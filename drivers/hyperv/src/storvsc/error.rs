//! Why a controller or a disk could not be had.

use super::offence::Offence;
use crate::vmbus::BusError;
use crate::wire::Guid;
use crate::wire::vstor::{Operation, Status, Version};
use core::fmt;
use firn_scsi::{Condition, DataError};

/// Why a controller did not connect, or not disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The bus did not do it.
    Bus(BusError),
    /// The host offers no such controller.
    NotOffered(Guid),
    /// It is connected already, or in the middle of a change.
    Busy,
    /// There is no memory.
    NoMemory,
    /// The host broke a rule.
    Offence(Offence),
    /// A step was not answered in time.
    Deadline(&'static str),
    /// The host refuses a step of the handshake.
    Refused(Operation, Status),
    /// The host speaks none of our versions.
    NoVersion {
        /// The oldest that was tried.
        oldest: Version,
    },
    /// Nothing can be moved in one request.
    NoTransfer(u32),
    /// A disk answers a command with an error.
    Scsi(&'static str, Condition),
    /// A command failed without an explanation.
    Failed(&'static str),
    /// What a disk answers makes no sense.
    Data(&'static str, DataError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bus(error) => write!(f, "{error}"),
            Self::NotOffered(instance) => write!(f, "the host offers no controller {instance}"),
            Self::Busy => f.write_str("the controller is connected or about to be"),
            Self::NoMemory => f.write_str("no memory that could be shared"),
            Self::Offence(offence) => write!(f, "the host broke the protocol: {offence}"),
            Self::Deadline(step) => write!(f, "no answer to {step} until the deadline"),
            Self::Refused(operation, status) => write!(f, "the host refuses {operation}: {status}"),
            Self::NoVersion { oldest } => {
                write!(f, "the host speaks no version of storvsc from {oldest} on")
            }
            Self::NoTransfer(bytes) => write!(f, "requests of {bytes} bytes are too small"),
            Self::Scsi(command, condition) => write!(f, "{command}: {condition}"),
            Self::Failed(command) => write!(f, "{command} failed without an explanation"),
            Self::Data(command, error) => write!(f, "{command}: {error}"),
        }
    }
}

impl core::error::Error for ConnectError {}

impl From<BusError> for ConnectError {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

/// A step of a freeze that failed: which disk, which step, why.
pub type StepError = firn_block::StepError<ConnectError>;

/// Why a step was not done.
pub type WhyNot = firn_block::WhyNot<ConnectError>;
