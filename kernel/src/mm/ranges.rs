//! A small set of address ranges: sorted, disjoint, merged.

use core::ops::Range;

use heapless::Vec;

/// The set would need more ranges than it has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// At most `N` disjoint ranges, in ascending order, no two touching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet<const N: usize> {
    ranges: Vec<Range<u64>, N>,
}

impl<const N: usize> RangeSet<N> {
    /// An empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Sum of all lengths, in bytes.
    pub fn total(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether any byte of `range` is in the set.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.iter()
            .any(|r| r.start < range.end && range.start < r.end)
    }

    /// Adds `range`, merging what it overlaps or touches.
    ///
    /// # Errors
    /// [`Full`]; the set is unchanged.
    pub fn insert(&mut self, range: Range<u64>) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        let first = self
            .ranges
            .iter()
            .take_while(|r| r.end < range.start)
            .count();
        let touching = self.ranges[first..]
            .iter()
            .take_while(|r| r.start <= range.end)
            .count();
        let mut merged = range;
        if touching == 0 {
            return self.ranges.insert(first, merged).map_err(|_| Full);
        }
        for _ in 0..touching {
            let old = self.ranges.remove(first);
            merged = merged.start.min(old.start)..merged.end.max(old.end);
        }
        self.ranges.insert(first, merged).map_err(|_| Full)
    }

    /// Removes every byte of `range`.
    ///
    /// # Errors
    /// [`Full`] if cutting a hole needs one more range than fits; the set is
    /// unchanged.
    pub fn remove(&mut self, range: &Range<u64>) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        let mut index = 0;
        while let Some(r) = self.ranges.get(index).cloned() {
            let below = r.start..r.end.min(range.start);
            let above = r.start.max(range.end)..r.end;
            match (below.is_empty(), above.is_empty()) {
                (true, true) => {
                    self.ranges.remove(index);
                    continue;
                }
                (false, true) => self.ranges[index] = below,
                (true, false) => self.ranges[index] = above,
                (false, false) => {
                    self.ranges.insert(index + 1, above).map_err(|_| Full)?;
                    self.ranges[index] = below;
                }
            }
            index += 1;
        }
        Ok(())
    }

    /// Takes the lowest run of `size` bytes at a multiple of `align` (a power
    /// of two) that ends at or below `limit`.
    pub fn take(&mut self, size: u64, align: u64, limit: u64) -> Option<Range<u64>> {
        let run = self.iter().find_map(|r| {
            let start = super::align_up(r.start, align)?;
            let end = start.checked_add(size)?;
            (end <= r.end.min(limit)).then_some(start..end)
        })?;
        self.remove(&run).ok()?;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_merge_and_holes_split() {
        let mut set = RangeSet::<4>::new();
        for range in [10..20, 30..40, 20..30] {
            set.insert(range).expect("room");
        }
        assert!(set.iter().eq(core::iter::once(10..40)));
        set.remove(&(15..25)).expect("room");
        assert_eq!(set.iter().collect::<Vec<_>>(), [10..15, 25..40]);
        assert_eq!(set.total(), 20);
    }

    #[test]
    fn a_full_set_refuses_and_stays() {
        let mut set = RangeSet::<2>::new();
        set.insert(0..10).expect("room");
        set.insert(20..30).expect("room");
        let before = set.clone();
        assert_eq!(set.insert(40..50), Err(Full));
        assert_eq!(set.remove(&(3..5)), Err(Full));
        assert_eq!(set, before);
        set.insert(5..25).expect("merging needs no room");
    }

    #[test]
    fn take_honours_alignment_and_limit() {
        let mut set = RangeSet::<8>::new();
        set.insert(0x1001..0x9000).expect("room");
        assert_eq!(set.take(0x1000, 0x1000, u64::MAX), Some(0x2000..0x3000));
        assert_eq!(set.take(0x1000, 0x4000, u64::MAX), Some(0x4000..0x5000));
        assert_eq!(set.take(0x3000, 0x1000, 0x7fff), None);
        assert_eq!(set.take(0x8000, 0x1000, u64::MAX), None);
    }

    proptest! {
        /// Against a set of single numbers: same members, and always sorted and apart.
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..40)) {
            let mut set = RangeSet::<64>::new();
            let mut model = BTreeSet::new();
            for (insert, start, size) in steps {
                let range = start..start + size;
                if insert {
                    set.insert(range.clone()).expect("64 ranges are enough for 80 numbers");
                    model.extend(range);
                } else {
                    set.remove(&range).expect("64 ranges are enough for 80 numbers");
                    model.retain(|n| !range.contains(n));
                }
                prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }
}
