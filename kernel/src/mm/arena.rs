//! The two memories as heaps, and the allocator that chooses between them.
//!
//! Allocation goes by who runs: inside a job's poll, job memory; elsewhere,
//! boot memory ([`Memories::enter`]). Freeing goes by address, and growing
//! stays where the block is. Each arena's own state lies in its head page, so
//! that job memory is complete in itself: whoever has its pages has its heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, Ordering};

use linked_list_allocator::Heap;
use spin::Mutex;

use super::PAGE;

/// Which of the two memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The kernel's own: made anew by every boot.
    Boot = 0,
    /// What applications see, and what a freeze writes.
    Job = 1,
}

/// What an arena did so far, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Successful allocations, including growing.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Allocations for which there was no room.
    pub failures: u64,
    /// Bytes in use, with the allocator's rounding.
    pub used: usize,
    /// Bytes of the heap.
    pub size: usize,
}

/// The head page of an arena; the heap is the rest of its memory.
#[repr(C, align(4096))]
struct Head {
    heap: Heap,
    counts: Counts,
    /// The address of what the arena's user wants to find again.
    root: usize,
}

const _: () = assert!(size_of::<Head>() == PAGE as usize);

impl Head {
    fn allocate(&mut self, layout: Layout) -> *mut u8 {
        match self.heap.allocate_first_fit(layout) {
            Ok(block) => {
                self.counts.allocations += 1;
                block.as_ptr()
            }
            Err(()) => {
                self.counts.failures += 1;
                ptr::null_mut()
            }
        }
    }
}

/// One arena: where it is, and its head page once it has been made.
struct Arena {
    memory: Range<usize>,
    head: Option<&'static mut Head>,
}

impl Arena {
    const NONE: Self = Self {
        memory: 0..0,
        head: None,
    };
}

/// Both memories; the kernel has one of these as its global allocator.
pub struct Memories {
    arenas: [Mutex<Arena>; 2],
    running: AtomicU8,
}

impl Memories {
    /// Without any memory: every allocation fails.
    pub const fn new() -> Self {
        Self {
            arenas: [Mutex::new(Arena::NONE), Mutex::new(Arena::NONE)],
            running: AtomicU8::new(Memory::Boot as u8),
        }
    }

    /// Gives `memory` to arena `which`: a head page, and an empty heap behind
    /// it. The first call for each arena counts.
    ///
    /// # Safety
    /// `memory` is mapped, writable, page-aligned, at least two pages, used by
    /// nobody else, and stays so for ever.
    pub unsafe fn give(&self, which: Memory, memory: Range<usize>) {
        let mut arena = self.arenas[which as usize].lock();
        if arena.head.is_some() {
            return;
        }
        let head = ptr::with_exposed_provenance_mut::<Head>(memory.start);
        let heap = ptr::with_exposed_provenance_mut::<u8>(memory.start + PAGE as usize);
        let size = memory.len() - PAGE as usize;
        // SAFETY: the caller gives us this memory for ever; the head page and
        // the heap behind it are apart.
        arena.head = Some(unsafe {
            head.write(Head {
                heap: Heap::new(heap, size),
                counts: Counts::default(),
                root: 0,
            });
            &mut *head
        });
        arena.memory = memory;
    }

    /// Makes `which` the memory of all allocations until the guard is dropped.
    pub fn enter(&self, which: Memory) -> Running<'_> {
        // Not a swap: one CPU does not need its locked instruction.
        let before = self.running.load(Ordering::Relaxed);
        self.running.store(which as u8, Ordering::Relaxed);
        Running {
            memories: self,
            before,
        }
    }

    /// The memory that allocations go to now.
    pub fn running(&self) -> Memory {
        match self.running.load(Ordering::Relaxed) {
            0 => Memory::Boot,
            _ => Memory::Job,
        }
    }

    /// Notes in the head page of arena `which` where its user begins.
    pub fn set_root(&self, which: Memory, root: usize) {
        if let Some(head) = &mut self.arenas[which as usize].lock().head {
            head.root = root;
        }
    }

    /// What arena `which` did and holds.
    pub fn counts(&self, which: Memory) -> Counts {
        let arena = self.arenas[which as usize].lock();
        arena
            .head
            .as_ref()
            .map_or(Counts::default(), |head| Counts {
                used: head.heap.used(),
                size: head.heap.size(),
                ..head.counts
            })
    }

    /// The arena that owns `block`, if one does.
    fn owner(&self, block: *mut u8) -> Option<Memory> {
        let owns = |m: &Memory| {
            self.arenas[*m as usize]
                .lock()
                .memory
                .contains(&block.addr())
        };
        [Memory::Boot, Memory::Job].into_iter().find(owns)
    }

    fn allocate(&self, which: Memory, layout: Layout) -> *mut u8 {
        let mut arena = self.arenas[which as usize].lock();
        arena
            .head
            .as_mut()
            .map_or(ptr::null_mut(), |head| head.allocate(layout))
    }
}

impl Default for Memories {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks come from the heaps, which give each byte to one block at a
// time; layouts are passed through; locks are held only inside these calls and
// nothing in them allocates or panics, so they cannot nest.
unsafe impl GlobalAlloc for Memories {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocate(self.running(), layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (Some(owner), Some(at)) = (self.owner(block), NonNull::new(block)) else {
            return; // not ours: leaking it is the only safe answer
        };
        if let Some(head) = &mut self.arenas[owner as usize].lock().head {
            // SAFETY: the caller got `block` from `alloc` with this layout, and
            // it lies in this arena.
            unsafe { head.heap.deallocate(at, layout) };
            head.counts.frees += 1;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        let Some(owner) = self.owner(block) else {
            return ptr::null_mut();
        };
        let new = self.allocate(owner, new_layout);
        if !new.is_null() {
            // SAFETY: both blocks are at least this long and, being allocated
            // at the same time, apart; then `block` is freed once.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

/// While it lives, allocations go to the memory it was made for.
#[must_use = "allocations go back to the former memory when this is dropped"]
pub struct Running<'a> {
    memories: &'a Memories,
    before: u8,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.memories.running.store(self.before, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    const PAGES: usize = 8;

    /// Two arenas of [`PAGES`] pages each, leaked.
    fn memories() -> (&'static Memories, [Range<usize>; 2]) {
        #[repr(align(4096))]
        struct Pages {
            _bytes: [u8; PAGES * PAGE as usize],
        }
        let memories = Box::leak(Box::new(Memories::new()));
        let ranges = [Memory::Boot, Memory::Job].map(|which| {
            let pages: *mut Pages = Box::into_raw(Box::new(Pages {
                _bytes: [0; PAGES * PAGE as usize],
            }));
            let start = pages.expose_provenance();
            let range = start..start + size_of::<Pages>();
            // SAFETY: a fresh, leaked, page-aligned allocation.
            unsafe { memories.give(which, range.clone()) };
            range
        });
        (memories, ranges)
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).expect("a valid layout")
    }

    fn alloc(memories: &Memories, size: usize) -> *mut u8 {
        // SAFETY: the layout is not empty.
        unsafe { memories.alloc(layout(size)) }
    }

    #[test]
    fn without_memory_allocation_fails() {
        assert!(alloc(&Memories::new(), 16).is_null());
    }

    #[test]
    fn allocation_goes_by_who_runs() {
        let (memories, [boot, job]) = memories();
        assert!(boot.contains(&alloc(memories, 100).addr()));
        {
            let _job = memories.enter(Memory::Job);
            assert!(job.contains(&alloc(memories, 100).addr()));
            {
                let _boot = memories.enter(Memory::Boot);
                assert!(boot.contains(&alloc(memories, 100).addr()));
            }
            assert!(job.contains(&alloc(memories, 100).addr()));
        }
        assert!(boot.contains(&alloc(memories, 100).addr()));
        assert_eq!(memories.counts(Memory::Boot).allocations, 3);
        assert_eq!(memories.counts(Memory::Job).allocations, 2);
    }

    #[test]
    fn freeing_goes_by_address() {
        let (memories, _) = memories();
        let block = alloc(memories, 100);
        let _job = memories.enter(Memory::Job);
        // SAFETY: allocated above with this layout.
        unsafe { memories.dealloc(block, layout(100)) };
        assert_eq!(memories.counts(Memory::Boot).frees, 1);
        assert_eq!(memories.counts(Memory::Boot).used, 0);
        assert_eq!(memories.counts(Memory::Job).frees, 0);
    }

    #[test]
    fn growing_stays_in_its_memory_and_keeps_the_bytes() {
        let (memories, [boot, _]) = memories();
        let block = alloc(memories, 16);
        let _job = memories.enter(Memory::Job);
        // SAFETY: the block is 16 bytes long, allocated with this layout.
        let grown = unsafe {
            block.write_bytes(0x5a, 16);
            memories.realloc(block, layout(16), 4000)
        };
        assert!(boot.contains(&grown.addr()));
        // SAFETY: the first 16 of 4000 bytes were written before growing.
        let kept = unsafe { core::slice::from_raw_parts(grown, 16) };
        assert_eq!(kept, [0x5a; 16]);
        assert_eq!(memories.counts(Memory::Job).allocations, 0);
    }

    #[test]
    fn exhaustion_is_null_and_counted_and_passes() {
        let (memories, _) = memories();
        let mut blocks = Vec::new();
        while let Some(block) = NonNull::new(alloc(memories, 1000)) {
            blocks.push(block);
        }
        assert!(blocks.len() >= (PAGES - 1) * PAGE as usize / 1100);
        assert_eq!(memories.counts(Memory::Boot).failures, 1);
        for block in blocks {
            // SAFETY: allocated above with this layout, freed once.
            unsafe { memories.dealloc(block.as_ptr(), layout(1000)) };
        }
        assert!(!alloc(memories, (PAGES - 1) * PAGE as usize - 64).is_null());
    }
}
