//! Which pages of an arena nobody uses.
//!
//! The heap keeps the list of its holes to itself. So all whole pages in them
//! are allocated, largest runs first, and given back: the heap is then as it
//! was, because neighbouring holes are merged. While they are taken, the runs
//! are chained through their own first words.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use super::{Memories, Memory, PAGE};

const PAGE_BYTES: usize = PAGE as usize;

/// At the start of each run that is taken.
struct Taken {
    next: *mut Taken,
    bytes: usize,
}

impl Memories {
    /// Adds to `free` the address ranges of whole pages of arena `which` that
    /// hold nothing: sorted, not touching each other. It stops where `free`
    /// has no room left (the largest runs come first), so it never allocates.
    ///
    /// Which they are depends on the heap alone: the same heap, adopted by
    /// another boot, has the same ones.
    pub fn free_pages(&self, which: Memory, free: &mut Vec<Range<usize>>) {
        free.clear();
        {
            let mut arena = self.arenas[which as usize].lock();
            let Some(head) = arena.head() else { return };
            let taken = take_all(&mut head.heap);
            // SAFETY: the list of `take_all`, of this very heap.
            unsafe { give_back(&mut head.heap, taken, free) };
        }
        free.sort_unstable_by_key(|range| range.start);
        merge(free);
        // The heap notes each hole at its start, which may be the first page.
        for range in free.iter_mut() {
            range.start += PAGE_BYTES;
        }
        free.retain(|range| !range.is_empty());
    }
}

/// Allocates every whole page that can be had, in runs that halve.
fn take_all(heap: &mut Heap) -> *mut Taken {
    let mut taken = ptr::null_mut();
    let mut bytes = (heap.size() + 1).next_power_of_two() / 2;
    while bytes >= PAGE_BYTES {
        // SAFETY: 4096 is a power of two, and the size far below `isize::MAX`.
        let layout = unsafe { Layout::from_size_align_unchecked(bytes, PAGE_BYTES) };
        while let Ok(run) = heap.allocate_first_fit(layout) {
            let run = run.as_ptr().cast::<Taken>();
            let next = taken;
            // SAFETY: at least a page, page-aligned, and ours alone.
            unsafe { run.write(Taken { next, bytes }) };
            taken = run;
        }
        bytes /= 2;
    }
    taken
}

/// Gives all back, and notes as many as there is room for, largest first.
///
/// # Safety
/// `taken` comes from [`take_all`] of this heap.
unsafe fn give_back(heap: &mut Heap, mut taken: *mut Taken, free: &mut Vec<Range<usize>>) {
    while let Some(run) = NonNull::new(taken) {
        // SAFETY: each run was written by `take_all` and is read once, before
        // it goes back to the heap that it came from.
        unsafe {
            let Taken { next, bytes } = run.read();
            let layout = Layout::from_size_align_unchecked(bytes, PAGE_BYTES);
            run.cast::<[u8; 16]>().write([0; 16]);
            heap.deallocate(run.cast(), layout);
            note(free, run.addr().get()..run.addr().get() + bytes);
            taken = next;
        }
    }
}

/// Notes a run; when there is no room, the smallest must go. Runs come in the
/// order of their sizes, smallest first.
fn note(free: &mut Vec<Range<usize>>, run: Range<usize>) {
    if free.len() == free.capacity() {
        if free.is_empty() {
            return;
        }
        free.remove(0);
    }
    free.push(run);
}

/// Makes one of ranges that touch; they are sorted.
fn merge(ranges: &mut Vec<Range<usize>>) {
    ranges.dedup_by(|next, before| {
        let touch = before.end == next.start;
        if touch {
            before.end = next.end;
        }
        touch
    });
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use core::alloc::GlobalAlloc;

    const PAGES: usize = 64;

    #[repr(align(4096))]
    struct Pages {
        _bytes: [u8; PAGES * PAGE_BYTES],
    }

    fn memories() -> (&'static Memories, Range<usize>) {
        let memories = Box::leak(Box::new(Memories::new()));
        let pages: *mut Pages = Box::into_raw(Box::new(Pages {
            _bytes: [0; PAGES * PAGE_BYTES],
        }));
        let start = pages.expose_provenance();
        let range = start..start + size_of::<Pages>();
        // SAFETY: a fresh, leaked, page-aligned allocation.
        unsafe { memories.give(Memory::Job, range.clone()) };
        (memories, range)
    }

    fn bytes(range: &Range<usize>) -> vec::Vec<u8> {
        let start = ptr::with_exposed_provenance::<u8>(range.start);
        // SAFETY: the leaked pages, and nobody writes now.
        unsafe { core::slice::from_raw_parts(start, range.len()) }.to_vec()
    }

    #[test]
    fn an_empty_heap_is_free_but_for_its_first_page() {
        let (memories, range) = memories();
        let mut free = Vec::with_capacity(16);
        memories.free_pages(Memory::Job, &mut free);
        assert_eq!(free.len(), 1);
        assert_eq!(free[0], range.start + 2 * PAGE_BYTES..range.end);
    }

    #[test]
    fn without_room_the_largest_runs_are_named() {
        let (memories, range) = memories();
        let mut free = Vec::with_capacity(1);
        memories.free_pages(Memory::Job, &mut free);
        assert_eq!(free.len(), 1);
        assert!(free[0].len() >= range.len() / 4, "{free:?}");
        memories.free_pages(Memory::Job, &mut Vec::new());
    }

    proptest! {
        /// After any history, free pages hold no block, all blocks keep their
        /// bytes, looking changes nothing that is kept, and a second look sees
        /// the same.
        #[test]
        fn free_pages_hold_nothing(
            steps in prop::collection::vec((1usize..9000, any::<bool>(), any::<prop::sample::Index>()), 1..80)
        ) {
            let (memories, range) = memories();
            let _job = memories.enter(Memory::Job);
            let mut blocks: vec::Vec<(usize, Layout)> = vec![];
            for (size, free, which) in steps {
                if free && !blocks.is_empty() {
                    let (at, layout) = blocks.swap_remove(which.index(blocks.len()));
                    // SAFETY: allocated below with this layout, freed once.
                    unsafe { memories.dealloc(ptr::with_exposed_provenance_mut(at), layout) };
                    continue;
                }
                let layout = Layout::from_size_align(size, 16).unwrap();
                // SAFETY: the layout is not empty.
                let block = unsafe { memories.alloc(layout) };
                if block.is_null() {
                    continue;
                }
                // SAFETY: fresh memory of that size.
                unsafe { block.write_bytes(0xa5, size) };
                blocks.push((block.expose_provenance(), layout));
            }
            let mut free = vec::Vec::with_capacity(256);
            memories.free_pages(Memory::Job, &mut free);
            for run in &free {
                prop_assert!(range.start <= run.start && run.end <= range.end);
                for (at, layout) in &blocks {
                    prop_assert!(*at >= run.end || at + layout.size() <= run.start);
                }
            }
            let kept = |free: &[Range<usize>]| {
                let mut all = bytes(&range);
                for run in free {
                    all[run.start - range.start..run.end - range.start].fill(0);
                }
                all
            };
            let before = (memories.counts(Memory::Job), kept(&free), free.clone());
            memories.free_pages(Memory::Job, &mut free);
            prop_assert!(before == (memories.counts(Memory::Job), kept(&free), free));
            for (at, layout) in blocks {
                let block = &bytes(&(at..at + layout.size()))[..];
                prop_assert!(block.iter().all(|byte| *byte == 0xa5));
            }
        }
    }
}
