//! Registered buffers: those of this boot, and those of an earlier one, as a
//! restore brings them back.

use crate::accepted::Owner;
use crate::queue::Unregistered;
use crate::shm::Region;
use crate::{Buffer, PAGE};
use alloc::vec::Vec;
use core::fmt;

/// Most buffers of one queue.
pub const MOST_BUFFERS: u32 = 1 << 16;

/// A buffer as the earlier boot's queue knew it.
#[derive(Debug)]
pub struct Adopted {
    /// [`Buffer::index`].
    pub index: u32,
    /// The memory.
    pub region: Region,
    /// Nobody has it: it was given back while the host of that boot had it
    /// mapped. [`Queue::reuse`](crate::Queue::reuse) hands it out again.
    pub parked: bool,
}

/// Buffers could not be adopted; the queue has none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// Somebody has a buffer that was registered in this boot.
    Lent,
    /// The number is used twice, or too large.
    Index(u32),
    /// They could not be made known to the host, for want of this.
    Host(&'static str),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lent => f.write_str("buffers of this boot are registered with the disk"),
            Self::Index(index) => write!(f, "buffer {index} of the image cannot be"),
            Self::Host(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for AdoptError {}

/// A registered buffer.
#[derive(Debug)]
pub struct Registered<K> {
    memory: Region,
    /// What the driver keeps of it.
    pub kept: K,
    /// The host may still reach a page of it: never used again.
    pub quarantined: bool,
    /// Its owner gave it back while the host had it mapped.
    parked: bool,
    /// Memory of the kernel's own is not lent to jobs, and the other way round.
    owner: Owner,
}

impl<K> Registered<K> {
    /// The memory.
    pub const fn memory(&self) -> &Region {
        &self.memory
    }

    /// Which page of this one the region begins at, if it lies within.
    fn page_of(&self, region: &Region) -> Option<usize> {
        let offset = region.addr().checked_sub(self.memory.addr())?;
        let inside = offset + region.len() <= self.memory.len();
        (inside && offset.is_multiple_of(PAGE)).then_some(offset / PAGE)
    }
}

/// The buffers of one queue, with what its driver keeps of each (`K`).
#[derive(Debug)]
pub struct Buffers<K = ()> {
    queue: u32,
    slots: Vec<Option<Registered<K>>>,
}

impl<K> Buffers<K> {
    /// No buffers of queue `queue`.
    #[must_use]
    pub const fn new(queue: u32) -> Self {
        Self {
            queue,
            slots: Vec::new(),
        }
    }

    /// The buffers of an earlier boot, under their numbers; nothing is kept of
    /// them yet.
    ///
    /// # Errors
    /// [`AdoptError::Index`].
    pub fn adopt(queue: u32, buffers: impl IntoIterator<Item = Adopted>) -> Result<Self, AdoptError>
    where
        K: Default,
    {
        let mut slots: Vec<Option<Registered<K>>> = Vec::new();
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
                kept: K::default(),
                quarantined: false,
                parked: buffer.parked,
                owner: Owner::Job,
            });
        }
        Ok(Self { queue, slots })
    }

    /// The queue's number.
    #[must_use]
    pub const fn queue(&self) -> u32 {
        self.queue
    }

    /// Whether somebody still has a buffer that was registered here.
    #[must_use]
    pub fn any_lent(&self) -> bool {
        self.slots.iter().flatten().any(|buffer| !buffer.parked)
    }

    fn find(&self, buffer: &Buffer) -> Option<&Registered<K>> {
        let slot = self.slots.get(buffer.index() as usize)?.as_ref();
        slot.filter(|_| buffer.queue() == self.queue)
    }

    /// Whether a buffer is one of these, or a part of one, and may carry data.
    #[must_use]
    pub fn owns(&self, buffer: &Buffer) -> bool {
        self.find(buffer).is_some_and(|registered| {
            !registered.quarantined && registered.page_of(buffer.region()).is_some()
        })
    }

    /// What is kept of a buffer, and at which of its pages this part begins.
    #[must_use]
    pub fn kept(&self, buffer: &Buffer) -> Option<(&K, usize)> {
        let registered = self.find(buffer)?;
        Some((&registered.kept, registered.page_of(buffer.region())?))
    }

    /// Registers memory.
    pub fn insert(&mut self, region: Region, owner: Owner, kept: K) -> Buffer {
        let registered = Registered {
            memory: region.alias(),
            kept,
            quarantined: false,
            parked: false,
            owner,
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

    /// Forgets a buffer if `release` says that the host can reach it no more;
    /// else it is parked.
    pub fn remove(&mut self, buffer: Buffer, release: impl FnOnce(&mut K) -> bool) -> Unregistered {
        let slot = match self.find(&buffer) {
            Some(_) => &mut self.slots[buffer.index() as usize],
            None => return Unregistered::Free(buffer.into_region()),
        };
        if let Some(registered) = slot {
            let free = release(&mut registered.kept);
            if !free || registered.quarantined {
                registered.parked = true;
                return Unregistered::StillMapped;
            }
        }
        *slot = None;
        Unregistered::Free(buffer.into_region())
    }

    /// A parked buffer of that size and owner that is `wanted`, if it can be made
    /// `ready`.
    pub fn revive(
        &mut self,
        pages: usize,
        owner: Owner,
        wanted: impl Fn(&Region) -> bool,
        ready: impl FnOnce(&mut Registered<K>) -> bool,
    ) -> Option<Buffer> {
        let fits = |slot: &Option<Registered<K>>| {
            slot.as_ref().is_some_and(|buffer| {
                buffer.parked
                    && !buffer.quarantined
                    && buffer.owner == owner
                    && buffer.memory.page_count() == pages
                    && wanted(&buffer.memory)
            })
        };
        let index = self.slots.iter().rposition(fits)?;
        let registered = self.slots[index].as_mut()?;
        if !ready(registered) {
            return None;
        }
        registered.parked = false;
        let index = u32::try_from(index).ok()?;
        Some(Buffer::new(registered.memory.alias(), self.queue, index))
    }

    /// Takes over what the kernel has parked with the queue that this one
    /// replaces: nobody has a buffer of it, so that it may have another number.
    pub fn inherit(&mut self, earlier: &mut Self) {
        let parked = earlier.slots.iter_mut().filter(|slot| {
            let registered = slot.as_ref();
            registered.is_some_and(|r| r.parked && r.owner == Owner::Kernel)
        });
        self.slots.extend(parked.map(Option::take));
    }

    /// Nobody has a buffer of the kernel's any more: what was not given back can
    /// be had again.
    pub fn park_kernel(&mut self) {
        let all = self.slots.iter_mut().flatten();
        all.filter(|registered| registered.owner == Owner::Kernel)
            .for_each(|registered| registered.parked = true);
    }

    /// The same where no host keeps anything mapped: they are free.
    pub fn forget_kernel(&mut self) {
        for slot in &mut self.slots {
            slot.take_if(|r| r.owner == Owner::Kernel && !r.quarantined);
        }
    }

    /// Keeps a buffer that its owner does not get back out of use for good.
    pub fn quarantine(&mut self, buffer: &Buffer) {
        if let Some(Some(registered)) = self.slots.get_mut(buffer.index() as usize) {
            registered.quarantined = true;
            registered.parked = true;
        }
    }

    /// Every buffer that is registered or parked.
    pub fn iter(&self) -> impl Iterator<Item = &Registered<K>> {
        self.slots.iter().flatten()
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Registered<K>> {
        self.slots.iter_mut().flatten()
    }
}
