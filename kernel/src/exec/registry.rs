//! The buffers that jobs have registered with disks, so that a restore can
//! register them again.

use alloc::vec::Vec;
use core::cell::RefCell;

use firn_block::shm::Region;
use firn_block::{Buffer, DiskId, Unregistered};

/// One registered buffer: what a [`Buffer`] that some job holds stands for.
#[derive(Debug)]
pub struct Registered {
    /// The disk, by the name that jobs know.
    pub disk: DiskId,
    /// The queue's number in the buffer.
    pub queue: u32,
    /// The index in the buffer.
    pub index: u32,
    /// The memory, of job memory.
    pub memory: Region,
    /// No job holds it: the host kept it mapped when it was given back.
    pub parked: bool,
}

/// All of them, in job memory.
#[derive(Debug, Default)]
pub struct Registry(RefCell<Vec<Registered>>);

impl Registry {
    /// Without buffers.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Notes a buffer that a queue just gave out. The caller allocates in job
    /// memory.
    pub fn add(&self, disk: DiskId, buffer: &Buffer) {
        let mut all = self.0.borrow_mut();
        // A disk that was plugged in again counts its buffers anew: only one
        // with the same memory is the same.
        let known = all.iter_mut().find(|r| {
            (r.queue, r.index) == (buffer.queue(), buffer.index())
                && r.memory.addr() == buffer.region().addr()
        });
        match known {
            Some(registered) => registered.parked = false,
            None => all.push(Registered {
                disk,
                queue: buffer.queue(),
                index: buffer.index(),
                memory: buffer.region().alias(),
                parked: false,
            }),
        }
    }

    /// Notes that the buffer at `addr` was given back to its queue.
    pub fn give_back(&self, addr: usize, outcome: &Unregistered) {
        let mut all = self.0.borrow_mut();
        let here = |r: &Registered| r.memory.addr() == addr;
        match outcome {
            Unregistered::Free(_) => all.retain(|r| !here(r)),
            Unregistered::StillMapped => {
                for registered in all.iter_mut().filter(|r| here(r)) {
                    registered.parked = true;
                }
            }
        }
    }

    /// Looks at every buffer.
    pub fn for_each(&self, visit: impl FnMut(&Registered)) {
        self.0.borrow().iter().for_each(visit);
    }

    /// Takes out the buffers that no job holds: after a restore no host maps
    /// them any more.
    pub fn take_parked(&self) -> Vec<Region> {
        let mut all = self.0.borrow_mut();
        let parked = all.extract_if(.., |r| r.parked);
        parked.map(|r| r.memory).collect()
    }

    /// Whether jobs have buffers of that disk.
    #[must_use]
    pub fn uses(&self, disk: DiskId) -> bool {
        let all = self.0.borrow();
        all.iter().any(|r| r.disk == disk && !r.parked)
    }
}

#[cfg(test)]
mod tests {
    use firn_peers::memory::take;

    use super::*;

    #[test]
    fn only_what_a_job_holds_is_in_use_and_parked_memory_comes_back() {
        let registry = Registry::new();
        let [one, two] = [take(1), take(1)];
        let buffer = |memory: &Region, index| Buffer::new(memory.alias(), 7, index);
        registry.add(DiskId(1), &buffer(&one, 0));
        registry.add(DiskId(1), &buffer(&two, 1));
        registry.give_back(one.addr(), &Unregistered::Free(one.alias()));
        assert!(registry.uses(DiskId(1)) && !registry.uses(DiskId(0)));
        registry.give_back(two.addr(), &Unregistered::StillMapped);
        assert!(!registry.uses(DiskId(1)));
        registry.add(DiskId(1), &buffer(&two, 1));
        assert!(registry.uses(DiskId(1)), "reused");
        registry.give_back(two.addr(), &Unregistered::StillMapped);
        // The disk was plugged in again, and counts from zero.
        registry.add(DiskId(1), &buffer(&one, 1));
        let parked: Vec<_> = registry.take_parked().iter().map(Region::addr).collect();
        assert_eq!(parked, [two.addr()]);
        assert!(registry.uses(DiskId(1)));
    }
}
