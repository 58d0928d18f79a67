//! Job memory of simulated machines: arenas at fixed addresses.
//!
//! As in the kernel, what a job allocates lies in the arena of its machine, and
//! everything else elsewhere. Each thread runs one machine at a time, so which
//! arena is meant is the thread's business.
#![expect(
    unsafe_code,
    reason = "an allocator, and memory that outlives its machine"
)]

use firn_block::PAGE;
use firn_block::shm::Region;
use firn_kernel::mm::{AdoptError, Memories, Memory};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Pages of each arena.
pub const PAGES: usize = 96;
const BYTES: usize = PAGES * PAGE;
/// As many machines may run at the same time, each on its own thread.
const MOST: usize = 64;

static ARENAS: [Memories; MOST] = [const { Memories::new() }; MOST];
/// Where the arenas lie, one behind the other; 0 before the first was claimed.
static BASE: AtomicUsize = AtomicUsize::new(0);
static IDLE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

thread_local! {
    /// The arena that allocations go to, from 1 on; 0 for none.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// The allocator of programs that simulate machines.
pub struct SimAlloc;

fn running() -> Option<&'static Memories> {
    let number = RUNNING.try_with(Cell::get).unwrap_or(0);
    number.checked_sub(1).and_then(|index| ARENAS.get(index))
}

fn owner(block: *mut u8) -> Option<&'static Memories> {
    let offset = block.addr().checked_sub(BASE.load(Ordering::Relaxed))?;
    ARENAS.get(offset / BYTES)
}

// SAFETY: each block comes from exactly one of the arenas or the system, and
// goes back there by its address; the arenas lie apart from anything else.
unsafe impl GlobalAlloc for SimAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match running() {
            // SAFETY: passed through.
            Some(arena) => unsafe { arena.alloc(layout) },
            // SAFETY: passed through.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match owner(block) {
            // SAFETY: the block lies in this arena.
            Some(arena) => unsafe { arena.dealloc(block, layout) },
            // SAFETY: the block lies in none, so it is the system's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match owner(block) {
            // SAFETY: the block lies in this arena.
            Some(arena) => unsafe { arena.realloc(block, layout, new_size) },
            // SAFETY: the block lies in none, so it is the system's.
            None => unsafe { System.realloc(block, layout, new_size) },
        }
    }
}

/// One machine's job memory, for as long as this lives.
pub struct Arena {
    index: usize,
}

impl Arena {
    /// An arena that nobody else uses, empty.
    ///
    /// # Panics
    /// When too many machines run at once.
    #[must_use]
    pub fn claim() -> Self {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if BASE.load(Ordering::Relaxed) == 0 {
            reserve();
            *idle = (0..MOST).rev().collect();
        }
        let Some(index) = idle.pop() else {
            panic!("more than {MOST} machines at once");
        };
        let arena = Self { index };
        arena.empty();
        // Whoever allocates through this arena means its job memory.
        std::mem::forget(ARENAS[index].enter(Memory::Job));
        arena
    }

    fn start(&self) -> usize {
        BASE.load(Ordering::Relaxed) + self.index * BYTES
    }

    fn memories(&self) -> &'static Memories {
        &ARENAS[self.index]
    }

    /// Forgets everything that is in it. Nobody may use a block of it any more;
    /// what is left of the machine that did is never looked at again.
    pub fn empty(&self) {
        let start = self.start();
        // SAFETY: the range is this arena's alone until it is dropped, and by
        // the rule above nobody holds a block of it.
        unsafe { self.memories().give(Memory::Job, start..start + BYTES) };
    }

    /// Allocations of this thread go here until the guard is dropped.
    pub fn enter(&self) -> Inside {
        Inside {
            before: RUNNING.replace(self.index + 1),
        }
    }

    /// Makes `root` what a restored machine begins with.
    pub fn set_root<T: 'static>(&self, root: &'static T) {
        self.memories().set_root(Memory::Job, root);
    }

    /// Takes what was loaded into the arena. `T` is what
    /// [`Arena::set_root`] was given.
    ///
    /// # Errors
    /// What is wrong with the head page.
    pub fn adopt<T: 'static>(&self) -> Result<&'static T, AdoptError> {
        // SAFETY: only verified images of this very process are loaded here,
        // their root is a leaked `T`, and the machine that used the arena
        // before is gone.
        unsafe { self.memories().adopt(Memory::Job) }
    }

    /// All of it, as the image code sees it.
    #[must_use]
    pub fn region(&self) -> Region {
        region(self.start(), PAGES)
    }

    /// Pages that nobody uses, as numbers from the arena's start on.
    #[must_use]
    pub fn free_pages(&self) -> Vec<Range<usize>> {
        let mut free = Vec::with_capacity(PAGES);
        self.memories().free_pages(Memory::Job, &mut free);
        let page = |addr: usize| (addr - self.start()) / PAGE;
        free.iter()
            .map(|range| page(range.start)..page(range.end))
            .collect()
    }

    /// Whole pages of this arena; `None` when it is full.
    #[must_use]
    pub fn alloc_pages(&self, count: usize) -> Option<Region> {
        let layout = Layout::from_size_align(count.checked_mul(PAGE)?, PAGE).ok()?;
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the layout has a size.
        let block = unsafe { self.memories().alloc(layout) };
        (!block.is_null()).then(|| region(block.expose_provenance(), count))
    }

    /// Gives such pages back.
    pub fn free(&self, pages: &Region) {
        let Ok(layout) = Layout::from_size_align(pages.len(), PAGE) else {
            return;
        };
        let block = std::ptr::with_exposed_provenance_mut(pages.addr());
        // SAFETY: the block is one of `alloc_pages`, which its owner gives up.
        unsafe { self.memories().dealloc(block, layout) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.index);
    }
}

fn reserve() {
    let Ok(layout) = Layout::from_size_align(MOST * BYTES, PAGE) else {
        unreachable!("a page is a power of two");
    };
    // SAFETY: the layout has a size. The memory is never freed.
    let base = unsafe { System.alloc_zeroed(layout) };
    assert!(!base.is_null(), "no memory for arenas");
    BASE.store(base.expose_provenance(), Ordering::Relaxed);
}

fn region(start: usize, pages: usize) -> Region {
    let base = NonNull::new(std::ptr::with_exposed_provenance_mut(start));
    let Some(base) = base else {
        panic!("an arena at address 0");
    };
    // SAFETY: arenas live as long as the process; while a region of one is in
    // use, the machine does not touch the same bytes in another way.
    unsafe { Region::new(base, pages * PAGE) }
}

/// While it lives, allocations of this thread go to an arena.
#[must_use = "allocations go elsewhere again when this is dropped"]
pub struct Inside {
    before: usize,
}

impl Inside {
    /// Whether allocations of this thread go to an arena.
    #[must_use]
    pub fn is_any() -> bool {
        RUNNING.get() != 0
    }

    /// Lets allocations of this thread go to no arena.
    pub fn leave() -> Self {
        Self {
            before: RUNNING.replace(0),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        RUNNING.set(self.before);
    }
}
