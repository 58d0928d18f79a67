//! Memory on the bare machine: bringing it up, and the kernel's own instances.

use core::ops::Range;
use core::ptr;

use spin::{Mutex, Once};

use super::paging::{self, Part};
use super::{
    BOOT_WINDOW, Counts, FrameError, Frames, IMAGE_WINDOW, Memories, Memory, MemoryError, PAGE,
    Plan, Running, Windows, align_up,
};
use crate::bootinfo::{BootInfo, PhysMemory};

#[global_allocator]
static MEMORIES: Memories = Memories::new();
static FRAMES: Mutex<Frames> = Mutex::new(Frames::empty());
static WINDOWS: Once<Windows> = Once::new();
static PLAN: Once<Plan> = Once::new();

// Symbols of `boot/linker.ld`: only their addresses mean anything.
unsafe extern "C" {
    static firn_image_start: u8; // physical
    static firn_image_end: u8; // physical
    static firn_text_start: u8;
    static firn_text_end: u8;
    static firn_rodata_end: u8;
}

/// The address of a linker symbol.
macro_rules! symbol {
    ($name:ident) => {
        (&raw const $name).addr() as u64
    };
}

/// Physical memory as the boot page tables map it: the first 4 GiB.
pub struct BootPhysMemory;

impl PhysMemory for BootPhysMemory {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let end = addr.checked_add(into.len() as u64);
        if addr == 0 || end.is_none_or(|end| end > 4 << 30) {
            return false;
        }
        let from = (BOOT_WINDOW + addr) as *const u8;
        // SAFETY: the direct map covers the range; `into` is our own memory, so
        // the two are apart or, at worst, the monitor lied and we read our own
        // stack's bytes; reading what is no memory gives ones.
        unsafe { ptr::copy(from, into.as_mut_ptr(), into.len()) };
        true
    }
}

/// Divides memory, switches to the final page tables, and starts both heaps.
/// Call once, before the first allocation.
///
/// # Errors
/// [`MemoryError`].
pub fn init(boot: &BootInfo) -> Result<(), MemoryError> {
    let image = symbol!(firn_image_start)..symbol!(firn_image_end);
    let plan = Plan::new(&boot.memory, &boot.modules, image)?;
    let mut frames = Frames::new(plan.frames.clone());
    paging::switch(&mut frames, &image_parts(), &plan.job)?;
    *FRAMES.lock() = frames;
    let windows = WINDOWS.call_once(|| Windows::new(plan.job.clone()));
    let boot_heap = direct(&plan.boot_heap);
    let job = windows.job_memory();
    // SAFETY: both ranges were just mapped, and the plan gives each to one use.
    unsafe {
        MEMORIES.give(Memory::Boot, boot_heap);
        MEMORIES.give(Memory::Job, job.start as usize..job.end as usize);
    }
    PLAN.call_once(|| plan);
    Ok(())
}

fn image_parts() -> [Part; 3] {
    let (start, text_end) = (symbol!(firn_text_start), symbol!(firn_text_end));
    let rodata_end = symbol!(firn_rodata_end);
    let end = IMAGE_WINDOW + symbol!(firn_image_end);
    let end = align_up(end, PAGE).unwrap_or(end);
    [
        Part {
            range: start..text_end,
            write: false,
            execute: true,
        },
        Part {
            range: text_end..rodata_end,
            write: false,
            execute: false,
        },
        Part {
            range: rodata_end..end,
            write: true,
            execute: false,
        },
    ]
}

/// A physical range in the direct map.
fn direct(physical: &Range<u64>) -> Range<usize> {
    (BOOT_WINDOW + physical.start) as usize..(BOOT_WINDOW + physical.end) as usize
}

/// The physical address behind `addr`, if it is ours.
pub fn physical_address(addr: u64) -> Option<u64> {
    WINDOWS.get()?.physical(addr)
}

/// `count` zeroed, contiguous pages of boot memory.
///
/// # Errors
/// [`FrameError::Exhausted`].
pub fn allocate_pages(count: u64) -> Result<*mut u8, FrameError> {
    let start = FRAMES.lock().allocate(count)?;
    let pages = (BOOT_WINDOW + start) as *mut u8;
    // SAFETY: fresh frames, inside the direct map.
    unsafe { pages.write_bytes(0, (count * PAGE) as usize) };
    Ok(pages)
}

/// Gives pages of [`allocate_pages`] back.
///
/// # Errors
/// [`FrameError::NotOurs`], [`FrameError::Fragmented`].
pub fn free_pages(pages: *mut u8, count: u64) -> Result<(), FrameError> {
    let start = (pages as u64).wrapping_sub(BOOT_WINDOW);
    FRAMES.lock().free(start, count)
}

/// Makes `which` the memory of all allocations until the guard is dropped.
pub fn enter(which: Memory) -> Running<'static> {
    MEMORIES.enter(which)
}

/// What the heap of `which` did and holds.
pub fn counts(which: Memory) -> Counts {
    MEMORIES.counts(which)
}

/// Sizes of this boot's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// RAM that the monitor gave.
    pub usable: u64,
    /// Free frames.
    pub free_frames: u64,
    /// The kernel's own heap.
    pub boot_heap: u64,
    /// Job memory.
    pub job: u64,
}

/// How memory is divided, for the banner and the `mem` job.
pub fn report() -> Option<Report> {
    let plan = PLAN.get()?;
    let size = |r: &Range<u64>| r.end - r.start;
    Some(Report {
        usable: plan.usable,
        free_frames: FRAMES.lock().free_frames() * PAGE,
        boot_heap: size(&plan.boot_heap),
        job: size(&plan.job),
    })
}
