//! The steps of a freeze by name, what keeps a ring from being idle, and why a
//! step was not done.

use crate::gate::Lifecycle;
use crate::{DiskId, IoError, Why};
use core::fmt;

/// A step of a freeze or of the way back, as tables of faults name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskStep {
    /// Asking whether the disk could be frozen.
    Ask,
    /// Shutting the gate.
    Shut,
    /// Letting everything in flight complete.
    Drain,
    /// Making it durable.
    Flush,
    /// Looking whether the ring is idle.
    Idle,
    /// Disconnecting.
    Disconnect,
    /// Connecting, with the gate shut.
    Connect,
    /// Opening the gate.
    Open,
    /// Holding still for the host.
    Suspend,
}

impl DiskStep {
    /// Every step, for tables.
    pub const ALL: [Self; 9] = [
        Self::Ask,
        Self::Shut,
        Self::Drain,
        Self::Flush,
        Self::Idle,
        Self::Disconnect,
        Self::Connect,
        Self::Open,
        Self::Suspend,
    ];
}

impl fmt::Display for DiskStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ask => "ask",
            Self::Shut => "shut the gate",
            Self::Drain => "drain",
            Self::Flush => "flush",
            Self::Idle => "check that the ring is idle",
            Self::Disconnect => "disconnect",
            Self::Connect => "connect",
            Self::Open => "open the gate",
            Self::Suspend => "suspend",
        })
    }
}

/// What a ring that should be idle still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Responses that nobody took.
    Responses(u32),
    /// Requests that the backend has not answered.
    Unanswered(u32),
    /// Requests that were accepted and have not ended.
    Accepted(usize),
    /// Completions that nobody took.
    Completions(usize),
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Responses(count) => write!(f, "{count} responses on the ring were not taken"),
            Self::Unanswered(count) => write!(f, "{count} requests on the ring have no answer"),
            Self::Accepted(count) => write!(f, "{count} accepted requests have not ended"),
            Self::Completions(count) => write!(f, "{count} completions were not taken"),
        }
    }
}

/// A step that failed: which disk, which step, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepError<C> {
    /// The disk.
    pub disk: DiskId,
    /// What was to be done.
    pub step: DiskStep,
    /// Why it was not.
    pub why: WhyNot<C>,
}

impl<C: fmt::Display> fmt::Display for StepError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.disk, self.step, self.why)
    }
}

impl<C: fmt::Debug + fmt::Display> core::error::Error for StepError<C> {}

/// Why a step was not done; `C` is why a connection was not made or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot<C> {
    /// The disk is in a state that the step does not start from, or came into
    /// one on the way.
    State(Lifecycle),
    /// The host offers no way to make writes durable.
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
    /// The handshake, to connect or to close, failed.
    Connect(C),
    /// The device was removed.
    Removed,
}

impl<C: fmt::Display> fmt::Display for WhyNot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "the disk is {state}"),
            Self::NoFlush => f.write_str(
                "its host offers no flush: nothing that was written to it is known to be durable",
            ),
            Self::Deadline { in_flight: 0 } => f.write_str("not done within the deadline"),
            Self::Deadline { in_flight } => {
                write!(f, "{in_flight} requests in flight at the deadline")
            }
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(why) => write!(f, "{why}"),
            Self::Busy(busy) => write!(f, "{busy}"),
            Self::Connect(error) => write!(f, "{error}"),
            Self::Removed => f.write_str("the device was removed"),
        }
    }
}
