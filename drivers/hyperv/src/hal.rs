//! What the drivers need from the machine under them.

use crate::hypercall::Hypercall;
use crate::wire::cpuid::Leaf;
use crate::wire::hypercall::Status;
use crate::wire::msr::{ENABLE, FRAME_SHIFT, Msr};
use firn_block::Gfn;
use firn_block::shm::Region;
use firn_task::Instant;

/// The machine: CPUID, MSRs, hypercalls, memory that can be shared, the time.
///
/// The kernel implements it with the instructions of those names; `tests/peers`
/// implements it in-process. Methods take `&self`: one vCPU calls them, from
/// safe code.
pub trait Hal {
    /// Reads a CPUID leaf.
    fn cpuid(&self, leaf: u32) -> Leaf;

    /// Reads a synthetic MSR.
    fn read_msr(&self, msr: Msr) -> u64;

    /// Writes a synthetic MSR.
    fn write_msr(&self, msr: Msr, value: u64);

    /// Where the hypervisor shall put the code that [`Hal::hypercall`] calls:
    /// a frame of executable boot memory. The drivers turn it on and off.
    fn hypercall_page(&self) -> Gfn;

    /// Makes a hypercall, through the page.
    fn hypercall(&self, call: Hypercall) -> Status;

    /// The interrupt vector for VMBus. Its handler has nothing to do but to end
    /// the interrupt.
    fn vector(&self) -> u8;

    /// Allocates `pages` contiguous pages of zeros that may be shared. They
    /// belong to the machine's boot memory, never to a saved image.
    fn alloc_shared(&self, pages: usize) -> Option<Region>;

    /// Takes back memory from [`Hal::alloc_shared`]. Only for memory that the
    /// host can no longer reach; what it may still write is leaked instead.
    fn free_shared(&self, region: Region);

    /// The frame number of page `page` of a region.
    fn gfn(&self, region: &Region, page: usize) -> Gfn;

    /// Now, on a clock that never goes back.
    fn now(&self) -> Instant;
}

/// Changes to MSRs whose other bits are the hypervisor's.
pub trait HalExt: Hal {
    /// Writes the bits of a mask, and leaves the others as they are.
    fn update_msr(&self, msr: Msr, mask: u64, value: u64) {
        let kept = self.read_msr(msr) & !mask;
        self.write_msr(msr, kept | value & mask);
    }

    /// Turns one of the hypervisor's pages on, at a frame, or off.
    fn set_page(&self, msr: Msr, frame: Option<Gfn>) {
        let frames = u64::MAX << FRAME_SHIFT;
        let value = frame.map_or(0, |frame| frame.0 << FRAME_SHIFT | ENABLE);
        self.update_msr(msr, frames | ENABLE, value);
    }
}

impl<H: Hal + ?Sized> HalExt for H {}
