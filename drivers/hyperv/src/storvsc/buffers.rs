//! Registered buffers. Nothing has to be granted for them: packets list frames.

use super::adopt::AdoptError;
use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Adopted, Buffer, MOST_BUFFERS, Owner, PAGE, Unregistered};

struct Registered {
    memory: Region,
    owner: Owner,
    /// Nobody has it: an earlier host had it mapped when it was given back.
    parked: bool,
    /// The host may still reach a page of it: never used again.
    quarantined: bool,
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

    /// The buffers of an earlier boot, under their numbers.
    pub(super) fn adopt(
        queue: u32,
        buffers: impl IntoIterator<Item = Adopted>,
    ) -> Result<Self, AdoptError> {
        let mut slots: Vec<Option<Registered>> = Vec::new();
        for buffer in buffers {
            let at = buffer.index as usize;
            let taken = slots.get(at).is_some_and(Option::is_some);
            if taken || buffer.index >= MOST_BUFFERS {
                return Err(AdoptError::Index(buffer.index));
            }
            if at >= slots.len() {
                slots.resize_with(at + 1, || None);
            }
            slots[at] = Some(Registered {
                memory: buffer.region,
                owner: Owner::Job,
                parked: buffer.parked,
                quarantined: false,
            });
        }
        Ok(Self { queue, slots })
    }

    pub(super) const fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether a job has a buffer that was registered here.
    pub(super) fn any_lent(&self) -> bool {
        let lent = |r: &Registered| r.owner == Owner::Job && !r.parked;
        self.slots.iter().flatten().any(lent)
    }

    /// A parked buffer of that size: an earlier host's reach has ended with it.
    pub(super) fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        let fits = |r: &Registered| r.parked && !r.quarantined && r.memory.page_count() == pages;
        let index = self
            .slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(fits))?;
        let registered = self.slots[index].as_mut()?;
        registered.parked = false;
        let index = u32::try_from(index).ok()?;
        Some(Buffer::new(registered.memory.alias(), self.queue, index))
    }

    pub(super) fn register(&mut self, region: Region, owner: Owner) -> Buffer {
        let registered = Registered {
            memory: region.alias(),
            owner,
            parked: false,
            quarantined: false,
        };
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(Some(registered));
        } else {
            self.slots[index] = Some(registered);
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Buffer::new(region, self.queue, index)
    }

    pub(super) fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        let ours = buffer.queue() == self.queue;
        let slot = self.slots.get_mut(buffer.index() as usize);
        if let Some(slot) = slot.filter(|_| ours) {
            if slot.as_ref().is_some_and(|slot| slot.quarantined) {
                if let Some(slot) = slot {
                    slot.parked = true;
                }
                return Unregistered::StillMapped;
            }
            *slot = None;
        }
        Unregistered::Free(buffer.into_region())
    }

    fn find(&self, buffer: &Buffer) -> Option<&Registered> {
        let slot = self.slots.get(buffer.index() as usize)?.as_ref();
        slot.filter(|_| buffer.queue() == self.queue)
    }

    /// Whether a buffer is one of these, or a part of one, and may carry data.
    pub(super) fn owns(&self, buffer: &Buffer) -> bool {
        let Some(registered) = self.find(buffer) else {
            return false;
        };
        let (whole, part) = (&registered.memory, buffer.region());
        let offset = part.addr().checked_sub(whole.addr());
        let inside =
            |offset: usize| offset.is_multiple_of(PAGE) && offset + part.len() <= whole.len();
        !registered.quarantined && offset.is_some_and(inside)
    }

    /// Keeps a buffer that its owner does not get back out of use for good.
    pub(super) fn quarantine(&mut self, buffer: &Buffer) {
        if let Some(Some(registered)) = self.slots.get_mut(buffer.index() as usize) {
            (registered.quarantined, registered.parked) = (true, true);
        }
    }

    /// Whoever had the kernel's buffers has given up.
    pub(super) fn forget_kernel(&mut self) {
        for slot in &mut self.slots {
            let kernel = |r: &Registered| r.owner == Owner::Kernel && !r.quarantined;
            if slot.as_ref().is_some_and(kernel) {
                *slot = None;
            }
        }
    }
}
