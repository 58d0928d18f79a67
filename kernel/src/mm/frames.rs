//! The frame allocator: contiguous runs of 4 KiB frames for boot memory
//! (page tables, rings, grant pages).

use core::fmt;
use core::ops::Range;

use super::{PAGE, RangeSet};

/// Most separate free runs tracked; boot-time memory is hardly fragmented.
const RUNS: usize = 128;

/// Why frames were not given or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No run of that many frames is free.
    Exhausted {
        /// Frames wanted.
        wanted: u64,
        /// Frames free in all.
        free: u64,
    },
    /// The run given back is free already, or was never the allocator's.
    NotOurs {
        /// Physical address of the run.
        start: u64,
    },
    /// Too many separate runs are free; the run given back is lost until the
    /// next boot.
    Fragmented,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { wanted, free } => write!(
                f,
                "boot memory has no {wanted} contiguous frames ({free} free); give the guest more \
                 memory"
            ),
            Self::NotOurs { start } => write!(f, "frames at {start:#x} were not allocated"),
            Self::Fragmented => write!(f, "more than {RUNS} free runs of frames; one is lost"),
        }
    }
}

/// Frames of one contiguous pool of physical memory.
#[derive(Debug)]
pub struct Frames {
    pool: Range<u64>,
    free: RangeSet<RUNS>,
}

impl Frames {
    /// No frames at all.
    pub const fn empty() -> Self {
        Self {
            pool: 0..0,
            free: RangeSet::new(),
        }
    }

    /// All frames of `pool`, page-aligned physical addresses.
    pub fn new(pool: Range<u64>) -> Self {
        let mut free = RangeSet::new();
        // An empty set has room for one range.
        let _ = free.insert(pool.clone());
        Self { pool, free }
    }

    /// Takes `count` contiguous frames; returns their physical address.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`].
    pub fn allocate(&mut self, count: u64) -> Result<u64, FrameError> {
        let exhausted = FrameError::Exhausted {
            wanted: count,
            free: self.free_frames(),
        };
        let bytes = count
            .checked_mul(PAGE)
            .filter(|&b| b > 0)
            .ok_or(exhausted)?;
        self.free
            .take(bytes, PAGE, u64::MAX)
            .map(|run| run.start)
            .ok_or(exhausted)
    }

    /// Takes back `count` frames at physical address `start`.
    ///
    /// # Errors
    /// [`FrameError::NotOurs`] for what is not allocated (nothing changes),
    /// [`FrameError::Fragmented`].
    pub fn free(&mut self, start: u64, count: u64) -> Result<(), FrameError> {
        let not_ours = FrameError::NotOurs { start };
        let end = count
            .checked_mul(PAGE)
            .and_then(|b| start.checked_add(b))
            .ok_or(not_ours)?;
        let inside = self.pool.start <= start && end <= self.pool.end && start.is_multiple_of(PAGE);
        if !inside || self.free.overlaps(&(start..end)) {
            return Err(not_ours);
        }
        self.free
            .insert(start..end)
            .map_err(|_| FrameError::Fragmented)
    }

    /// Frames that are free.
    pub fn free_frames(&self) -> u64 {
        self.free.total() / PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_contiguous_and_come_back() {
        let mut frames = Frames::new(0x10_0000..0x10_8000);
        let three = frames.allocate(3).expect("eight frames");
        let one = frames.allocate(1).expect("five frames");
        assert_eq!((three, one), (0x10_0000, 0x10_3000));
        frames.free(three, 3).expect("ours");
        assert_eq!(
            frames.allocate(5),
            Err(FrameError::Exhausted { wanted: 5, free: 7 })
        );
        frames.free(one, 1).expect("ours");
        assert_eq!(frames.allocate(8), Ok(0x10_0000));
    }

    #[test]
    fn what_is_not_allocated_is_not_taken_back() {
        let mut frames = Frames::new(0x10_0000..0x10_8000);
        let run = frames.allocate(2).expect("eight frames");
        frames.free(run, 2).expect("ours");
        for (start, count) in [
            (run, 2),
            (0x10_7000, 2),
            (0, 1),
            (run + 1, 1),
            (u64::MAX - 1, 1),
        ] {
            assert_eq!(
                frames.free(start, count),
                Err(FrameError::NotOurs { start })
            );
        }
    }

    #[test]
    fn absurd_counts_are_refused() {
        let mut frames = Frames::new(0..0x8000);
        for count in [0, 9, u64::MAX] {
            assert!(matches!(
                frames.allocate(count),
                Err(FrameError::Exhausted { .. })
            ));
        }
    }
}
