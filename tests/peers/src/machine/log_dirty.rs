//! What a live move misses: pages that the host wrote by mappings that it keeps.
//!
//! Xen sends a guest's memory while the guest runs, and again what was changed. It
//! sees the guest's own writes, and takes a page for changed when a mapping of it
//! ends; what is written by one that stays it does not see
//! (`xen/common/grant_table.c`: `gnttab_mark_dirty` at unmapping).

use super::FakeMachine;
use firn_block::PAGE;
use firn_block::shm::Region;
use std::collections::BTreeMap;

/// A page as it was sent last, and as the host left it after that.
struct Missed {
    page: Region,
    sent: Vec<u8>,
    left: Vec<u8>,
}

/// The pages that would be missed now, by address.
#[derive(Default)]
pub(super) struct LogDirty(BTreeMap<usize, Missed>);

fn content(page: &Region) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    page.copy_out(0, &mut bytes);
    bytes
}

impl FakeMachine {
    /// The host writes to a page by a mapping that it keeps.
    pub(super) fn write_unseen(&self, page: &Region, offset: usize, bytes: &[u8]) {
        let before = content(page);
        page.copy_in(offset, bytes);
        let left = content(page);
        let mut missed = self.log_dirty.borrow_mut();
        match missed.0.get_mut(&page.addr()) {
            // The guest has not written there since.
            Some(known) if known.left == before => known.left = left,
            _ => {
                let page_missed = Missed {
                    page: page.alias(),
                    sent: before,
                    left,
                };
                missed.0.insert(page.addr(), page_missed);
            }
        }
    }

    /// These pages are seen to be changed.
    pub(super) fn see(&self, memory: &Region) {
        let mut missed = self.log_dirty.borrow_mut();
        for page in 0..memory.page_count() {
            missed.0.remove(&(memory.addr() + page * PAGE));
        }
    }

    /// The guest arrives elsewhere with what was sent of its memory.
    pub fn arrive(&self) {
        let missed = std::mem::take(&mut *self.log_dirty.borrow_mut());
        for Missed { page, sent, left } in missed.0.into_values() {
            // What the guest itself wrote since was seen.
            if content(&page) == left {
                page.copy_in(0, &sent);
            }
        }
    }
}
