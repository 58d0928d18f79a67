//! The frontend's end of the shared request ring (`io/ring.h`).
//!
//! All decisions are made on private indices. Of the shared page only
//! `rsp_prod`, `req_event` and response entries are ever read, each once.

use super::offence::Offence;
use crate::wire::blkif::{ENTRY_SIZE, Response};
use crate::wire::ring::ENTRIES;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;

/// Number of entries of a ring of `pages` pages: what fits, rounded down to a
/// power of two.
#[must_use]
pub(super) const fn entries(pages: usize) -> u32 {
    let fit = (pages * firn_block::PAGE - ENTRIES) / ENTRY_SIZE;
    1 << fit.ilog2()
}

/// The ring with its private indices.
pub(super) struct FrontRing {
    memory: Region,
    size: u32,
    /// Requests written.
    req_prod: u32,
    /// Requests that the backend may see.
    published: u32,
    /// Responses reaped.
    rsp_cons: u32,
}

impl FrontRing {
    /// An empty ring in zeroed memory.
    pub(super) fn new(memory: Region) -> Self {
        let size = entries(memory.page_count());
        memory.atomic_u32(REQ_PROD).store(0, Relaxed);
        memory.atomic_u32(RSP_PROD).store(0, Relaxed);
        memory.atomic_u32(REQ_EVENT).store(1, Relaxed);
        memory.atomic_u32(RSP_EVENT).store(1, Release);
        Self {
            memory,
            size,
            req_prod: 0,
            published: 0,
            rsp_cons: 0,
        }
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// Gives the memory up; only its grants still know it.
    pub(super) fn into_memory(self) -> Region {
        self.memory
    }

    /// Entries that can be written now.
    pub(super) const fn free(&self) -> u32 {
        self.size - self.unfinished()
    }

    /// Published requests without a reaped response.
    pub(super) const fn outstanding(&self) -> u32 {
        self.published.wrapping_sub(self.rsp_cons)
    }

    /// Written requests without a reaped response, published or not.
    pub(super) const fn unfinished(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    const fn entry(&self, index: u32) -> usize {
        ENTRIES + (index & (self.size - 1)) as usize * ENTRY_SIZE
    }

    /// Writes the next request. The caller has checked [`FrontRing::free`].
    pub(super) fn push(&mut self, request: &[u8]) {
        self.memory.copy_in(self.entry(self.req_prod), request);
        self.req_prod = self.req_prod.wrapping_add(1);
    }

    /// Publishes what was written; whether the backend wants to be notified.
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.req_prod);
        if old == new {
            return false;
        }
        self.published = new;
        self.memory.atomic_u32(REQ_PROD).store(new, Release);
        // The new index must be visible before the backend's wish is read: it
        // looks at them in the opposite order before it sleeps.
        fence(SeqCst);
        let event = self.memory.atomic_u32(REQ_EVENT).load(Relaxed);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }

    /// How many responses wait, checked against what can be answered.
    pub(super) fn responses(&self) -> Result<u32, Offence> {
        let rsp_prod = self.memory.atomic_u32(RSP_PROD).load(Acquire);
        let waiting = rsp_prod.wrapping_sub(self.rsp_cons);
        if waiting > self.outstanding() {
            return Err(Offence::ResponseIndexRunsAway {
                rsp_prod,
                rsp_cons: self.rsp_cons,
                req_prod: self.published,
            });
        }
        Ok(waiting)
    }

    /// Copies the next response out and counts it as reaped. The caller has
    /// checked [`FrontRing::responses`].
    pub(super) fn reap(&mut self) -> Response {
        let response = self.memory.read(self.entry(self.rsp_cons));
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        response
    }

    /// Asks for an event at the next response; whether one is there already.
    pub(super) fn arm(&self) -> Result<bool, Offence> {
        let event = self.rsp_cons.wrapping_add(1);
        self.memory.atomic_u32(RSP_EVENT).store(event, Relaxed);
        // The wish must be visible before the index is read: the backend
        // looks at them in the opposite order after it answers.
        fence(SeqCst);
        Ok(self.responses()? > 0)
    }
}

const _: () = {
    // The ring sizes that `blkif.h` implies.
    assert!(entries(1) == 32);
    assert!(entries(2) == 64);
    assert!(entries(16) == 512);
};
