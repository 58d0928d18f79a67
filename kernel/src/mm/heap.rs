//! The kernel's allocator: the two memories, and frames where the heap of boot
//! memory is full.
//!
//! How boot memory is best divided into heap and frames depends on what the
//! machine does: a freeze wants a compressor when the rings of the disks are
//! gone. So the heap has whole frames of the drivers when it has no room itself.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use spin::Mutex;

use super::{Counts, Frames, Memories, Memory, PAGE};

/// Both memories and the frames; the kernel has one as its global allocator.
pub struct Allocator {
    /// The two heaps.
    pub memories: Memories,
    /// Frames of boot memory.
    pub frames: Mutex<Frames>,
    /// Where the frame of number zero is mapped.
    window: u64,
}

impl Allocator {
    /// Without any memory. What [`Allocator::frames`] is given is mapped for
    /// ever from `window` on, in the order of physical addresses.
    pub const fn new(window: u64) -> Self {
        Self {
            memories: Memories::new(),
            frames: Mutex::new(Frames::empty()),
            window,
        }
    }

    /// Whole frames for a block of boot memory; null if there are none.
    fn spill(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE as usize {
            return ptr::null_mut();
        }
        let run = self.frames.lock().allocate(frames_of(layout));
        run.map_or(ptr::null_mut(), |start| {
            ptr::with_exposed_provenance_mut((self.window + start) as usize)
        })
    }

    /// A block of boot memory, whoever runs.
    fn allocate_boot(&self, layout: Layout) -> *mut u8 {
        let _boot = self.memories.enter(Memory::Boot);
        // SAFETY: as the caller's.
        unsafe { self.alloc(layout) }
    }
}

/// What a person should know when there was no room for a block that could not
/// be done without: the machine is about to go down.
pub struct OutOfMemory {
    /// The memory that the block was for.
    pub which: Memory,
    /// That memory.
    pub counts: Counts,
    /// RAM that the monitor gave, in bytes.
    pub usable: u64,
}

impl OutOfMemory {
    /// Whether that is what a panic's message says: the words are those of
    /// Rust's `alloc`.
    pub fn is_told_by(message: &impl fmt::Display) -> bool {
        let mut rest = Prefix("memory allocation of ");
        // It ends early, which is no error here.
        let _ = write!(rest, "{message}");
        rest.0.is_empty()
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, hint) = match self.which {
            Memory::Job => ("job memory", "or let jobs hold less at a time"),
            Memory::Boot => ("boot memory", "or fewer disks"),
        };
        write!(
            f,
            "{name} is full: {} of {} KiB used, in a guest of {} MiB; give the guest more memory, \
             {hint}",
            self.counts.used >> 10,
            self.counts.size >> 10,
            self.usable >> 20
        )
    }
}

/// Text that is still expected; what is written is compared with it.
struct Prefix(&'static str);

impl fmt::Write for Prefix {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let common = text.len().min(self.0.len());
        match self.0.as_bytes().starts_with(&text.as_bytes()[..common]) {
            true => self.0 = self.0.get(common..).ok_or(fmt::Error)?,
            false => return Err(fmt::Error),
        }
        Ok(())
    }
}

const fn frames_of(layout: Layout) -> u64 {
    (layout.size() as u64).div_ceil(PAGE)
}

// SAFETY: a block is of a heap or of the frames, which give each byte to one
// block at a time, and goes back by its address to where it came from.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        let block = unsafe { self.memories.alloc(layout) };
        if block.is_null() && self.memories.running() == Memory::Boot {
            return self.spill(layout);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.memories.owner(block).is_some() {
            // SAFETY: it came from there, with this layout.
            return unsafe { self.memories.dealloc(block, layout) };
        }
        let start = (block.addr() as u64).wrapping_sub(self.window);
        // What is not ours is left alone: leaking it is the only safe answer.
        let _ = self.frames.lock().free(start, frames_of(layout));
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let owner = self.memories.owner(block);
        if owner.is_some() {
            // SAFETY: it came from there, with this layout.
            let new = unsafe { self.memories.realloc(block, layout, new_size) };
            if !new.is_null() || owner == Some(Memory::Job) {
                return new;
            }
        }
        let Ok(new_layout) = Layout::from_size_align(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        let new = self.allocate_boot(new_layout);
        if let Some(to) = NonNull::new(new) {
            // SAFETY: both blocks are at least this long and, being allocated at
            // the same time, apart; then `block` is freed once.
            unsafe {
                to.copy_from_nonoverlapping(
                    NonNull::new_unchecked(block),
                    layout.size().min(new_size),
                );
                self.dealloc(block, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;

    use super::*;

    const BYTES: usize = 16 * PAGE as usize;

    /// Sixteen pages for the heap of boot memory, for job memory, and for the
    /// frames each, leaked.
    fn allocator() -> &'static Allocator {
        #[repr(align(4096))]
        struct Pages {
            _bytes: [u8; BYTES],
        }
        let pages = || {
            let pages = Box::into_raw(Box::new(Pages { _bytes: [0; BYTES] }));
            let start = pages.expose_provenance();
            start..start + BYTES
        };
        let allocator = Box::leak(Box::new(Allocator::new(0)));
        for which in [Memory::Boot, Memory::Job] {
            // SAFETY: a fresh, leaked, page-aligned allocation.
            unsafe { allocator.memories.give(which, pages()) };
        }
        let frames = pages();
        *allocator.frames.lock() = Frames::new(frames.start as u64..frames.end as u64);
        allocator
    }

    fn layout(pages: usize) -> Layout {
        Layout::from_size_align(pages * PAGE as usize - 100, 16).expect("a valid layout")
    }

    fn free(allocator: &Allocator) -> u64 {
        allocator.frames.lock().free_frames()
    }

    #[test]
    fn what_the_heap_has_no_room_for_is_in_frames_and_comes_back() {
        let allocator = allocator();
        // SAFETY: blocks are used within their layouts and freed once.
        unsafe {
            let first = allocator.alloc(layout(12));
            assert_eq!((first.is_null(), free(allocator)), (false, 16));
            let second = allocator.alloc(layout(12));
            assert_eq!((second.is_null(), free(allocator)), (false, 4));
            second.write_bytes(7, layout(12).size());
            assert!(allocator.alloc(layout(12)).is_null(), "nothing is left");
            allocator.dealloc(second, layout(12));
            assert_eq!(free(allocator), 16);
            allocator.dealloc(first, layout(12));
            assert_eq!(allocator.memories.counts(Memory::Boot).used, 0);
        }
    }

    #[test]
    fn growing_moves_between_heap_and_frames_and_keeps_the_bytes() {
        let allocator = allocator();
        // SAFETY: as above.
        unsafe {
            let small = allocator.alloc(layout(8));
            small.write_bytes(7, layout(8).size());
            // Also while a job runs: the block stays in its memory.
            let _job = allocator.memories.enter(Memory::Job);
            let large = allocator.realloc(small, layout(8), layout(14).size());
            assert_eq!(free(allocator), 2);
            assert_eq!(allocator.memories.counts(Memory::Boot).used, 0);
            let again = allocator.realloc(large, layout(14), layout(6).size());
            assert_eq!(free(allocator), 16, "back in the heap");
            assert!((0..layout(6).size()).all(|at| *again.add(at) == 7));
            assert_eq!(allocator.memories.counts(Memory::Job).allocations, 0);
        }
    }

    #[test]
    fn a_full_memory_is_told_with_its_size_and_the_remedy() {
        let said = |bytes| std::format!("memory allocation of {bytes} bytes failed");
        assert!(OutOfMemory::is_told_by(&said(7)));
        for other in ["", "memory allocation", "no memory allocation of 7 bytes"] {
            assert!(!OutOfMemory::is_told_by(&other), "{other}");
        }
        let counts = Counts {
            used: 50 << 20,
            size: 56 << 20,
            ..Counts::default()
        };
        let full = OutOfMemory {
            which: Memory::Job,
            counts,
            usable: 64 << 20,
        };
        assert_eq!(
            std::format!("{full}"),
            "job memory is full: 51200 of 57344 KiB used, in a guest of 64 MiB; give the guest \
             more memory, or let jobs hold less at a time"
        );
    }

    #[test]
    fn jobs_get_no_frames() {
        let allocator = allocator();
        let _job = allocator.memories.enter(Memory::Job);
        // SAFETY: the layouts are not empty.
        unsafe {
            assert!(!allocator.alloc(layout(12)).is_null());
            assert!(allocator.alloc(layout(12)).is_null());
        }
        assert_eq!(free(allocator), 16);
    }
}
