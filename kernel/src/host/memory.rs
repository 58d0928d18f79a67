//! Boot memory as drivers share it with a host, whichever it is.

use firn_block::Gfn;
use firn_block::shm::Region;

use crate::mm::{self, PAGE};

/// Pages of zeros, if there are so many in one run.
pub(super) fn alloc_shared(pages: usize) -> Option<Region> {
    mm::allocate_shared(pages)
        // Whoever asks may do with less, and says so else.
        .inspect_err(|e| log::debug!("shared pages: {e}"))
        .ok()
}

/// Takes them back.
pub(super) fn free_shared(region: Region) {
    if let Err(error) = mm::free_shared(region) {
        log::error!("shared pages: {error}");
    }
}

/// The frame of a page of a region.
pub(super) fn gfn(region: &Region, page: usize) -> Gfn {
    let addr = region.addr() + page * PAGE as usize;
    // Regions are made from mapped memory only, so this is never the fallback;
    // frame ~0 is refused by hypervisors.
    Gfn(mm::frame_of(addr).unwrap_or(u64::MAX))
}
