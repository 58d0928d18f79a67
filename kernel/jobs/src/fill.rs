//! Memory full of known data: what an image of that size holds.

use crate::lang::Content;
use crate::rng::{Rng, mix};
use alloc::vec::Vec;

/// Bytes of a piece; small enough to find room between other allocations.
pub(crate) const PIECE: u64 = 64 << 10;

/// Words of a piece.
const WORDS: usize = (PIECE / 8) as usize;

/// Memory that was filled.
pub(crate) struct Filled {
    seed: u64,
    data: Content,
    pieces: Vec<Vec<u64>>,
}

impl Filled {
    /// Room for `bytes` bytes, none of it filled. `None` without enough memory.
    pub(crate) fn room(bytes: u64, seed: u64, data: Content) -> Option<Self> {
        let count = usize::try_from(bytes / PIECE).ok()?;
        let mut pieces = Vec::new();
        pieces.try_reserve_exact(count).ok()?;
        Some(Self { seed, data, pieces })
    }

    /// Fills one more piece. `None` when memory has run out.
    pub(crate) fn add(&mut self) -> Option<()> {
        if self.pieces.len() == self.pieces.capacity() {
            return None;
        }
        let mut piece = Vec::new();
        piece.try_reserve_exact(WORDS).ok()?;
        piece.extend(words(self.seed, self.data, self.pieces.len()).take(WORDS));
        self.pieces.push(piece);
        Some(())
    }

    /// How many pieces there are.
    pub(crate) fn count(&self) -> usize {
        self.pieces.len()
    }

    /// Compares one piece with what was put there.
    ///
    /// # Errors
    /// Where the first wrong word is, in bytes from the start of the fill.
    pub(crate) fn check(&self, index: usize) -> Result<(), u64> {
        let piece = self.pieces.get(index).map_or(&[][..], Vec::as_slice);
        let expected = words(self.seed, self.data, index).take(WORDS);
        let differs = |(found, expected): (&u64, u64)| *found != expected;
        let at = match piece.iter().zip(expected).position(differs) {
            None if piece.len() == WORDS => return Ok(()),
            None => 0,
            Some(word) => word as u64 * 8,
        };
        Err(index as u64 * PIECE + at)
    }
}

/// The words of a piece; none of its pages is zero, or equal to another.
fn words(seed: u64, data: Content, piece: usize) -> impl Iterator<Item = u64> {
    let mut random = Rng::new(mix(seed ^ mix(piece as u64 + 1)));
    let mut line = 0;
    (0..).map(move |at: u64| match data {
        Content::Random => random.next_u64(),
        Content::Text => {
            // A number, then words of which most are as before.
            if at.is_multiple_of(32) {
                line = random.next_u64();
                line
            } else {
                u64::from_le_bytes(*b"a ledger") ^ (line >> 56)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_is_found_and_a_changed_bit_is_named() {
        for data in [Content::Random, Content::Text] {
            let mut filled = Filled::room(3 * PIECE, 7, data).expect("room");
            while filled.add().is_some() {}
            assert_eq!(filled.count(), 3);
            assert!((0..3).all(|piece| filled.check(piece).is_ok()));
            filled.pieces[1][5] ^= 1 << 40;
            assert_eq!(filled.check(1), Err(PIECE + 40));
            filled.pieces[2].pop();
            assert_eq!(filled.check(2), Err(2 * PIECE));
        }
    }

    #[test]
    fn no_page_is_zero_or_like_another() {
        for data in [Content::Random, Content::Text] {
            let mut filled = Filled::room(2 * PIECE, 1, data).expect("room");
            while filled.add().is_some() {}
            let pages = filled.pieces.iter().flat_map(|piece| piece.chunks(512));
            let mut pages: Vec<_> = pages.collect();
            assert!(pages.iter().all(|page| page.iter().all(|word| *word != 0)));
            pages.sort_unstable();
            pages.dedup();
            assert_eq!(pages.len(), 32);
        }
    }
}
