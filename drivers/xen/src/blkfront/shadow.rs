//! What is known about each request on the ring, out of the backend's reach.

use super::offence::Offence;
use crate::wire::blkif::Operation;
use crate::wire::grant_table::GrantRef;
use alloc::vec::Vec;

/// One request on the ring: a whole request, or a piece of one.
#[derive(Debug)]
pub(super) struct Piece {
    /// Which accepted request it belongs to.
    pub(super) parent: u16,
    /// What the response must name.
    pub(super) operation: Operation,
}

struct Slot {
    /// Counts the uses of the slot, so that an old id is told from a new one.
    generation: u64,
    piece: Option<Piece>,
    /// Grants made for this piece alone; keeps its capacity.
    grants: Vec<GrantRef>,
}

/// A slot per ring entry.
pub(super) struct Shadow {
    slots: Vec<Slot>,
    free: Vec<u16>,
}

impl Shadow {
    /// `size` idle slots with room for `segments` grants each.
    pub(super) fn new(size: u32, segments: usize) -> Self {
        let count = u16::try_from(size).unwrap_or(u16::MAX);
        let slot = |_| Slot {
            generation: 0,
            piece: None,
            grants: Vec::with_capacity(segments),
        };
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).rev().collect(),
        }
    }

    /// Takes a slot. The ring has as many entries as there are slots, so one is
    /// free whenever the ring has room.
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Gives back a slot that was not used.
    pub(super) fn put_back(&mut self, slot: u16) {
        self.free.push(slot);
    }

    /// The grants that belong to a slot.
    pub(super) fn grants(&mut self, slot: u16) -> &mut Vec<GrantRef> {
        &mut self.slots[usize::from(slot)].grants
    }

    /// Marks a slot as waiting; the id to put on the ring.
    pub(super) fn start(&mut self, slot: u16, piece: Piece) -> u64 {
        let entry = &mut self.slots[usize::from(slot)];
        entry.generation += 1;
        entry.piece = Some(piece);
        entry.generation << 16 | u64::from(slot)
    }

    /// The slot that a response's id names, if it waits for this very id.
    pub(super) fn resolve(&self, id: u64) -> Result<u16, Offence> {
        let slot = (id & 0xffff) as u16;
        let entry = self
            .slots
            .get(usize::from(slot))
            .ok_or(Offence::UnknownId(id))?;
        if entry.piece.is_none() || entry.generation != id >> 16 {
            return Err(Offence::StaleId(id));
        }
        Ok(slot)
    }

    /// What a waiting slot waits for.
    pub(super) fn piece(&self, slot: u16) -> Option<&Piece> {
        self.slots[usize::from(slot)].piece.as_ref()
    }

    /// Ends a slot's wait. Its grants are the caller's to end.
    pub(super) fn finish(&mut self, slot: u16) -> Option<Piece> {
        let piece = self.slots[usize::from(slot)].piece.take()?;
        self.free.push(slot);
        Some(piece)
    }

    /// The slots that wait.
    pub(super) fn waiting(&self) -> Vec<u16> {
        (0u16..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.piece.is_some())
            .map(|(index, _)| index)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece() -> Piece {
        Piece {
            parent: 0,
            operation: Operation::READ,
        }
    }

    #[test]
    fn an_id_is_good_for_one_use() {
        let mut shadow = Shadow::new(2, 0);
        let slot = shadow.take().expect("two slots are free");
        let first = shadow.start(slot, piece());
        assert_eq!(shadow.resolve(first), Ok(slot));
        shadow.finish(slot);
        assert_eq!(shadow.resolve(first), Err(Offence::StaleId(first)));
        let slot = shadow.take().expect("it was given back");
        let second = shadow.start(slot, piece());
        assert_eq!(shadow.resolve(first), Err(Offence::StaleId(first)));
        assert_eq!(shadow.resolve(second), Ok(slot));
        assert_eq!(shadow.resolve(7), Err(Offence::UnknownId(7)));
    }
}
