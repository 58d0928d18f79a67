//! What may go wrong in a step, and where.

use crate::side::Hypervisor;
use firn_power::Step;
use std::fmt;

/// What goes wrong. Three are something else on Hyper-V, which has no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An error, and nothing happened.
    Error,
    /// An error, and it happened all the same.
    Effect,
    /// No answer; the backend wakes up when somebody connects or disconnects it.
    Timeout,
    /// No answer from there on until the sequence has ended.
    Hangs,
    /// The disk and its backend go away.
    Gone,
    /// There is no room on the disk.
    NoSpace,
    /// Memory is refused.
    NoMemory,
    /// Every grant reference is in use. On Hyper-V: the host has no room for
    /// messages.
    NoGrants,
    /// The hypervisor refuses an event channel. On Hyper-V: to open one of its own.
    NoChannel,
    /// The backend closes, and the toolstack has it start anew.
    Closes,
    /// The backend keeps every page mapped.
    KeepsPages,
    /// The backend answers what nobody asked.
    Breaks,
    /// The connection to xenstore is reset. On Hyper-V: every unit says that it was.
    Reset,
}

impl Kind {
    /// Whether it happens to anybody in that step: on Hyper-V no request needs a
    /// message.
    #[must_use]
    pub fn happens(self, on: Hypervisor, step: Step) -> bool {
        on != Hypervisor::HyperV || self != Self::NoGrants || connects(step)
    }

    /// Its name on a hypervisor.
    #[must_use]
    pub fn name(self, on: Hypervisor) -> String {
        match (self, on) {
            (Self::NoGrants, Hypervisor::HyperV) => "no messages".to_owned(),
            (Self::NoChannel, Hypervisor::HyperV) => "open refused".to_owned(),
            (Self::Reset, Hypervisor::HyperV) => "unit attention".to_owned(),
            (Self::Closes, Hypervisor::HyperV) => "taken back".to_owned(),
            (Self::Breaks, Hypervisor::HyperV) => "host cheats".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Effect => "error, but done",
            Self::Timeout => "timeout",
            Self::Hangs => "hangs",
            Self::Gone => "gone",
            Self::NoSpace => "no space",
            Self::NoMemory => "no memory",
            Self::NoGrants => "no grants",
            Self::NoChannel => "no channel",
            Self::Closes => "backend closes",
            Self::KeepsPages => "pages kept",
            Self::Breaks => "backend cheats",
            Self::Reset => "store reset",
        })
    }
}

/// Whether a disk is connected or disconnected by a step.
#[must_use]
pub const fn connects(step: Step) -> bool {
    matches!(
        step,
        Step::Disconnect | Step::DisconnectImage | Step::ConnectImage | Step::Reconnect
    )
}

/// A fault that is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Where.
    pub step: Step,
    /// What.
    pub kind: Kind,
    /// Every time that the step is taken, or only the first time.
    pub always: bool,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.always { " always" } else { "" };
        write!(f, "{}{how} at {}", self.kind, self.step)
    }
}

/// Everything that may go wrong in a step. A `match` without a rest: whoever
/// adds a step has to say it here.
#[must_use]
pub const fn kinds(step: Step) -> &'static [Kind] {
    use Kind::{
        Breaks, Closes, Effect, Error, Gone, Hangs, KeepsPages, NoChannel, NoGrants, NoMemory,
        NoSpace, Reset, Timeout,
    };
    match step {
        Step::Check | Step::Plan => &[
            Error, Timeout, Hangs, Gone, NoSpace, NoMemory, NoGrants, Closes, Breaks,
        ],
        Step::Reserve => &[NoMemory],
        Step::Park | Step::PowerOff => &[Error, Timeout],
        Step::Shut | Step::Open | Step::Unpark | Step::Idle | Step::Adopt => &[Error],
        Step::Drain => &[Error, Timeout, Hangs, Gone, Closes, Breaks],
        Step::Flush => &[Error, Effect, Timeout, Hangs, Gone, Closes, Breaks],
        Step::Identify | Step::Look | Step::Compare => {
            &[Error, Timeout, Hangs, Gone, NoMemory, NoGrants, Closes]
        }
        Step::Load => &[
            Error, Timeout, Hangs, Gone, NoMemory, NoGrants, Closes, Breaks,
        ],
        Step::Disconnect | Step::DisconnectImage => {
            &[Timeout, Hangs, Gone, KeepsPages, Closes, Reset]
        }
        Step::ConnectImage | Step::Reconnect => &[
            Error, Timeout, Hangs, Gone, NoMemory, NoGrants, NoChannel, Reset,
        ],
        Step::WriteChunks | Step::WriteTable => &[
            Error, Effect, Timeout, Hangs, Gone, NoSpace, NoGrants, Closes, Breaks,
        ],
        Step::FlushImage | Step::WriteHeader | Step::FlushHeader => {
            &[Error, Effect, Timeout, Hangs, Gone, Closes, Breaks]
        }
        Step::MapLanes | Step::ReadBack | Step::Verify => {
            &[Error, Timeout, Hangs, Gone, Closes, Breaks]
        }
        Step::Void => &[Error, Effect, Timeout, Hangs, Gone, Closes],
        Step::Bind => &[Error, NoMemory],
        Step::Consume | Step::Retire | Step::Abandon => &[
            Error, Effect, Timeout, Hangs, Gone, NoMemory, NoGrants, Closes,
        ],
    }
}
