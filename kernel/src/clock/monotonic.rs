//! A clock that never goes back, whatever its source does.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nanoseconds since a starting point, at least the largest value ever given.
pub struct Monotonic {
    start: AtomicU64,
    latest: AtomicU64,
    paused: AtomicBool,
}

impl Monotonic {
    /// A clock that starts when its source is at zero.
    pub const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// Makes source time `now` the zero of this clock.
    pub fn start_at(&self, now: u64) {
        self.start.store(now, Ordering::Relaxed);
    }

    /// Stops the clock until [`Monotonic::rebase`].
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// The source was exchanged, or the clock was stopped, and the source says
    /// `now`: the clock goes on from where it stood.
    pub fn rebase(&self, now: u64) {
        self.paused.store(false, Ordering::Relaxed);
        self.start
            .store(now.wrapping_sub(self.latest()), Ordering::Relaxed);
    }

    /// The clock's value when its source says `now`.
    pub fn advance_to(&self, now: u64) -> u64 {
        if self.paused.load(Ordering::Relaxed) {
            return self.latest();
        }
        // The zero may lie before the source's own, as a negative number. What
        // seems later than the end of time is a source that jumped back.
        let elapsed = now.wrapping_sub(self.start.load(Ordering::Relaxed));
        let elapsed = if elapsed.cast_signed() < 0 {
            0
        } else {
            elapsed
        };
        self.latest
            .fetch_max(elapsed, Ordering::Relaxed)
            .max(elapsed)
    }

    /// The last value given: near enough where nothing happened since, and free.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// The source's time when this clock reads `value`.
    pub fn source_time(&self, value: u64) -> u64 {
        self.start.load(Ordering::Relaxed).wrapping_add(value)
    }
}

impl Default for Monotonic {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_from_its_start() {
        let clock = Monotonic::new();
        clock.start_at(1000);
        assert_eq!(clock.advance_to(900), 0);
        assert_eq!(clock.advance_to(1500), 500);
        assert_eq!(clock.latest(), 500);
        assert_eq!(clock.source_time(500), 1500);
    }

    #[test]
    fn stands_still_while_it_is_paused() {
        let clock = Monotonic::new();
        clock.advance_to(10);
        clock.pause();
        assert_eq!(clock.advance_to(500), 10);
        clock.rebase(1000);
        assert_eq!(clock.advance_to(1003), 13);
    }

    proptest! {
        #[test]
        fn never_goes_back(
            source in prop::collection::vec((0..u64::MAX / 2, any::<bool>()), 1..50)
        ) {
            let clock = Monotonic::new();
            let mut last = 0;
            for (now, exchanged) in source {
                if exchanged {
                    clock.rebase(now);
                    prop_assert_eq!(clock.advance_to(now), last);
                    prop_assert_eq!(clock.advance_to(now + 7), last + 7);
                    prop_assert_eq!(clock.source_time(last + 7), now + 7);
                }
                let value = clock.advance_to(now);
                prop_assert!(value >= last);
                last = value;
            }
        }
    }
}
