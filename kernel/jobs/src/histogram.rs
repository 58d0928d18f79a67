//! Latencies in little memory: exact enough everywhere, from nanoseconds to years.

use alloc::vec;
use alloc::vec::Vec;

/// Buckets per power of two; a value is known to one part in this many.
const SPLIT: u64 = 1 << SPLIT_BITS;
const SPLIT_BITS: u32 = 6;

/// Counts values in buckets whose width grows with the value.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    /// All memory that it ever needs is taken here.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; bucket(u64::MAX) + 1],
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    /// Counts a value.
    pub(crate) fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Forgets all values.
    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.sum, self.max) = (0, 0, 0);
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The largest value.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The mean; zero without values.
    pub(crate) fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count));
        u64::try_from(mean.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// A value that `percent` of all values do not exceed, rounded up to the
    /// end of its bucket; zero without values.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0u128;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted.max(1) {
                return last_of(index).min(self.max);
            }
        }
        0
    }
}

/// Below `SPLIT` every value has a bucket of its own; above, the highest bit and
/// the `SPLIT_BITS` bits after it choose.
fn bucket(value: u64) -> usize {
    if value < SPLIT {
        return value as usize;
    }
    let shift = value.ilog2() - SPLIT_BITS;
    (u64::from(shift) * SPLIT + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SPLIT {
        return bucket;
    }
    let shift = bucket / SPLIT - 1;
    let first = bucket - shift * SPLIT;
    (first << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_values_no_numbers() {
        let histogram = Histogram::new();
        assert_eq!(histogram.mean(), 0);
        assert_eq!(histogram.percentile(99), 0);
        assert_eq!(histogram.max(), 0);
    }

    #[test]
    fn a_known_distribution() {
        let mut histogram = Histogram::new();
        for value in 1..=100 {
            histogram.add(value * 1000);
        }
        assert_eq!(histogram.count(), 100);
        assert_eq!(histogram.mean(), 50_500);
        assert_eq!(histogram.max(), 100_000);
        let within = |percent, value: u64| {
            let found = histogram.percentile(percent);
            assert!(
                found >= value && found <= value + value / SPLIT + 1,
                "{found}"
            );
        };
        within(50, 50_000);
        within(99, 99_000);
        assert_eq!(histogram.percentile(100), 100_000);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.percentile(50)), (0, 0));
    }

    #[test]
    fn buckets_are_in_order_without_gaps() {
        for index in 0..=bucket(u64::MAX) {
            let last = last_of(index);
            assert_eq!(bucket(last), index);
            if last < u64::MAX {
                assert_eq!(bucket(last + 1), index + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_is_known_to_its_share(value: u64) {
            let last = last_of(bucket(value));
            prop_assert!(last >= value);
            prop_assert!(last - value <= value / SPLIT);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_values(
            mut values in prop::collection::vec(0u64..1 << 40, 1..200),
            percent in 1u64..=100,
        ) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let rank = (values.len() as u64 * percent).div_ceil(100).max(1);
            let exact = values[rank as usize - 1];
            let found = histogram.percentile(percent);
            prop_assert!(found >= exact && found - exact <= exact / SPLIT);
        }
    }
}
