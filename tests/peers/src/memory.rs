//! Pages for the guest: the one place that makes [`Region`]s from raw memory.
//!
//! A [`Region`] says nothing about lifetimes, so these pages live for ever:
//! what a machine leaves behind is zeroed and handed to the next one.
#![expect(
    unsafe_code,
    reason = "a region of shared memory is made from raw memory"
)]

use firn_block::PAGE;
use firn_block::shm::Region;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Mutex;

/// Runs of pages without a machine, by number of pages.
static IDLE: Mutex<BTreeMap<usize, Vec<Region>>> = Mutex::new(BTreeMap::new());

/// `pages` contiguous pages of zeros that stay valid for ever.
///
/// # Panics
/// For zero pages.
#[must_use]
pub fn take(pages: usize) -> Region {
    assert!(pages > 0, "no pages asked for");
    let idle = lock().get_mut(&pages).and_then(Vec::pop);
    if let Some(region) = idle {
        region.zero(0, region.len());
        return region;
    }
    let Ok(layout) = Layout::from_size_align(pages * PAGE, PAGE) else {
        unreachable!("a page is a power of two");
    };
    // SAFETY: the layout has a size, as there is at least one page.
    let base = unsafe { alloc_zeroed(layout) };
    let Some(base) = NonNull::new(base) else {
        handle_alloc_error(layout);
    };
    // SAFETY: never freed, so valid for ever, and reached only through regions.
    unsafe { Region::new(base, pages * PAGE) }
}

/// Takes back pages whose machine is gone.
pub fn give_back(region: Region) {
    lock().entry(region.page_count()).or_default().push(region);
}

fn lock() -> std::sync::MutexGuard<'static, BTreeMap<usize, Vec<Region>>> {
    // A list of free pages is whole between any two calls, so a test that
    // panicked elsewhere does not spoil it.
    IDLE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
