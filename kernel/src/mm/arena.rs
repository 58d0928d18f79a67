//! The two memories as heaps, and the allocator that chooses between them.
//!
//! Allocation goes by who runs: inside a job's poll, job memory; elsewhere,
//! boot memory ([`Memories::enter`]). Freeing goes by address, and growing
//! stays where the block is. Each arena's own state lies in its head page, so
//! that job memory is complete in itself: whoever has its pages has its heap.

use core::alloc::{GlobalAlloc, Layout};
use core::any::TypeId;
use core::fmt;
use core::hash::{Hash, Hasher};
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
pub(super) struct Head {
    /// [`MAGIC`], so that memory that was loaded is known to be an arena.
    magic: u64,
    pub(super) heap: Heap,
    counts: Counts,
    /// The address of what the arena's user wants to find again, and a number
    /// that its type has in this build.
    root: (usize, u64),
}

const _: () = assert!(size_of::<Head>() == PAGE as usize);

/// Begins every head page; the last digits count its layouts.
const MAGIC: u64 = u64::from_le_bytes(*b"firnjob1");

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
pub(super) struct Arena {
    memory: Range<usize>,
    /// A pointer, not a reference: between two calls the arena is plain memory
    /// that a freeze reads and a restore writes.
    head: Option<NonNull<Head>>,
}

// SAFETY: an arena is memory that was given for ever; it is reached through
// the lock around this only, from whichever CPU has it.
unsafe impl Send for Arena {}

impl Arena {
    const NONE: Self = Self {
        memory: 0..0,
        head: None,
    };

    pub(super) const fn head(&mut self) -> Option<&mut Head> {
        match self.head {
            // SAFETY: `give` or `adopt` made the head page, in memory that is
            // the arena's for ever, and the borrow of `self` makes this the
            // only reference to it.
            Some(mut head) => Some(unsafe { head.as_mut() }),
            None => None,
        }
    }
}

/// Why memory that was loaded is not taken as an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// The head page is not one of ours.
    NoHead,
    /// The heap does not begin behind the head page, or does not end inside the
    /// memory. Addresses.
    Bounds {
        /// Where the heap says that it begins.
        bottom: usize,
        /// Where it says that it ends.
        top: usize,
    },
    /// More bytes are said to be in use than the heap has.
    Used(usize),
    /// The root lies outside the heap, is misaligned or of another type.
    Root(usize),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHead => f.write_str("the head page is not one of this build's"),
            Self::Bounds { bottom, top } => {
                write!(
                    f,
                    "the heap at {bottom:#x}-{top:#x} does not fit this memory"
                )
            }
            Self::Used(used) => write!(f, "the heap claims {used} bytes in use, more than it has"),
            Self::Root(root) => write!(f, "there is no root at {root:#x}"),
        }
    }
}

impl core::error::Error for AdoptError {}

/// Both memories; the kernel has one of these as its global allocator.
pub struct Memories {
    pub(super) arenas: [Mutex<Arena>; 2],
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
    /// it. Given again, everything in it is forgotten.
    ///
    /// # Safety
    /// `memory` is mapped, writable, page-aligned, at least two pages, used by
    /// nobody else, and stays so for ever. An arena that had memory gets the
    /// same again, and nobody uses a block of it any more.
    pub unsafe fn give(&self, which: Memory, memory: Range<usize>) {
        let mut arena = self.arenas[which as usize].lock();
        let head = ptr::with_exposed_provenance_mut::<Head>(memory.start);
        let heap = ptr::with_exposed_provenance_mut::<u8>(memory.start + PAGE as usize);
        let size = memory.len() - PAGE as usize;
        // SAFETY: the caller gives us this memory for ever; the head page and
        // the heap behind it are apart.
        unsafe {
            head.write(Head {
                magic: MAGIC,
                heap: Heap::new(heap, size),
                counts: Counts::default(),
                root: (0, 0),
            });
        }
        arena.head = NonNull::new(head);
        arena.memory = memory;
    }

    /// Takes what now lies in the memory of arena `which` as its heap: another
    /// boot's arena of the same build and the same address, whose memory was no
    /// larger ([`Memories::grow`] adds the rest). Returns the root.
    ///
    /// # Errors
    /// [`AdoptError`]; the arena is then unusable until it is given anew.
    ///
    /// # Safety
    /// The memory holds, byte for byte, what such an arena held while nobody
    /// ran in it, apart from its [`Memories::free_pages`]; nobody uses a block
    /// of the former contents any more.
    pub unsafe fn adopt<T: 'static>(&self, which: Memory) -> Result<&'static T, AdoptError> {
        let mut arena = self.arenas[which as usize].lock();
        let memory = arena.memory.clone();
        let head = arena.head().ok_or(AdoptError::NoHead)?;
        if head.magic != MAGIC {
            return Err(AdoptError::NoHead);
        }
        let (bottom, top) = (head.heap.bottom().addr(), head.heap.top().addr());
        if bottom != memory.start + PAGE as usize || top <= bottom || top > memory.end {
            return Err(AdoptError::Bounds { bottom, top });
        }
        if head.heap.used() > top - bottom {
            return Err(AdoptError::Used(head.heap.used()));
        }
        let (root, key) = head.root;
        let last = top.saturating_sub(size_of::<T>());
        let inside = (bottom..=last).contains(&root) && root.is_multiple_of(align_of::<T>());
        if !inside || key != type_key::<T>() {
            return Err(AdoptError::Root(root));
        }
        // SAFETY: inside the heap and aligned; `set_root` noted a `T` there in
        // the boot whose memory this is, as the caller vouches.
        Ok(unsafe { &*ptr::with_exposed_provenance(root) })
    }

    /// Adds to the heap of arena `which` what it does not have of its memory:
    /// the machine that froze it had less.
    pub fn grow(&self, which: Memory) {
        let mut arena = self.arenas[which as usize].lock();
        let end = arena.memory.end;
        let Some(head) = arena.head() else { return };
        let more = end.saturating_sub(head.heap.top().addr());
        if more > 0 {
            // SAFETY: the memory behind the heap is this arena's up to its end.
            unsafe { head.heap.extend(more) };
        }
    }

    /// Where head page and heap of arena `which` end; its memory may go on.
    pub fn top(&self, which: Memory) -> usize {
        let mut arena = self.arenas[which as usize].lock();
        arena.head().map_or(0, |head| head.heap.top().addr())
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
    pub fn set_root<T: 'static>(&self, which: Memory, root: &'static T) {
        if let Some(head) = self.arenas[which as usize].lock().head() {
            head.root = (ptr::from_ref(root).expose_provenance(), type_key::<T>());
        }
    }

    /// What arena `which` did and holds.
    pub fn counts(&self, which: Memory) -> Counts {
        let mut arena = self.arenas[which as usize].lock();
        arena.head().map_or(Counts::default(), |head| Counts {
            used: head.heap.used(),
            size: head.heap.size(),
            ..head.counts
        })
    }

    /// The arena that owns `block`, if one does.
    pub(super) fn owner(&self, block: *mut u8) -> Option<Memory> {
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
            .head()
            .map_or(ptr::null_mut(), |head| head.allocate(layout))
    }
}

/// A number for a type, the same in every run of one build.
fn type_key<T: 'static>() -> u64 {
    /// The type's own hash, as it is.
    struct Key(u64);
    impl Hasher for Key {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
    }
    let mut key = Key(0);
    TypeId::of::<T>().hash(&mut key);
    key.finish()
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
        if let Some(head) = self.arenas[owner as usize].lock().head() {
            // SAFETY: the caller got `block` from `alloc` with this layout, and
            // it lies in this arena.
            unsafe {
                if owner == Memory::Job {
                    // What nobody uses any more is in no image.
                    block.write_bytes(0, layout.size());
                }
                head.heap.deallocate(at, layout);
            }
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
mod tests;
