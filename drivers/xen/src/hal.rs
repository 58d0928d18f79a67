//! What the drivers need from the machine under them.

use crate::hypercall::Hypercall;
use crate::wire::errno::Errno;
use crate::wire::{Gfn, event_channel, hvm};
use firn_block::shm::Region;
use firn_task::Instant;

/// The machine: hypercalls, memory that can be shared, and the time.
///
/// The kernel implements it with `vmcall`, page tables and the hypervisor's
/// clock; `tests/peers` implements it in-process. Methods take `&self`: one
/// vCPU calls them, from safe code.
pub trait Hal {
    /// Makes a hypercall. The result is the non-negative return value.
    ///
    /// # Errors
    /// The error number that Xen returned.
    fn hypercall(&self, call: Hypercall<'_>) -> Result<u64, Errno>;

    /// Allocates `pages` contiguous pages of zeros that may be shared. They
    /// belong to the machine's boot memory, never to a saved image.
    fn alloc_shared(&self, pages: usize) -> Option<Region>;

    /// Takes back memory from [`Hal::alloc_shared`]. Only for memory that the
    /// host can no longer reach; what it still maps is leaked instead.
    fn free_shared(&self, region: Region);

    /// The frame number of page `page` of a region.
    fn gfn(&self, region: &Region, page: usize) -> Gfn;

    /// Access to guest frames that are no RAM, or that the toolstack filled:
    /// `count` pages from `first` on.
    fn map_frames(&self, first: Gfn, count: usize) -> Option<Region>;

    /// Frames set aside for [`Fixed`], outside RAM, the same at every boot.
    fn fixed(&self, what: Fixed) -> FixedFrames;

    /// Tells the hypervisor that the host changed these pages, by mappings that it
    /// keeps. A live move sends what the guest writes, and a page of which a mapping
    /// ends (`gnttab_mark_dirty` in Xen's `common/grant_table.c`), but does not see
    /// what is written by one that stays.
    fn note_changed(&self, memory: &Region) {
        memory.touch();
    }

    /// Now, on a clock that never goes back.
    fn now(&self) -> Instant;
}

/// What the hypervisor's own pages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// The shared info page: one frame.
    SharedInfo,
    /// The grant table.
    GrantTable,
}

/// A run of frames set aside outside RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedFrames {
    /// The first frame.
    pub first: Gfn,
    /// How many there are room for.
    pub count: u32,
}

/// Short forms for calls with one argument.
pub trait HalExt: Hal {
    /// Reads an HVM parameter of this domain.
    ///
    /// # Errors
    /// As [`Hal::hypercall`].
    fn hvm_param(&self, index: u32) -> Result<u64, Errno> {
        let mut param = hvm::Param {
            domid: crate::wire::DomId::SELF.0,
            pad: 0,
            index,
            value: 0,
        };
        self.hypercall(Hypercall::GetParam(&mut param))?;
        Ok(param.value)
    }

    /// Sets an HVM parameter of this domain.
    ///
    /// # Errors
    /// As [`Hal::hypercall`].
    fn set_hvm_param(&self, index: u32, value: u64) -> Result<(), Errno> {
        let param = hvm::Param {
            domid: crate::wire::DomId::SELF.0,
            pad: 0,
            index,
            value,
        };
        self.hypercall(Hypercall::SetParam(&param)).map(|_| ())
    }

    /// Sends an event to the other end of a port.
    ///
    /// # Errors
    /// As [`Hal::hypercall`].
    fn send_event(&self, port: event_channel::Port) -> Result<(), Errno> {
        let send = event_channel::Send { port: port.0 };
        self.hypercall(Hypercall::SendEvent(&send)).map(|_| ())
    }
}

impl<H: Hal + ?Sized> HalExt for H {}
