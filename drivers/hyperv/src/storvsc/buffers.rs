//! Registered buffers. Nothing has to be granted for them: packets list frames.

use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Buffer, Owner, PAGE, Unregistered};

struct Registered {
    memory: Region,
    owner: Owner,
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

    pub(super) fn register(&mut self, region: Region, owner: Owner) -> Buffer {
        let registered = Registered {
            memory: region.alias(),
            owner,
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
            registered.quarantined = true;
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
