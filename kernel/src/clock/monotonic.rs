//! A clock that never goes back, whatever its source does.

use core::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds since a starting point, at least the largest value ever given.
pub struct Monotonic {
    start: AtomicU64,
    latest: AtomicU64,
}

impl Monotonic {
    /// A clock that starts when its source is at zero.
    pub const fn new() -> Self {
        Self {
            start: AtomicU64::new(0),
            latest: AtomicU64::new(0),
        }
    }

    /// Makes source time `now` the zero of this clock.
    pub fn start_at(&self, now: u64) {
        self.start.store(now, Ordering::Relaxed);
    }

    /// The clock's value when its source says `now`.
    pub fn advance_to(&self, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.start.load(Ordering::Relaxed));
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
        self.start.load(Ordering::Relaxed).saturating_add(value)
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

    proptest! {
        #[test]
        fn never_goes_back(source in prop::collection::vec(any::<u64>(), 1..50)) {
            let clock = Monotonic::new();
            let mut last = 0;
            for now in source {
                let value = clock.advance_to(now);
                prop_assert!(value >= last && value >= now);
                last = value;
            }
        }
    }
}
