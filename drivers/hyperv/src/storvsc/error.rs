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

/// A step of a freeze that failed: why it was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// The disk is in a state that the step does not start from, or came into
    /// one on the way.
    State(firn_block::gate::Lifecycle),
    /// The disk offers no way to make writes durable.
    NoFlush,
    /// It was not done within its deadline; so many requests had not ended.
    Deadline {
        /// Requests in flight.
        in_flight: usize,
    },
    /// The flush failed.
    Io(firn_block::IoError),
    /// The flush was refused.
    Refused(firn_block::Why),
    /// The ring is not idle.
    Busy(firn_block::Busy),
    /// The handshake, to connect or to close, failed.
    Connect(ConnectError),
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "the disk is {state}"),
            Self::NoFlush => f.write_str(
                "it offers no flush: nothing that was written to it is known to be durable",
            ),
            Self::Deadline { in_flight } => {
                write!(f, "{in_flight} requests in flight at the deadline")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(why) => write!(f, "{why}"),
            Self::Busy(busy) => write!(f, "{busy}"),
            Self::Connect(error) => write!(f, "{error}"),
        }
    }
}

/// A step that failed: which disk, which step, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepError {
    /// The disk.
    pub disk: firn_block::DiskId,
    /// What was to be done.
    pub step: firn_block::DiskStep,
    /// Why it was not.
    pub why: WhyNot,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.disk, self.step, self.why)
    }
}

impl core::error::Error for StepError {}
