//! Memory: the machine's map, frames, address windows and the two memories.
//!
//! docs/adr/0001-two-memories.md says why there are two and where they lie.
#![expect(
    unsafe_code,
    reason = "page tables, heaps and memory at fixed addresses"
)]

mod arena;
mod frames;
mod free_pages;
mod heap;
mod plan;
mod ranges;
mod window;

#[cfg(firn_bare)]
mod bare;
#[cfg(firn_bare)]
mod paging;

pub use arena::{AdoptError, Counts, Memories, Memory, Running};
pub use frames::{FrameError, Frames};
pub use heap::{Allocator, OutOfMemory};
pub use plan::{MemoryError, Plan};
pub use ranges::{Full, RangeSet};
pub use window::{BOOT_WINDOW, IMAGE_WINDOW, JOB_WINDOW, Windows};

#[cfg(firn_bare)]
pub use bare::{
    BootPhysMemory, Report, adopt_job_memory, allocate_job_pages, allocate_shared, boot_memory,
    counts, empty_job_memory, enter, foreign_frames, frame_of, free_bytes, free_job_memory,
    free_job_pages, free_shared, grow_job_memory, hole, init, job_heap, job_memory, out_of_memory,
    report, running, set_job_root, used_frames,
};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a large page: what the direct map and job memory are mapped by.
pub const LARGE_PAGE: u64 = 2 << 20;

/// `value` rounded up to a multiple of `align`, a power of two; `None` if that
/// is beyond `u64`.
pub(crate) fn align_up(value: u64, align: u64) -> Option<u64> {
    Some(align_down(value.checked_add(align - 1)?, align))
}

/// `value` rounded down to a multiple of `align`, a power of two.
pub(crate) fn align_down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}
