//! The lifecycle of a disk, in one table, and the gate that it opens and shuts.

use core::fmt;

/// Where a disk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// The handshake with the host is under way.
    Connecting,
    /// Requests are accepted.
    Live,
    /// The host asked to end: what is in flight ends, nothing new is accepted.
    Closing,
    /// Closed in good order, or unplugged; may connect again.
    Closed,
    /// The host broke a rule or a deadline; the device stays shut.
    Failed,
}

impl Lifecycle {
    /// Every state, for tests and tables.
    pub const ALL: [Self; 5] = [
        Self::Connecting,
        Self::Live,
        Self::Closing,
        Self::Closed,
        Self::Failed,
    ];

    /// Whether a disk may go from `self` to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use Lifecycle::{Closed, Closing, Connecting, Failed, Live};
        matches!(
            (self, next),
            (Connecting, Live | Closing | Closed | Failed)
                | (Live, Closing | Closed | Failed)
                | (Closing, Closed | Failed)
                | (Closed, Connecting)
        )
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Failed => "failed",
        })
    }
}

/// Holds the state; the only way to change it is along the table.
#[derive(Debug)]
pub struct Gate {
    state: Lifecycle,
}

/// A step that the table does not allow; the state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongStep {
    /// Where the disk is.
    pub from: Lifecycle,
    /// Where it was asked to go.
    pub to: Lifecycle,
}

impl Gate {
    /// A gate that is shut: the disk is connecting.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: Lifecycle::Connecting,
        }
    }

    /// The present state.
    #[must_use]
    pub const fn state(&self) -> Lifecycle {
        self.state
    }

    /// Whether requests are accepted.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, Lifecycle::Live)
    }

    /// Takes one step along the table.
    ///
    /// # Errors
    /// [`WrongStep`] when the table has no such step.
    pub fn step(&mut self, to: Lifecycle) -> Result<(), WrongStep> {
        if !self.state.may_become(to) {
            return Err(WrongStep {
                from: self.state,
                to,
            });
        }
        self.state = to;
        Ok(())
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_is_open_and_failed_is_final() {
        for state in Lifecycle::ALL {
            let gate = Gate { state };
            assert_eq!(gate.is_open(), state == Lifecycle::Live);
            assert!(!Lifecycle::Failed.may_become(state));
            assert!(!state.may_become(state), "{state} is no step from itself");
        }
    }

    #[test]
    fn a_wrong_step_changes_nothing() {
        let mut gate = Gate::new();
        gate.step(Lifecycle::Live).expect("first connection");
        gate.step(Lifecycle::Connecting)
            .expect_err("live is connected");
        assert_eq!(gate.state(), Lifecycle::Live);
        gate.step(Lifecycle::Closing).expect("the host may close");
        assert!(!gate.is_open());
    }
}
