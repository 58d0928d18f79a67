//! Memory on the bare machine: bringing it up, and the kernel's own instances.

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ops::Range;
use core::ptr::{self, NonNull};

use firn_block::shm::Region;
use spin::Once;

use super::paging::{self, Part};
use super::{
    AdoptError, Allocator, BOOT_WINDOW, Counts, FrameError, Frames, IMAGE_WINDOW, Memory,
    MemoryError, OutOfMemory, PAGE, Plan, Running, Windows, align_up,
};
use crate::bootinfo::{BootInfo, PhysMemory};

#[global_allocator]
static HEAP: Allocator = Allocator::new(BOOT_WINDOW);
static WINDOWS: Once<Windows> = Once::new();
static PLAN: Once<Plan> = Once::new();

/// What the direct map covers, from zero.
const DIRECT_MAP_END: u64 = 4 << 30;

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
        if addr == 0 || end.is_none_or(|end| end > DIRECT_MAP_END) {
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
    *HEAP.frames.lock() = frames;
    let windows = WINDOWS.call_once(|| Windows::new(plan.job.clone()));
    let boot_heap = direct(&plan.boot_heap);
    let job = windows.job_memory();
    // SAFETY: both ranges were just mapped, and the plan gives each to one use.
    unsafe {
        HEAP.memories.give(Memory::Boot, boot_heap);
        HEAP.memories
            .give(Memory::Job, job.start as usize..job.end as usize);
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

/// The addresses of the image's writable part: statics and stacks, which are
/// boot memory like the heap.
fn statics() -> Range<u64> {
    symbol!(firn_rodata_end)..IMAGE_WINDOW + symbol!(firn_image_end)
}

/// Every part of boot memory: its name and its addresses.
pub fn boot_memory() -> [(&'static str, Range<u64>); 4] {
    let parts = PLAN.get().map_or([const { 0..0 }; 3], |plan| {
        [&plan.boot_heap, &plan.frames, &plan.hole]
            .map(|r| BOOT_WINDOW + r.start..BOOT_WINDOW + r.end)
    });
    let [heap, frames, hole] = parts;
    [
        ("boot heap", heap),
        ("frames of drivers", frames),
        ("hypervisor's pages", hole),
        ("statics and stacks", statics()),
    ]
}

/// A physical range in the direct map.
fn direct(physical: &Range<u64>) -> Range<usize> {
    (BOOT_WINDOW + physical.start) as usize..(BOOT_WINDOW + physical.end) as usize
}

/// `pages` contiguous pages of zeros, in boot memory, to be shared.
///
/// # Errors
/// [`FrameError::Exhausted`].
pub fn allocate_shared(pages: usize) -> Result<Region, FrameError> {
    let start = HEAP.frames.lock().allocate(pages as u64)?;
    let region = direct_region(start, pages);
    region.zero(0, region.len());
    Ok(region)
}

/// Bytes of boot memory that [`allocate_shared`] has left, not all in one run.
pub fn free_bytes() -> u64 {
    HEAP.frames.lock().free_frames() * PAGE
}

/// Frames of boot memory that [`allocate_shared`] has given out.
pub fn used_frames() -> u64 {
    let all = PLAN
        .get()
        .map_or(0, |plan| plan.frames.end - plan.frames.start);
    (all - free_bytes().min(all)) / PAGE
}

/// Takes back a region of [`allocate_shared`] that nobody else can reach.
///
/// # Errors
/// [`FrameError::NotOurs`], [`FrameError::Fragmented`].
pub fn free_shared(region: Region) -> Result<(), FrameError> {
    let start = (region.addr() as u64).wrapping_sub(BOOT_WINDOW);
    HEAP.frames.lock().free(start, region.page_count() as u64)
}

/// The `count` frames from `first` on, which are no RAM of ours: the
/// hypervisor's hole, or pages that the toolstack set up. `None` if they are
/// beyond the direct map or overlap memory that has another use.
pub fn foreign_frames(first: u64, count: usize) -> Option<Region> {
    let start = first.checked_mul(PAGE)?;
    let end = start.checked_add((count as u64).checked_mul(PAGE)?)?;
    let plan = PLAN.get()?;
    let image = symbol!(firn_image_start)..symbol!(firn_image_end);
    let ours = [&plan.frames, &plan.boot_heap, &plan.job, &image];
    let overlaps = |r: &&Range<u64>| r.start < end && start < r.end;
    if end > DIRECT_MAP_END || ours.iter().any(overlaps) {
        return None;
    }
    Some(direct_region(start, count))
}

/// A region of the direct map. Private: callers vouch for the frames.
fn direct_region(start: u64, pages: usize) -> Region {
    let base = NonNull::new((BOOT_WINDOW + start) as *mut u8).unwrap_or(NonNull::dangling());
    // SAFETY: the callers pass frames inside the direct map, which is never
    // unmapped; they are either fresh from the allocator or no memory of ours,
    // so all access is through regions.
    unsafe { Region::new(base, pages * PAGE as usize) }
}

/// The frame number behind `addr`, if it is ours.
pub fn frame_of(addr: usize) -> Option<u64> {
    WINDOWS.get()?.frame(addr as u64)
}

/// Where the hypervisor's own pages go: physical addresses.
pub fn hole() -> Range<u64> {
    PLAN.get().map_or(0..0, |plan| plan.hole.clone())
}

/// Makes `which` the memory of all allocations until the guard is dropped.
pub fn enter(which: Memory) -> Running<'static> {
    HEAP.memories.enter(which)
}

/// The memory that allocations go to now.
pub fn running() -> Memory {
    HEAP.memories.running()
}

/// Notes in the head page of job memory where its contents begin.
pub fn set_job_root<T: 'static>(root: &'static T) {
    HEAP.memories.set_root(Memory::Job, root);
}

/// All of job memory, head page and all: what a freeze reads and a restore
/// fills. Without any page before [`init`].
///
/// For the power code alone: whoever reads or writes it has parked all jobs,
/// and what he writes is an image's, adopted or emptied before any job runs.
pub fn job_memory() -> Region {
    let bytes = WINDOWS.get().map_or(0, |windows| {
        let job = windows.job_memory();
        (job.end - job.start) as usize
    });
    let start = super::JOB_WINDOW as *mut u8;
    let base = NonNull::new(start).unwrap_or(NonNull::dangling());
    // SAFETY: mapped for ever, in whole pages. Nobody else uses it while the
    // region is used, as said above.
    unsafe { Region::new(base, bytes) }
}

/// The pages of [`job_memory`] that nobody uses, as ranges of page numbers in
/// rising order. Allocates nothing: names as many as `free` has room for.
pub fn free_job_memory(free: &mut Vec<Range<usize>>) {
    HEAP.memories.free_pages(Memory::Job, free);
    let page = |addr: usize| (addr - super::JOB_WINDOW as usize) / PAGE as usize;
    for range in free {
        *range = page(range.start)..page(range.end);
    }
}

/// Takes what was loaded into [`job_memory`] as the heap of the jobs; returns
/// its root. Only for an image of this build that was verified whole.
///
/// # Errors
/// [`AdoptError`]; job memory is to be emptied then.
pub fn adopt_job_memory<T: 'static>() -> Result<&'static T, AdoptError> {
    // SAFETY: job memory lies at the same address in every boot, and the caller
    // has loaded into it what a freeze of this build found there, whole. The
    // former heap's blocks belonged to jobs, of which none was started.
    unsafe { HEAP.memories.adopt(Memory::Job) }
}

/// Lets jobs use what an adopted heap does not cover of job memory.
pub fn grow_job_memory() {
    HEAP.memories.grow(Memory::Job);
}

/// The part of [`job_memory`] that head page and heap cover: all of it, but for
/// a heap that was adopted and not grown.
pub fn job_heap() -> Region {
    let memory = job_memory();
    let bytes = HEAP.memories.top(Memory::Job).saturating_sub(memory.addr());
    memory.pages(0, bytes.min(memory.len()) / PAGE as usize)
}

/// Makes job memory empty, all zeros, whatever is in it: as after a boot.
pub fn empty_job_memory() {
    let memory = job_memory();
    if memory.is_empty() {
        return;
    }
    memory.zero(0, memory.len());
    let start = memory.addr();
    // SAFETY: the same range as in `init`; no job runs.
    unsafe { HEAP.memories.give(Memory::Job, start..start + memory.len()) };
}

/// `count` contiguous pages of job memory, to be registered with a queue.
pub fn allocate_job_pages(count: usize) -> Option<Region> {
    let layout = pages_layout(count)?;
    let _job = enter(Memory::Job);
    // SAFETY: the layout is not empty.
    let base = NonNull::new(unsafe { HEAP.alloc_zeroed(layout) })?;
    // SAFETY: fresh memory, mapped for ever, accessed through regions only
    // until `free_job_pages`.
    Some(unsafe { Region::new(base, layout.size()) })
}

/// Takes back a region of [`allocate_job_pages`] that the host cannot reach.
pub fn free_job_pages(region: Region) {
    let Some(layout) = pages_layout(region.page_count()) else {
        return;
    };
    // SAFETY: the region came from `allocate_job_pages` with this layout (its
    // handle is the proof, and regions of other origin are not of job memory:
    // the allocator ignores what it does not own), and its user gives it up.
    unsafe { HEAP.dealloc(region.addr() as *mut u8, layout) };
}

fn pages_layout(count: usize) -> Option<Layout> {
    let bytes = count
        .checked_mul(PAGE as usize)
        .filter(|&bytes| bytes > 0)?;
    Layout::from_size_align(bytes, PAGE as usize).ok()
}

/// What the heap of `which` did and holds.
pub fn counts(which: Memory) -> Counts {
    HEAP.memories.counts(which)
}

/// How full the memory is that allocations go to now.
pub fn out_of_memory() -> OutOfMemory {
    let which = running();
    OutOfMemory {
        which,
        counts: counts(which),
        usable: PLAN.get().map_or(0, |plan| plan.usable),
    }
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes >> 10;
        write!(
            f,
            "{} KiB usable: {} KiB frames free, {} KiB boot heap, {} KiB job memory",
            kib(self.usable),
            kib(self.free_frames),
            kib(self.boot_heap),
            kib(self.job)
        )
    }
}

/// How memory is divided, for the banner and the `mem` job.
pub fn report() -> Option<Report> {
    let plan = PLAN.get()?;
    let size = |r: &Range<u64>| r.end - r.start;
    Some(Report {
        usable: plan.usable,
        free_frames: free_bytes(),
        boot_heap: size(&plan.boot_heap),
        job: size(&plan.job),
    })
}
