//! What may go wrong in a step, and where.

use firn_power::Step;
use std::fmt;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An error, and nothing happened.
    Error,
    /// An error, and it happened all the same.
    Effect,
    /// No answer.
    Timeout,
    /// The disk and its backend go away.
    Gone,
    /// There is no room on the disk.
    NoSpace,
    /// Memory is refused.
    NoMemory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Effect => "error, but done",
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::NoSpace => "no space",
            Self::NoMemory => "no memory",
        })
    }
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
    use Kind::{Effect, Error, Gone, NoMemory, NoSpace, Timeout};
    match step {
        Step::Check | Step::Plan => &[Error, Timeout, Gone, NoSpace, NoMemory],
        Step::Reserve => &[NoMemory],
        Step::Park => &[Error, Timeout],
        Step::Shut | Step::Open | Step::Unpark | Step::Idle | Step::Adopt => &[Error],
        Step::Drain => &[Error, Timeout, Gone],
        Step::Flush => &[Error, Effect, Timeout, Gone],
        Step::Identify | Step::Look | Step::Compare => &[Error, Timeout, Gone, NoMemory],
        Step::Load => &[Error, Timeout, Gone, NoMemory],
        Step::Disconnect | Step::DisconnectImage => &[Error, Timeout, Gone],
        Step::ConnectImage | Step::Reconnect => &[Error, Timeout, Gone, NoMemory],
        Step::WriteChunks | Step::WriteTable => &[Error, Effect, Timeout, Gone, NoSpace],
        Step::FlushImage | Step::FlushHeader => &[Error, Effect, Timeout, Gone],
        Step::WriteHeader => &[Error, Effect, Timeout, Gone],
        Step::ReadBack | Step::Verify => &[Error, Timeout, Gone],
        Step::PowerOff => &[Error, Timeout],
        Step::Void => &[Error, Effect, Timeout, Gone],
        Step::Bind => &[Error, NoMemory],
        Step::Consume | Step::Retire | Step::Abandon => &[Error, Effect, Timeout, Gone, NoMemory],
    }
}
