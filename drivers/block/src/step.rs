//! The steps of a freeze by name, and what keeps a ring from being idle.

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
