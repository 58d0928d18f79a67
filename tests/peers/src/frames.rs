//! Guest memory: runs of pages with made-up frame numbers.

use crate::memory;
use firn_block::Gfn;
use firn_block::PAGE;
use firn_block::shm::Region;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// What freed pages are filled with.
const POISON: u64 = 0xdbdb_dbdb_dbdb_dbdb;

struct Run {
    region: Region,
    freed: bool,
    /// Somebody else's, who outlives the machine.
    lent: bool,
}

/// Every run of pages of the guest, by its first frame.
pub(crate) struct Frames {
    runs: BTreeMap<u64, Run>,
    by_address: BTreeMap<usize, u64>,
    next: u64,
    /// Pages that may still be allocated.
    pub(crate) budget: usize,
}

/// What is at a frame.
pub(crate) struct Frame {
    pub(crate) page: Region,
    pub(crate) freed: bool,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self {
            runs: BTreeMap::new(),
            by_address: BTreeMap::new(),
            next: 0x1000,
            budget: usize::MAX,
        }
    }

    /// Allocates RAM; frames never follow each other across two allocations.
    pub(crate) fn allocate(&mut self, pages: usize) -> Option<Region> {
        if pages == 0 || pages > self.budget {
            return None;
        }
        self.budget -= pages;
        let first = self.next;
        self.next += pages as u64 + 1;
        Some(self.place(first, pages))
    }

    /// Puts fresh pages at given frames.
    pub(crate) fn place(&mut self, first: u64, pages: usize) -> Region {
        let region = memory::take(pages);
        let handle = region.alias();
        self.insert(first, region, false);
        handle
    }

    fn insert(&mut self, first: u64, region: Region, lent: bool) {
        self.by_address.insert(region.addr(), first);
        let run = Run {
            region,
            freed: false,
            lent,
        };
        assert!(self.runs.insert(first, run).is_none(), "frame used twice");
    }

    /// Takes up memory that was made elsewhere.
    pub(crate) fn lend(&mut self, region: &Region) {
        let first = self.next;
        self.next += region.page_count() as u64 + 1;
        self.lend_at(first, region);
    }

    /// The same, at given frames.
    pub(crate) fn lend_at(&mut self, first: u64, region: &Region) {
        self.insert(first, region.alias(), true);
    }

    /// Poisons a run. `None` when it is no whole allocation or was freed before;
    /// otherwise its frames.
    pub(crate) fn free(&mut self, region: &Region) -> Option<std::ops::Range<u64>> {
        let first = *self.by_address.get(&region.addr())?;
        let run = self.runs.get_mut(&first)?;
        if run.freed || run.region.len() != region.len() {
            return None;
        }
        run.freed = true;
        self.budget = self.budget.saturating_add(region.page_count());
        for at in (0..region.len()).step_by(8) {
            region.atomic_u64(at).store(POISON, Relaxed);
        }
        Some(first..first + region.page_count() as u64)
    }

    fn run_of(&self, gfn: u64) -> Option<(&Run, usize)> {
        let (first, run) = self.runs.range(..=gfn).next_back()?;
        let page = usize::try_from(gfn - first).ok()?;
        (page < run.region.page_count()).then_some((run, page))
    }

    /// The page at a frame.
    pub(crate) fn frame(&self, gfn: Gfn) -> Option<Frame> {
        let (run, page) = self.run_of(gfn.0)?;
        Some(Frame {
            page: run.region.pages(page, 1),
            freed: run.freed,
        })
    }

    /// Several frames in one piece.
    pub(crate) fn map(&self, first: Gfn, count: usize) -> Option<Region> {
        let (run, page) = self.run_of(first.0)?;
        (count <= run.region.page_count() - page).then(|| run.region.pages(page, count))
    }

    /// The frame number of an address.
    pub(crate) fn gfn(&self, address: usize) -> Option<Gfn> {
        let (start, first) = self.by_address.range(..=address).next_back()?;
        let page = (address - start) / PAGE;
        let run = &self.runs[first];
        (page < run.region.page_count()).then_some(Gfn(first + page as u64))
    }

    /// Frames that were written after they had been freed.
    pub(crate) fn spoiled(&self) -> Vec<Gfn> {
        let mut spoiled = Vec::new();
        for (first, run) in self.runs.iter().filter(|(_, run)| run.freed) {
            for page in 0..run.region.page_count() {
                let intact = (0..PAGE)
                    .step_by(8)
                    .all(|at| run.region.atomic_u64(page * PAGE + at).load(Relaxed) == POISON);
                if !intact {
                    spoiled.push(Gfn(first + page as u64));
                }
            }
        }
        spoiled
    }

    /// Pages that are allocated and not freed.
    pub(crate) fn in_use(&self) -> usize {
        let live = self.runs.values().filter(|run| !run.freed);
        live.map(|run| run.region.page_count()).sum()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        while let Some((_, run)) = self.runs.pop_first() {
            if !run.lent {
                memory::give_back(run.region);
            }
        }
    }
}
