//! The lifecycle of a disk, in one table, and the gate that it opens and shuts.

use core::fmt;

/// Where a disk is in its life.
///
/// There are two ways to stop, with opposite rules. A *freeze* lets everything
/// in flight complete, disconnects, and connects anew later: nothing is in
/// flight between. A *suspend* leaves requests in flight, because the host takes
/// the memory as it is, and issues them again on the host's other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// The handshake with the host is under way.
    Connecting,
    /// Requests are accepted.
    Live,
    /// Connected, and shut to jobs: what they have in flight completes, and the
    /// kernel's own requests (a flush, an image) are still carried out.
    Freezing,
    /// Disconnected on purpose, with nothing in flight.
    Frozen,
    /// The handshake after a freeze is under way.
    Thawing,
    /// The host is about to change, or has changed: what is in flight waits,
    /// and new requests wait behind it.
    Suspended,
    /// The handshake with the new host is under way; after it what was in flight
    /// is issued again.
    Reissuing,
    /// The host asked to end: what is in flight ends, nothing new is accepted.
    Closing,
    /// Closed in good order, or unplugged; may connect again.
    Closed,
    /// The host broke a rule or a deadline; the device stays shut.
    Failed,
}

/// What a disk does with a request that comes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is carried out.
    Accept,
    /// It is accepted and carried out once the disk is live again.
    Queue,
    /// It is given back.
    Refuse,
}

impl Lifecycle {
    /// Every state, for tests and tables.
    pub const ALL: [Self; 10] = [
        Self::Connecting,
        Self::Live,
        Self::Freezing,
        Self::Frozen,
        Self::Thawing,
        Self::Suspended,
        Self::Reissuing,
        Self::Closing,
        Self::Closed,
        Self::Failed,
    ];

    /// Where a disk may go from here: the whole table.
    #[must_use]
    pub const fn next(self) -> &'static [Self] {
        use Lifecycle::{
            Closed, Closing, Connecting, Failed, Freezing, Frozen, Live, Reissuing, Suspended,
            Thawing,
        };
        match self {
            // Freezing: a device that came while the gates are shut.
            Connecting => &[Live, Freezing, Failed],
            Live => &[Freezing, Suspended, Closing, Closed, Failed],
            // Live: the gate opens again. Closing,
            // Closed: the host left meanwhile, or did not leave in time.
            Freezing => &[Live, Frozen, Closing, Closed, Failed],
            Frozen => &[Thawing, Closed],
            // Freezing: connected, and still shut. Frozen: the handshake failed
            // and may be tried again.
            Thawing => &[Freezing, Frozen],
            // All but the last: the suspend was cancelled.
            Suspended => &[Live, Closing, Reissuing],
            // Freezing: the gate was shut when the host closed the disk.
            Reissuing => &[Live, Freezing, Suspended, Failed],
            Closing => &[Suspended, Closed, Failed],
            Closed => &[Connecting],
            Failed => &[],
        }
    }

    /// Whether a disk may go from `self` to `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        self.next().contains(&next)
    }

    /// What becomes of a job's request in this state.
    #[must_use]
    pub const fn admits(self) -> Admission {
        match self {
            Self::Live => Admission::Accept,
            Self::Suspended | Self::Reissuing => Admission::Queue,
            Self::Connecting
            | Self::Freezing
            | Self::Frozen
            | Self::Thawing
            | Self::Closing
            | Self::Closed
            | Self::Failed => Admission::Refuse,
        }
    }

    /// What becomes of a request of the kernel's own: a flush before a
    /// disconnect, the image.
    #[must_use]
    pub const fn admits_kernel(self) -> Admission {
        match self {
            Self::Live | Self::Freezing => Admission::Accept,
            _ => Admission::Refuse,
        }
    }

    /// Whether the ring belongs to the host that the disk is connected to:
    /// then responses are taken from it and pieces put on it.
    #[must_use]
    pub const fn uses_ring(self) -> bool {
        matches!(self, Self::Live | Self::Freezing | Self::Closing)
    }
}

impl Lifecycle {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Freezing => "shut",
            Self::Frozen => "frozen",
            Self::Thawing => "thawing",
            Self::Suspended => "suspended",
            Self::Reissuing => "reissuing",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

    /// Whether requests are accepted and carried out.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state.admits(), Admission::Accept)
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
    use super::Lifecycle::*;
    use super::*;
    use alloc::collections::BTreeSet;

    /// Every state that can be reached from `from` without `without`.
    fn reachable(from: Lifecycle, without: &[Lifecycle]) -> BTreeSet<Lifecycle> {
        let mut seen = BTreeSet::from([from]);
        loop {
            let before = seen.len();
            for state in seen.clone() {
                let next = state.next().iter();
                seen.extend(next.filter(|state| !without.contains(state)));
            }
            if seen.len() == before {
                return seen;
            }
        }
    }

    #[test]
    fn only_live_is_open_and_failed_is_final() {
        for state in Lifecycle::ALL {
            let gate = Gate { state };
            assert_eq!(gate.is_open(), state == Live);
            assert!(!Failed.may_become(state));
            assert!(!state.may_become(state), "{state} is no step from itself");
        }
    }

    #[test]
    fn a_wrong_step_changes_nothing() {
        let mut gate = Gate::new();
        gate.step(Live).expect("first connection");
        gate.step(Connecting).expect_err("live is connected");
        assert_eq!(gate.state(), Live);
        gate.step(Closing).expect("the host may close");
        assert!(!gate.is_open());
    }

    #[test]
    fn every_state_is_reached_and_only_failed_is_never_left() {
        let all = BTreeSet::from(Lifecycle::ALL);
        assert_eq!(reachable(Connecting, &[]), all);
        for state in Lifecycle::ALL.into_iter().filter(|state| *state != Failed) {
            assert!(reachable(state, &[]).contains(&Live), "{state}");
        }
    }

    #[test]
    fn a_frozen_disk_opens_only_by_a_new_handshake() {
        for shut in [Frozen, Closed] {
            assert!(!shut.may_become(Live));
        }
        let lost = reachable(Frozen, &[Thawing, Connecting]);
        assert!(!lost.contains(&Live), "{lost:?}");
        let lost = reachable(Suspended, &[Live, Closing]);
        assert!(lost.contains(&Reissuing), "{lost:?}");
    }

    #[test]
    fn a_freeze_refuses_what_is_late_and_a_suspend_queues_it() {
        for state in Lifecycle::ALL {
            let expected = match state {
                Live => Admission::Accept,
                Suspended | Reissuing => Admission::Queue,
                _ => Admission::Refuse,
            };
            assert_eq!(state.admits(), expected, "{state}");
            // The kernel's requests need a ring, and one that will answer.
            if state.admits_kernel() == Admission::Accept {
                assert!(state.uses_ring(), "{state}");
            }
        }
        assert!(!Suspended.uses_ring() && !Reissuing.uses_ring());
    }
}
