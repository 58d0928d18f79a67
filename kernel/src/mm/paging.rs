//! The kernel's own page tables: the image with real permissions and 4 KiB
//! pages, boot memory through the direct map, job memory in its window.

use core::ops::Range;

use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{Mapper, OffsetPageTable};
use x86_64::structures::paging::{
    FrameAllocator, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame, Size2MiB,
    Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::{BOOT_WINDOW, Frames, IMAGE_WINDOW, JOB_WINDOW, LARGE_PAGE, MemoryError, PAGE};
use crate::arch::stacks;

/// Slot of the top-level table that holds the direct map.
const BOOT_SLOT: usize = (BOOT_WINDOW >> 39 & 511) as usize;

/// A part of the image and how it may be used.
pub(super) struct Part {
    /// Virtual addresses, page-aligned.
    pub(super) range: Range<u64>,
    /// Whether it may be written.
    pub(super) write: bool,
    /// Whether it may be executed.
    pub(super) execute: bool,
}

struct Tables<'a>(&'a mut Frames);

// SAFETY: every frame comes fresh from the allocator and goes to one table.
unsafe impl FrameAllocator<Size4KiB> for Tables<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = self.0.allocate(1).ok()?;
        Some(PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

/// Builds new tables and switches to them: `image` in 4 KiB pages without the
/// stacks' guard pages, the direct map without execution, and `job` (physical)
/// at [`JOB_WINDOW`]. Low addresses are no longer mapped: null faults.
///
/// # Errors
/// [`MemoryError::Map`] if frames run out.
pub(super) fn switch(
    frames: &mut Frames,
    image: &[Part],
    job: &Range<u64>,
) -> Result<(), MemoryError> {
    let top = new_table(frames)?;
    // SAFETY: the boot tables of `entry.s` are loaded; their direct map is
    // static and never changes, so sharing it is sharing constants.
    let direct_map = unsafe { table(Cr3::read().0.start_address().as_u64())[BOOT_SLOT].clone() };
    // SAFETY: `top` is a fresh frame inside the direct map, ours alone.
    let top_table = unsafe { table(top) };
    top_table[BOOT_SLOT] = direct_map;
    let flags = top_table[BOOT_SLOT].flags() | Flags::NO_EXECUTE;
    top_table[BOOT_SLOT].set_flags(flags);
    // SAFETY: all tables lie in the direct map, at this offset.
    let mut mapper = unsafe { OffsetPageTable::new(top_table, VirtAddr::new(BOOT_WINDOW)) };
    map_image(&mut mapper, frames, image)?;
    for offset in (0..job.end - job.start).step_by(LARGE_PAGE as usize) {
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
        map::<Size2MiB>(
            &mut mapper,
            frames,
            JOB_WINDOW + offset,
            job.start + offset,
            flags,
        )?;
    }
    let frame = PhysFrame::containing_address(PhysAddr::new(top));
    // SAFETY: the new tables map the running code, its stack and its data where
    // they are now; nothing uses the identity map any more.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
    Ok(())
}

fn map_image(
    mapper: &mut OffsetPageTable<'_>,
    frames: &mut Frames,
    image: &[Part],
) -> Result<(), MemoryError> {
    for part in image {
        let mut flags = Flags::PRESENT;
        flags.set(Flags::WRITABLE, part.write);
        flags.set(Flags::NO_EXECUTE, !part.execute);
        for addr in part.range.clone().step_by(PAGE as usize) {
            if !stacks::is_guard(addr) {
                map::<Size4KiB>(mapper, frames, addr, addr - IMAGE_WINDOW, flags)?;
            }
        }
    }
    Ok(())
}

fn map<'a, S: PageSize>(
    mapper: &mut OffsetPageTable<'a>,
    frames: &mut Frames,
    virtual_address: u64,
    physical: u64,
    flags: Flags,
) -> Result<(), MemoryError>
where
    OffsetPageTable<'a>: Mapper<S>,
{
    let page = Page::<S>::containing_address(VirtAddr::new(virtual_address));
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new(physical));
    // SAFETY: the tables are not in use yet; the caller maps each page once, to
    // memory that its window stands for.
    let mapped = unsafe { mapper.map_to(page, frame, flags, &mut Tables(frames)) };
    mapped
        .map(|flush| flush.ignore())
        .map_err(|_| MemoryError::Map)
}

/// A zeroed frame for a table; its physical address.
fn new_table(frames: &mut Frames) -> Result<u64, MemoryError> {
    let frame = frames.allocate(1).map_err(|_| MemoryError::Map)?;
    // SAFETY: a fresh frame inside the direct map, ours alone.
    unsafe { table(frame).zero() };
    Ok(frame)
}

/// The table at physical address `frame`.
///
/// # Safety
/// `frame` is a page table inside the direct map, and nobody else has it.
unsafe fn table(frame: u64) -> &'static mut PageTable {
    // SAFETY: the caller's promise.
    unsafe { &mut *((BOOT_WINDOW + frame) as *mut PageTable) }
}
