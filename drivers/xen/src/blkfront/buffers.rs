//! Registered buffers, and their permanent grants where the backend keeps
//! grants mapped.

use super::adopt::AdoptError;
use crate::Xen;
use crate::grant::{Access, GrantError};
use crate::hal::Hal;
use crate::wire::DomId;
use crate::wire::grant_table::GrantRef;
use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Adopted, Buffer, MOST_BUFFERS, Owner, PAGE, RegisterError, Unregistered};

/// What these grants are for, as `grants` shows it.
const PURPOSE: &str = "blk buffer";

struct Registered {
    memory: Region,
    /// One per page, from the first on, with persistent grants; else empty, or
    /// those that an earlier connection's backend would not let go.
    grants: Vec<GrantRef>,
    /// Whom they let in.
    granted_to: DomId,
    /// Some page is still mapped by a backend that is gone: never used again.
    quarantined: bool,
    /// Its owner gave it back while the backend had it mapped.
    parked: bool,
    /// Memory of the kernel's own is not lent to jobs, and the other way round.
    owner: Owner,
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

    /// The buffers of an earlier boot, under their numbers and without grants.
    pub(super) fn adopt(
        queue: u32,
        buffers: impl IntoIterator<Item = Adopted>,
    ) -> Result<Self, AdoptError> {
        let mut slots: Vec<Option<Registered>> = Vec::new();
        for Adopted {
            index,
            region,
            parked,
        } in buffers
        {
            let at = index as usize;
            let taken = slots.get(at).is_some_and(Option::is_some);
            if taken || index >= MOST_BUFFERS {
                return Err(AdoptError::Index(index));
            }
            if at >= slots.len() {
                slots.resize_with(at + 1, || None);
            }
            let registered = Registered::new(region);
            slots[at] = Some(Registered {
                parked,
                ..registered
            });
        }
        Ok(Self { queue, slots })
    }

    pub(super) const fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether a buffer is one of these, or a part of one, and may carry data.
    pub(super) fn owns(&self, buffer: &Buffer) -> bool {
        self.find(buffer).is_some_and(|registered| {
            !registered.quarantined && registered.page_of(buffer.region()).is_some()
        })
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
        let registered = self.find(buffer)?;
        if registered.grants.is_empty() {
            return None;
        }
        let first = registered.page_of(buffer.region())?;
        registered.grants.get(first + page).copied()
    }

    /// Registers memory, granting it to `persistent` if that is given. Memory
    /// that was parked is the same buffer again.
    pub(super) fn register<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        persistent: Option<DomId>,
        region: Region,
        owner: Owner,
    ) -> Result<Buffer, RegisterError> {
        let same = |buffer: &Registered| buffer.memory.addr() == region.addr();
        if let Some(buffer) = self.revive(xen, persistent, region.page_count(), owner, same) {
            return Ok(buffer);
        }
        let mut registered = Registered {
            owner,
            ..Registered::new(region.alias())
        };
        if let Some(domain) = persistent
            && registered.complete_grants(xen, domain).is_err()
        {
            end_all(xen, &registered.grants);
            let why = "no grant references left";
            return Err(RegisterError { region, why });
        }
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

    /// A parked buffer of that size and owner, with its grants complete again.
    pub(super) fn reuse<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        persistent: Option<DomId>,
        pages: usize,
        owner: Owner,
    ) -> Option<Buffer> {
        self.revive(xen, persistent, pages, owner, |_| true)
    }

    fn revive<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        persistent: Option<DomId>,
        pages: usize,
        owner: Owner,
        wanted: impl Fn(&Registered) -> bool,
    ) -> Option<Buffer> {
        let fits = |slot: &Option<Registered>| {
            slot.as_ref().is_some_and(|buffer| {
                buffer.parked
                    && !buffer.quarantined
                    && buffer.owner == owner
                    && buffer.memory.page_count() == pages
                    && wanted(buffer)
            })
        };
        let index = self.slots.iter().rposition(fits)?;
        let registered = self.slots[index].as_mut()?;
        if let Some(domain) = persistent {
            registered.complete_grants(xen, domain).ok()?;
        }
        registered.parked = false;
        let index = u32::try_from(index).ok()?;
        Some(Buffer::new(registered.memory.alias(), self.queue, index))
    }

    /// Takes over what the kernel has parked with the queue that this one
    /// replaces: nobody has a buffer of it, so that it may have another number.
    pub(super) fn inherit(&mut self, earlier: &mut Self) {
        let parked = earlier.slots.iter_mut().filter(|slot| {
            let registered = slot.as_ref();
            registered.is_some_and(|r| r.parked && r.owner == Owner::Kernel)
        });
        self.slots.extend(parked.map(Option::take));
    }

    /// Nobody has a buffer of the kernel's any more: what was not given back can
    /// be had again.
    pub(super) fn park_kernel(&mut self) {
        let all = self.slots.iter_mut().flatten();
        all.filter(|registered| registered.owner == Owner::Kernel)
            .for_each(|registered| registered.parked = true);
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

    /// Takes back every permanent grant that the backend has let go of, in good
    /// order: nothing is in flight. The others stay in force; one of them, and
    /// how many there are.
    pub(super) fn take_back<H: Hal>(&mut self, xen: &Xen<H>) -> Option<(GrantRef, usize)> {
        let (mut stuck, mut count) = (None, 0);
        for registered in self.slots.iter_mut().flatten() {
            while let Some(grant) = registered.grants.last() {
                if xen.grants.end(*grant).is_err() {
                    stuck.get_or_insert(*grant);
                    count += registered.grants.len();
                    break;
                }
                registered.grants.pop();
            }
        }
        stuck.map(|grant| (grant, count))
    }

    /// Gets ready for a backend. Grants that an earlier one kept are good for it
    /// if it lives in the same domain; else their buffers are not used again.
    pub(super) fn meet<H: Hal>(
        &mut self,
        xen: &Xen<H>,
        domain: DomId,
        persistent: bool,
    ) -> Result<(), GrantError> {
        for registered in self.slots.iter_mut().flatten() {
            if !registered.grants.is_empty() && registered.granted_to != domain {
                let grants = core::mem::take(&mut registered.grants);
                registered.quarantined |= !end_all(xen, &grants);
            }
            if persistent && !registered.quarantined {
                registered.complete_grants(xen, domain)?;
            }
        }
        Ok(())
    }

    /// The grant table is another one: no page of ours is mapped by anybody.
    pub(super) fn forget_grants(&mut self) {
        for registered in self.slots.iter_mut().flatten() {
            registered.grants.clear();
            registered.quarantined = false;
        }
    }
}

impl Registered {
    const fn new(memory: Region) -> Self {
        Self {
            memory,
            grants: Vec::new(),
            granted_to: DomId::SELF,
            quarantined: false,
            parked: false,
            owner: Owner::Job,
        }
    }

    /// Which page of this one the region begins at, if it lies within.
    fn page_of(&self, region: &Region) -> Option<usize> {
        let offset = region.addr().checked_sub(self.memory.addr())?;
        let inside = offset + region.len() <= self.memory.len();
        (inside && offset.is_multiple_of(PAGE)).then_some(offset / PAGE)
    }

    /// Grants the pages that are not granted yet. Writable even where only
    /// written from: a backend that keeps the mapping may use the page for a
    /// read later (`io/blkif.h`, note 8).
    fn complete_grants<H: Hal>(&mut self, xen: &Xen<H>, domain: DomId) -> Result<(), GrantError> {
        self.granted_to = domain;
        let missing = self.memory.page_count().saturating_sub(self.grants.len());
        self.grants.reserve(missing);
        for page in self.grants.len()..self.memory.page_count() {
            let grant = xen.grant_page(domain, &self.memory, page, Access::ReadWrite, PURPOSE)?;
            self.grants.push(grant);
        }
        Ok(())
    }
}

fn end_all<H: Hal>(xen: &Xen<H>, grants: &[GrantRef]) -> bool {
    let now = xen.hal.now();
    let mut free = true;
    for grant in grants {
        free &= xen.grants.end_or_defer(*grant, now);
    }
    free
}
