//! When to set the hypervisor's timer before halting.

use core::cell::Cell;

use firn_task::Instant;

/// What to do when nobody has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing to wait for: a deadline has come.
    No,
    /// Halt; the timer is set already, or there is no deadline.
    Halt,
    /// Set the timer to this instant, then halt.
    SetTimerAndHalt(Instant),
}

/// Remembers what the timer is set to, so that it is set rarely.
///
/// Setting costs a hypercall, waking too early costs a look around. Deadlines
/// of requests move ahead all the time and almost never come; so a timer that
/// is set to an earlier instant is left alone.
#[derive(Debug, Default)]
pub struct Alarm {
    set_to: Cell<Option<Instant>>,
}

impl Alarm {
    /// No timer is set.
    pub const fn new() -> Self {
        Self {
            set_to: Cell::new(None),
        }
    }

    /// The timer's event came. By the guest's clock it may be early, as two
    /// readings of one clock need not agree; a deadline that is still ahead
    /// then wants a new timer.
    pub fn fired(&self) {
        self.set_to.set(None);
    }

    /// Decides how to rest at `now` when the next `deadline` is known.
    pub fn rest(&self, now: Instant, deadline: Option<Instant>) -> Rest {
        if self.set_to.get().is_some_and(|at| at <= now) {
            self.set_to.set(None); // it has fired
        }
        match deadline {
            None => Rest::Halt,
            Some(at) if at <= now => Rest::No,
            Some(at) if self.set_to.get().is_some_and(|set| set <= at) => Rest::Halt,
            Some(at) => {
                self.set_to.set(Some(at));
                Rest::SetTimerAndHalt(at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn without_a_deadline_only_events_wake() {
        assert_eq!(Alarm::new().rest(at(5), None), Rest::Halt);
    }

    #[test]
    fn a_deadline_that_has_come_is_no_rest() {
        assert_eq!(Alarm::new().rest(at(5), Some(at(5))), Rest::No);
    }

    #[test]
    fn the_timer_is_set_for_earlier_deadlines_only() {
        let alarm = Alarm::new();
        assert_eq!(
            alarm.rest(at(0), Some(at(50))),
            Rest::SetTimerAndHalt(at(50))
        );
        assert_eq!(alarm.rest(at(1), Some(at(60))), Rest::Halt);
        assert_eq!(
            alarm.rest(at(2), Some(at(40))),
            Rest::SetTimerAndHalt(at(40))
        );
    }

    #[test]
    fn a_timer_that_has_fired_is_set_again() {
        let alarm = Alarm::new();
        assert_eq!(
            alarm.rest(at(0), Some(at(50))),
            Rest::SetTimerAndHalt(at(50))
        );
        assert_eq!(
            alarm.rest(at(50), Some(at(60))),
            Rest::SetTimerAndHalt(at(60))
        );
    }
    #[test]
    fn a_timer_that_fired_early_is_set_again() {
        let alarm = Alarm::new();
        let again = Rest::SetTimerAndHalt(at(50));
        assert_eq!(alarm.rest(at(0), Some(at(50))), again);
        alarm.fired();
        assert_eq!(alarm.rest(at(49), Some(at(50))), again);
    }
}
