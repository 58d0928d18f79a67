//! What is known about each request on a ring, out of the host's reach.

use alloc::vec::Vec;

struct Slot<T, K> {
    /// Counts the uses of the slot, so that an old id is told from a new one.
    generation: u64,
    waiting: Option<T>,
    kept: K,
}

/// A slot per request that the ring can hold. A slot waits for one answer at a
/// time (`T`), and keeps something between uses (`K`), such as a list with its
/// capacity.
pub struct Slots<T, K = ()> {
    slots: Vec<Slot<T, K>>,
    free: Vec<u16>,
}

/// An id that comes from the host and is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongId {
    /// It names no slot.
    Unknown(u64),
    /// It names a slot that waits for nothing, or an earlier use of it.
    Stale(u64),
}

impl<T, K> Slots<T, K> {
    /// `size` idle slots.
    pub fn new(size: u32, mut kept: impl FnMut() -> K) -> Self {
        let count = u16::try_from(size).unwrap_or(u16::MAX);
        let slot = |_| Slot {
            generation: 0,
            waiting: None,
            kept: kept(),
        };
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Takes a slot, if one is free.
    pub fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Gives back a slot that was not used.
    pub fn put_back(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// What a slot keeps.
    pub fn kept(&mut self, slot: u16) -> &mut K {
        &mut self.slots[usize::from(slot)].kept
    }

    /// Marks a slot as waiting; the id to put on the ring.
    pub fn start(&mut self, slot: u16, waiting: T) -> u64 {
        let entry = &mut self.slots[usize::from(slot)];
        entry.generation += 1;
        entry.waiting = Some(waiting);
        entry.generation << 16 | u64::from(slot)
    }

    /// The slot that an answer's id names, if it waits for this very id.
    ///
    /// # Errors
    /// [`WrongId`].
    pub fn resolve(&self, id: u64) -> Result<u16, WrongId> {
        let slot = (id & 0xffff) as u16;
        let entry = self.slots.get(usize::from(slot));
        let entry = entry.ok_or(WrongId::Unknown(id))?;
        if entry.waiting.is_none() || entry.generation != id >> 16 {
            return Err(WrongId::Stale(id));
        }
        Ok(slot)
    }

    /// What a slot waits for.
    #[must_use]
    pub fn waits_for(&self, slot: u16) -> Option<&T> {
        self.slots[usize::from(slot)].waiting.as_ref()
    }

    /// The same, to be changed.
    pub fn waits_for_mut(&mut self, slot: u16) -> Option<&mut T> {
        self.slots[usize::from(slot)].waiting.as_mut()
    }

    /// Ends a slot's wait. What it keeps is the caller's to look after.
    pub fn finish(&mut self, slot: u16) -> Option<T> {
        let waited = self.slots[usize::from(slot)].waiting.take()?;
        self.free.push(slot);
        Some(waited)
    }

    /// The slots that wait.
    #[must_use]
    pub fn waiting(&self) -> Vec<u16> {
        self.iter().map(|(slot, _)| slot).collect()
    }

    /// The slots that wait, and for what.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        let slots = (0u16..).zip(&self.slots);
        slots.filter_map(|(index, slot)| Some((index, slot.waiting.as_ref()?)))
    }

    /// How many slots wait.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_for_one_use() {
        let mut slots: Slots<()> = Slots::new(2, || ());
        let slot = slots.take().expect("two slots are free");
        let first = slots.start(slot, ());
        assert_eq!(slots.resolve(first), Ok(slot));
        slots.finish(slot);
        assert_eq!(slots.resolve(first), Err(WrongId::Stale(first)));
        let slot = slots.take().expect("it was given back");
        let second = slots.start(slot, ());
        assert_eq!(slots.resolve(first), Err(WrongId::Stale(first)));
        assert_eq!(slots.resolve(second), Ok(slot));
        assert_eq!(slots.resolve(7), Err(WrongId::Unknown(7)));
        assert_eq!(slots.in_use(), 1);
    }
}
