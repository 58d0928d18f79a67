//! Dividing the machine's memory: image, frames, boot heap, job memory.

use core::fmt;
use core::ops::Range;

use super::{Full, LARGE_PAGE, PAGE, RangeSet, align_down, align_up};
use crate::bootinfo::{MemoryEntry, MemoryKind, Module};

/// Below this the machine keeps its own things; we keep away.
const LOW_MEMORY: u64 = 1 << 20;
/// Boot memory must be inside the direct map.
const DIRECT_MAP_END: u64 = 4 << 30;
/// Boot memory (frames and heap together) is this part of all memory...
const BOOT_PART: u64 = 16;
/// ...in a small machine as much as this, as disks need their rings...
const SMALL_BOOT_BYTES: u64 = 10 << 20;
/// ...unless all that is not the jobs' would be more than this part: an image
/// shall hold nine tenths of the memory...
const REST_PART: u64 = 10;
/// ...but never less, so that a freeze finds what it works with, and never more
/// than this.
const BOOT_BYTES: Range<u64> = 5 << 20..64 << 20;
/// This part of boot memory is heap, the rest frames: a disk with a large ring
/// takes 2 MiB of frames, and a tenth of that of heap. Where it is too small, it
/// has some of the frames.
const HEAP_PART: u64 = 4;
/// The heap is never smaller.
const HEAP_MIN: u64 = 2 << 20;
/// Where the hypervisor's own pages go: below the local APIC and what a
/// toolstack puts at the end of the first 4 GiB.
const HOLES: Range<u64> = 0xf000_0000..0xfe00_0000;
/// Bytes of the hole: 256 frames.
const HOLE_BYTES: u64 = 1 << 20;
/// A job memory smaller than this is of no use.
const JOB_MIN: u64 = 4 << 20;

type Map = RangeSet<256>;

/// How memory is divided; all ranges are physical and page-aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Usable memory in all, in bytes.
    pub usable: u64,
    /// For the frame allocator.
    pub frames: Range<u64>,
    /// For the kernel's own heap.
    pub boot_heap: Range<u64>,
    /// Job memory: one run, aligned to large pages.
    pub job: Range<u64>,
    /// Room for the hypervisor's own pages, inside the direct map: outside RAM,
    /// always at the same place, unless the machine has RAM everywhere.
    pub hole: Range<u64>,
}

/// Why memory cannot be divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// Too little memory.
    TooLittle {
        /// Usable bytes.
        usable: u64,
        /// Which part did not fit.
        part: &'static str,
    },
    /// The memory map has too many holes.
    TooManyRanges,
    /// A page table could not be made.
    Map,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittle { usable, part } => write!(
                f,
                "too little memory: {} KiB usable leave no room for {part}; give the guest at \
                 least 32 MiB",
                usable >> 10
            ),
            Self::TooManyRanges => write!(f, "the memory map has too many holes"),
            Self::Map => write!(f, "a page table could not be made"),
        }
    }
}

impl From<Full> for MemoryError {
    fn from(_: Full) -> Self {
        Self::TooManyRanges
    }
}

impl Plan {
    /// Divides what `entries` calls RAM, without `image` and `modules`.
    ///
    /// Where entries overlap, what is not RAM wins. Boot memory comes from the
    /// lowest run with room for it; job memory is the largest run that is left.
    ///
    /// # Errors
    /// [`MemoryError`].
    pub fn new(
        entries: &[MemoryEntry],
        modules: &[Module],
        image: Range<u64>,
    ) -> Result<Self, MemoryError> {
        let mut free = usable_ram(entries)?;
        let usable = free.total();
        free.remove(&(0..LOW_MEMORY))?;
        free.remove(&outward(image.start, image.end))?;
        for module in modules {
            free.remove(&outward(module.start, module.start + module.size))?;
        }
        let hole = match find_hole(entries) {
            Some(hole) => hole,
            // RAM all over the first 4 GiB: give up some of it. Xen drops the
            // page that was there when it maps one of its own.
            None => free
                .take(HOLE_BYTES, PAGE, DIRECT_MAP_END)
                .ok_or(MemoryError::TooLittle {
                    usable,
                    part: "the hypervisor's pages",
                })?,
        };
        let too_little = |part| MemoryError::TooLittle { usable, part };
        let run = free
            .take(boot_bytes(&free, usable), PAGE, DIRECT_MAP_END)
            .ok_or(too_little("boot memory"))?;
        let run = run.start..take_rest(&mut free, run.end)?;
        let heap = ((run.end - run.start) / HEAP_PART).max(HEAP_MIN);
        let middle = align_down(run.end - heap, PAGE);
        let job = free
            .iter()
            .map(|r| align_up(r.start, LARGE_PAGE).unwrap_or(r.end)..align_down(r.end, LARGE_PAGE))
            .max_by_key(|r| r.end.saturating_sub(r.start))
            .filter(|r| r.end.saturating_sub(r.start) >= JOB_MIN)
            .ok_or(too_little("job memory"))?;
        Ok(Self {
            usable,
            frames: run.start..middle,
            boot_heap: middle..run.end,
            job,
            hole,
        })
    }
}

/// How much of what is `free` is to be boot memory.
fn boot_bytes(free: &Map, usable: u64) -> u64 {
    let reach = |r: &Range<u64>| r.end.min(DIRECT_MAP_END).saturating_sub(r.start);
    let largest = free.iter().map(|r| reach(&r)).max().unwrap_or(0);
    let wanted = (usable / BOOT_PART)
        .clamp(SMALL_BOOT_BYTES, BOOT_BYTES.end)
        .min(largest / 2);
    // Job memory begins at a large page.
    let rest = align_down(usable / REST_PART, LARGE_PAGE);
    let first = free.iter().find(|r| reach(r) >= BOOT_BYTES.start);
    let most = first.map_or(0, |r| rest.saturating_sub(r.start));
    align_down(wanted.min(most).max(BOOT_BYTES.start), 2 * PAGE)
}

/// Takes what follows `end` up to the next large page, which would be nobody's:
/// the new end.
fn take_rest(free: &mut Map, end: u64) -> Result<u64, Full> {
    let next = align_up(end, LARGE_PAGE).unwrap_or(end);
    let rest = free.iter().find(|r| r.start == end && r.end >= next);
    if rest.is_none() || next > DIRECT_MAP_END {
        return Ok(end);
    }
    free.remove(&(end..next))?;
    Ok(next)
}

/// RAM in whole pages, without what other entries claim.
fn usable_ram(entries: &[MemoryEntry]) -> Result<Map, Full> {
    let mut ram = Map::new();
    let range = |e: &MemoryEntry| e.start..e.start + e.size;
    for r in entries
        .iter()
        .filter(|e| e.kind == MemoryKind::Ram)
        .map(range)
    {
        ram.insert(r)?;
    }
    for r in entries
        .iter()
        .filter(|e| e.kind != MemoryKind::Ram)
        .map(range)
    {
        ram.remove(&r)?;
    }
    let mut pages = Map::new();
    for r in ram.iter() {
        if let Some(start) = align_up(r.start, PAGE) {
            pages.insert(start..align_down(r.end, PAGE).max(start))?;
        }
    }
    Ok(pages)
}

/// A place for the hypervisor's pages that no entry of the map knows.
fn find_hole(entries: &[MemoryEntry]) -> Option<Range<u64>> {
    let taken = |hole: &Range<u64>| {
        entries
            .iter()
            .any(|e| e.start < hole.end && hole.start < e.start + e.size)
    };
    let starts = HOLES.step_by(HOLE_BYTES as usize);
    starts
        .map(|start| start..start + HOLE_BYTES)
        .find(|hole| !taken(hole))
}

/// The pages that `start..end` touches.
fn outward(start: u64, end: u64) -> Range<u64> {
    align_down(start, PAGE)..align_up(end, PAGE).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Where the ELF lies, up to a little beyond 2 MiB.
    const IMAGE: Range<u64> = 0x10_0000..0x21_8234;
    const MIB: u64 = 1 << 20;

    fn ram(start: u64, size: u64) -> MemoryEntry {
        MemoryEntry {
            start,
            size,
            kind: MemoryKind::Ram,
        }
    }

    fn other(start: u64, size: u64) -> MemoryEntry {
        MemoryEntry {
            start,
            size,
            kind: MemoryKind::Other(2),
        }
    }

    #[test]
    fn a_usual_guest() {
        let plan = Plan::new(&[ram(0, 128 * MIB)], &[], IMAGE).expect("128 MiB are enough");
        let start = 0x21_9000;
        assert_eq!(plan.frames.start, start);
        let heap = plan.boot_heap.end - plan.boot_heap.start;
        let boot = plan.boot_heap.end - start;
        assert!(heap * 4 >= boot && heap * 4 < boot + 4 * PAGE, "{plan:x?}");
        assert_eq!(plan.frames.end, plan.boot_heap.start);
        assert_eq!(plan.boot_heap.end, 12 * MIB, "nothing is left unused");
        assert_eq!(plan.job, 12 * MIB..128 * MIB);
    }

    #[test]
    fn nine_tenths_of_the_memory_are_the_jobs() {
        let sizes = [96, 98, 100, 120, 128, 160, 192, 256, 512, 1024, 2048, 3072];
        for mib in sizes {
            let plan = Plan::new(&[ram(0, mib * MIB)], &[], IMAGE).expect("enough");
            let job = plan.job.end - plan.job.start;
            assert!(job * 10 >= mib * MIB * 9, "{mib} MiB: {job:#x}");
        }
    }

    #[test]
    fn a_small_guest_has_what_a_freeze_works_with() {
        for mib in [32, 48, 64, 80, 96] {
            let plan = Plan::new(&[ram(0, mib * MIB)], &[], IMAGE).expect("enough");
            assert_eq!(plan.job.start, 8 * MIB, "{mib} MiB");
            assert_eq!(plan.boot_heap.end, 8 * MIB);
            assert_eq!(plan.boot_heap.end - plan.boot_heap.start, HEAP_MIN);
        }
    }

    #[test]
    fn job_memory_takes_the_largest_run() {
        let map = [ram(0, 64 * MIB), ram(4096 * MIB, 1024 * MIB)];
        let plan = Plan::new(&map, &[], IMAGE).expect("plenty");
        assert_eq!(plan.job, 4096 * MIB..5120 * MIB);
        assert!(plan.boot_heap.end <= 64 * MIB);
    }

    #[test]
    fn too_little_memory_names_the_part() {
        for (mib, lacking) in [(2, "boot memory"), (9, "job memory")] {
            let error = Plan::new(&[ram(0, mib * MIB)], &[], IMAGE).expect_err("too little");
            assert!(matches!(error, MemoryError::TooLittle { part, .. } if part == lacking));
        }
    }

    #[test]
    fn thirty_two_mebibytes_are_enough_as_the_error_says() {
        assert!(Plan::new(&[ram(0, 32 * MIB)], &[], IMAGE).is_ok());
    }

    #[test]
    fn reserved_ranges_win_over_ram() {
        let map = [
            ram(0, 64 * MIB),
            other(32 * MIB - 1, MIB),
            ram(16 * MIB, 64 * MIB),
        ];
        let plan = Plan::new(&map, &[], IMAGE).expect("enough");
        assert_eq!(plan.job, 34 * MIB..80 * MIB);
    }

    #[test]
    fn the_hole_is_fixed_unless_something_is_there() {
        let hole = |map: &[MemoryEntry]| Plan::new(map, &[], IMAGE).expect("enough").hole;
        assert_eq!(hole(&[ram(0, 64 * MIB)]), 0xf000_0000..0xf010_0000);
        let taken = other(0xf000_0000, 0x1001);
        assert_eq!(hole(&[ram(0, 64 * MIB), taken]), 0xf010_0000..0xf020_0000);
        let everywhere = [ram(0, 0xfee0_0000)];
        let plan = Plan::new(&everywhere, &[], IMAGE).expect("enough");
        assert_eq!(plan.hole, 0x21_9000..0x31_9000);
        assert_eq!(plan.frames.start, plan.hole.end);
    }

    proptest! {
        /// Whatever the map: no part overlaps another, the image, a module or
        /// anything that is not RAM.
        #[test]
        fn parts_never_overlap(
            entries in prop::collection::vec((0u64..200, 1u64..150, any::<bool>()), 1..12),
            module in (0u64..200, 0u64..20),
        ) {
            let entry = |&(start, size, is_ram): &(u64, u64, bool)| {
                let (start, size) = (start * MIB + 77, size * MIB);
                if is_ram { ram(start, size) } else { other(start, size) }
            };
            let entries: Vec<_> = entries.iter().map(entry).collect();
            let module = Module { start: module.0 * MIB, size: module.1 * MIB };
            if let Ok(plan) = Plan::new(&entries, &[module], IMAGE) {
                let mut taken = RangeSet::<64>::new();
                taken.insert(IMAGE).expect("room");
                taken.insert(module.start..module.start + module.size).expect("room");
                for e in entries.iter().filter(|e| e.kind != MemoryKind::Ram) {
                    taken.insert(e.start..e.start + e.size).expect("room");
                }
                for part in [plan.frames, plan.boot_heap, plan.hole, plan.job.clone()] {
                    prop_assert!(!taken.overlaps(&part));
                    taken.insert(part).expect("room");
                }
                prop_assert!(plan.job.start % LARGE_PAGE == 0 && plan.job.end % LARGE_PAGE == 0);
            }
        }
    }
}
