//! Registered buffers, and their permanent grants where the backend keeps
//! grants mapped.

use crate::Xen;
use crate::grant::{Access, GrantError};
use crate::hal::Hal;
use crate::wire::DomId;
use crate::wire::grant_table::GrantRef;
use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Buffer, RegisterError, Unregistered};

/// What these grants are for, as `grants` shows it.
const PURPOSE: &str = "blk buffer";

struct Registered {
    memory: Region,
    /// One per page with persistent grants, else empty.
    grants: Vec<GrantRef>,
    /// Some page is still mapped by a backend that is gone: never used again.
    quarantined: bool,
    /// Its owner gave it back while the backend had it mapped.
    parked: bool,
}

/// The buffers of one queue.
pub(super) struct Buffers {
    queue: u32,
    slots: Vec<Option<Registered>>,
}

impl Buffers {
    pub(super) const fn new(queue: u32) -> Self {
        Self {
            queue,
            slots: Vec::new(),
        }
    }

    /// Whether a buffer is one of these and may carry data.
    pub(super) fn owns(&self, buffer: &Buffer) -> bool {
        self.find(buffer)
            .is_some_and(|registered| !registered.quarantined)
    }

    /// Whether somebody still has a buffer that was registered here.
    pub(super) fn any_lent(&self) -> bool {
        self.slots.iter().flatten().any(|buffer| !buffer.parked)
    }

    fn find(&self, buffer: &Buffer) -> Option<&Registered> {
        if buffer.queue() != self.queue {
            return None;
        }
        self.slots.get(buffer.index() as usize)?.as_ref()
    }

    /// The permanent grant of a page of a buffer, if there is one.
    pub(super) fn permanent(&self, buffer: &Buffer, page: usize) -> Option<GrantRef> {
        self.find(buffer)?.grants.get(page).copied()
    }

    /// Registers memory, granting it to `persistent` if that is given.
    pub(super) fn register<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        persistent: Option<DomId>,
        region: Region,
    ) -> Result<Buffer, RegisterError> {
        let grants = match persistent.map(|domain| grant_all(xen, domain, &region)) {
            None => Vec::new(),
            Some(Ok(grants)) => grants,
            Some(Err(_)) => {
                let why = "no grant references left";
                return Err(RegisterError { region, why });
            }
        };
        let registered = Registered {
            memory: region.alias(),
            grants,
            quarantined: false,
            parked: false,
        };
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(Some(registered));
        } else {
            self.slots[index] = Some(registered);
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Ok(Buffer::new(region, self.queue, index))
    }

    /// Forgets a buffer, unless a backend maps some of it. A backend that keeps
    /// grants mapped does so as long as it lives: such a buffer is parked, its
    /// grants in force.
    pub(super) fn unregister<H: Hal>(&mut self, xen: &Xen<H>, buffer: Buffer) -> Unregistered {
        if self.find(&buffer).is_none() {
            return Unregistered::Free(buffer.into_region());
        }
        let slot = &mut self.slots[buffer.index() as usize];
        let Some(registered) = slot else {
            return Unregistered::Free(buffer.into_region());
        };
        while let Some(grant) = registered.grants.last() {
            if xen.grants.end(*grant).is_err() {
                break;
            }
            registered.grants.pop();
        }
        if registered.grants.is_empty() && !registered.quarantined {
            *slot = None;
            return Unregistered::Free(buffer.into_region());
        }
        registered.parked = true;
        Unregistered::StillMapped
    }

    /// A parked buffer of that size, with its grants complete again.
    pub(super) fn reuse<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        persistent: Option<DomId>,
        pages: usize,
    ) -> Option<Buffer> {
        let fits = |slot: &Option<Registered>| {
            slot.as_ref().is_some_and(|buffer| {
                buffer.parked && !buffer.quarantined && buffer.memory.page_count() == pages
            })
        };
        let index = self.slots.iter().rposition(fits)?;
        let registered = self.slots[index].as_mut()?;
        if let Some(domain) = persistent {
            for page in registered.grants.len()..pages {
                let memory = &registered.memory;
                let grant = xen.grant_page(domain, memory, page, Access::ReadWrite, PURPOSE);
                registered.grants.push(grant.ok()?);
            }
        }
        registered.parked = false;
        let index = u32::try_from(index).ok()?;
        Some(Buffer::new(registered.memory.alias(), self.queue, index))
    }

    /// Ends every permanent grant, because the backend is gone. Buffers with
    /// pages that it still maps are quarantined.
    pub(super) fn revoke_all<H: Hal>(&mut self, xen: &Xen<H>) {
        for registered in self.slots.iter_mut().flatten() {
            let grants = core::mem::take(&mut registered.grants);
            registered.quarantined |= !end_all(xen, &grants);
        }
    }

    /// Keeps a buffer that its owner does not get back out of use for good.
    pub(super) fn quarantine(&mut self, buffer: &Buffer) {
        if let Some(Some(registered)) = self.slots.get_mut(buffer.index() as usize) {
            registered.quarantined = true;
            registered.parked = true;
        }
    }

    /// Grants every buffer to a new backend.
    pub(super) fn grant_all_to<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        domain: DomId,
    ) -> Result<(), GrantError> {
        for registered in self.slots.iter_mut().flatten() {
            if !registered.quarantined {
                registered.grants = grant_all(xen, domain, &registered.memory)?;
            }
        }
        Ok(())
    }
}

fn grant_all<H: Hal>(
    xen: &Xen<H>,
    domain: DomId,
    region: &Region,
) -> Result<Vec<GrantRef>, GrantError> {
    let mut grants = Vec::with_capacity(region.page_count());
    for page in 0..region.page_count() {
        // Writable even where only written from: a backend that keeps the
        // mapping may use the page for a read later (`io/blkif.h`, note 8).
        match xen.grant_page(domain, region, page, Access::ReadWrite, PURPOSE) {
            Ok(grant) => grants.push(grant),
            Err(error) => {
                end_all(xen, &grants);
                return Err(error);
            }
        }
    }
    Ok(grants)
}

fn end_all<H: Hal>(xen: &Xen<H>, grants: &[GrantRef]) -> bool {
    let now = xen.hal.now();
    let mut free = true;
    for grant in grants {
        free &= xen.grants.end_or_defer(*grant, now);
    }
    free
}
