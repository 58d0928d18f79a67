//! What is known about each request on the ring, out of the backend's reach.

use super::offence::Offence;
use crate::wire::blkif::Operation;
use crate::wire::grant_table::GrantRef;
use alloc::vec::Vec;
use firn_block::slots::{Slots, WrongId};

/// One request on the ring: a whole request, or a piece of one.
#[derive(Debug)]
pub(super) struct Piece {
    /// Which accepted request it belongs to.
    pub(super) parent: u16,
    /// What the response must name.
    pub(super) operation: Operation,
}

/// A slot per ring entry. Each keeps the grants that were made for its piece
/// alone.
pub(super) type Shadow = Slots<Piece, Vec<GrantRef>>;

/// `size` idle slots with room for `segments` grants each.
pub(super) fn shadow(size: u32, segments: usize) -> Shadow {
    Slots::new(size, || Vec::with_capacity(segments))
}

impl From<WrongId> for Offence {
    fn from(wrong: WrongId) -> Self {
        match wrong {
            WrongId::Unknown(id) => Self::UnknownId(id),
            WrongId::Stale(id) => Self::StaleId(id),
        }
    }
}
