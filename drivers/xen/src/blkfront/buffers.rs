//! The permanent grants of registered buffers, where the backend keeps grants
//! mapped.

use crate::Xen;
use crate::grant::{Access, GrantError, Reuse};
use crate::hal::Hal;
use crate::wire::DomId;
use crate::wire::grant_table::GrantRef;
use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Buffer, Owner, RegisterError, Registered, Unregistered};

/// What these grants are for, as `grants` shows it.
const PURPOSE: &str = "blk buffer";

/// The buffers of one queue.
pub(super) type Buffers = firn_block::Buffers<Granted>;

/// Who may reach a buffer.
pub struct Granted {
    /// One per page, from the first on, with persistent grants; else empty, or
    /// those that an earlier connection's backend would not let go.
    grants: Vec<GrantRef>,
    /// Whom they let in.
    to: DomId,
}

impl Default for Granted {
    fn default() -> Self {
        Self {
            grants: Vec::new(),
            to: DomId::SELF,
        }
    }
}

impl Granted {
    /// Grants the pages of `memory` that are not granted yet. Writable even where
    /// only written from: a backend that keeps the mapping may use the page for a
    /// read later (`io/blkif.h`, note 8).
    fn complete<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        domain: DomId,
        memory: &Region,
    ) -> Result<(), GrantError> {
        self.to = domain;
        let missing = memory.page_count().saturating_sub(self.grants.len());
        self.grants.reserve(missing);
        for page in self.grants.len()..memory.page_count() {
            let grant = xen.grant_page(domain, memory, page, Access::ReadWrite, PURPOSE)?;
            self.grants.push(grant);
        }
        Ok(())
    }

    /// Ends grants, the last one first, until one is in the way: the backend has
    /// that page mapped.
    fn end<H: Hal>(&mut self, xen: &Xen<H>) -> Option<GrantRef> {
        while let Some(grant) = self.grants.last() {
            if xen.grants.end(*grant).is_err() {
                return Some(*grant);
            }
            self.grants.pop();
        }
        None
    }

    /// Ends all of them, because the backend is gone: those in the way as soon as
    /// it can be. Whether no page is reached any more.
    fn end_or_defer<H: Hal>(&mut self, xen: &Xen<H>, reuse: Reuse) -> bool {
        let now = xen.hal.now();
        let mut free = true;
        for grant in self.grants.drain(..) {
            free &= xen.grants.end_or_defer(grant, reuse, now);
        }
        free
    }
}

/// Grants all of a buffer.
fn complete<H: Hal>(
    xen: &Xen<H>,
    domain: DomId,
    buffer: &mut Registered<Granted>,
) -> Result<(), GrantError> {
    let memory = buffer.memory().alias();
    buffer.kept.complete(xen, domain, &memory)
}

/// The permanent grant of a page of a buffer, if there is one.
pub(super) fn permanent(buffers: &Buffers, buffer: &Buffer, page: usize) -> Option<GrantRef> {
    let (granted, first) = buffers.kept(buffer)?;
    granted.grants.get(first + page).copied()
}

/// Registers memory, granting it to `persistent` if that is given. Memory
/// that was parked is the same buffer again.
pub(super) fn register<H: Hal>(
    buffers: &mut Buffers,
    xen: &Xen<H>,
    persistent: Option<DomId>,
    region: Region,
    owner: Owner,
) -> Result<Buffer, RegisterError> {
    let same = |memory: &Region| memory.addr() == region.addr();
    let ready = |buffer: &mut _| make_ready(xen, persistent, buffer);
    if let Some(buffer) = buffers.revive(region.page_count(), owner, same, ready) {
        return Ok(buffer);
    }
    let mut granted = Granted::default();
    if let Some(domain) = persistent
        && granted.complete(xen, domain, &region).is_err()
    {
        granted.end_or_defer(xen, Reuse::Now);
        let why = "no grant references left";
        return Err(RegisterError { region, why });
    }
    Ok(buffers.insert(region, owner, granted))
}

/// Forgets a buffer, unless a backend maps some of it. A backend that keeps
/// grants mapped does so as long as it lives: such a buffer is parked, its
/// grants in force.
pub(super) fn unregister<H: Hal>(
    buffers: &mut Buffers,
    xen: &Xen<H>,
    buffer: Buffer,
) -> Unregistered {
    buffers.remove(buffer, |granted| granted.end(xen).is_none())
}

/// A parked buffer of that size and owner, with its grants complete again.
pub(super) fn reuse<H: Hal>(
    buffers: &mut Buffers,
    xen: &Xen<H>,
    persistent: Option<DomId>,
    pages: usize,
    owner: Owner,
) -> Option<Buffer> {
    let ready = |buffer: &mut _| make_ready(xen, persistent, buffer);
    buffers.revive(pages, owner, |_| true, ready)
}

/// Ends every permanent grant, because the backend is gone. Buffers with
/// pages that it still maps are quarantined.
pub(super) fn revoke_all<H: Hal>(buffers: &mut Buffers, xen: &Xen<H>, reuse: Reuse) {
    for buffer in buffers.iter_mut() {
        buffer.quarantined |= !buffer.kept.end_or_defer(xen, reuse);
    }
}

/// Takes back every permanent grant that the backend has let go of, in good
/// order: nothing is in flight. The others stay in force; one of them, and
/// how many there are.
pub(super) fn end_all<H: Hal>(buffers: &mut Buffers, xen: &Xen<H>) -> Option<(GrantRef, usize)> {
    let (mut stuck, mut count) = (None, 0);
    for buffer in buffers.iter_mut() {
        if let Some(grant) = buffer.kept.end(xen) {
            stuck.get_or_insert(grant);
            count += buffer.kept.grants.len();
        }
    }
    stuck.map(|grant| (grant, count))
}

/// Gets ready for a backend. Grants that an earlier one kept are good for it
/// if it lives in the same domain; else their buffers are not used again.
pub(super) fn meet<H: Hal>(
    buffers: &mut Buffers,
    xen: &Xen<H>,
    domain: DomId,
    persistent: bool,
) -> Result<(), GrantError> {
    for buffer in buffers.iter_mut() {
        if !buffer.kept.grants.is_empty() && buffer.kept.to != domain {
            buffer.quarantined |= !buffer.kept.end_or_defer(xen, Reuse::Now);
        }
        if persistent && !buffer.quarantined {
            complete(xen, domain, buffer)?;
        }
    }
    Ok(())
}

/// The machine is about to be moved, maybe while it ran: the host has to know what a
/// backend that keeps pages mapped read into them.
pub(super) fn note_changed<H: Hal>(buffers: &Buffers, xen: &Xen<H>) {
    let mapped = |buffer: &&Registered<Granted>| !buffer.kept.grants.is_empty();
    for buffer in buffers.iter().filter(mapped) {
        xen.hal.note_changed(buffer.memory());
    }
}

/// The grant table is another one: no page of ours is mapped by anybody.
pub(super) fn forget_grants(buffers: &mut Buffers) {
    for buffer in buffers.iter_mut() {
        buffer.kept.grants.clear();
        buffer.quarantined = false;
    }
}

fn make_ready<H: Hal>(
    xen: &Xen<H>,
    persistent: Option<DomId>,
    buffer: &mut Registered<Granted>,
) -> bool {
    persistent.is_none_or(|domain| complete(xen, domain, buffer).is_ok())
}
