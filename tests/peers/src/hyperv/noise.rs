//! Bytes that go wrong at random: what no list of offences has thought of.

use std::cell::Cell;

/// A source of wrong bytes, by its seed; silent until it is given one.
#[derive(Default)]
pub(super) struct Noise(Cell<u64>);

impl Noise {
    /// Makes noise from now on; zero is silence.
    pub(super) fn set(&self, seed: u64) {
        self.0.set(seed);
    }

    /// A number below `limit`.
    pub(super) fn below(&self, limit: usize) -> usize {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        (state >> 16) as usize % limit.max(1)
    }

    /// Whether something goes wrong now: once in `times`.
    pub(super) fn strikes(&self, times: usize) -> bool {
        self.0.get() != 0 && self.below(times) == 0
    }

    /// A byte that is likely to be believed.
    fn byte(&self, old: u8) -> u8 {
        match self.below(5) {
            0 => 0,
            1 => 0xff,
            2 => old ^ 1 << self.below(8),
            3 => old.wrapping_add(1),
            _ => self.below(256) as u8,
        }
    }

    /// Spoils some bytes, sometimes.
    pub(super) fn spoil(&self, bytes: &mut [u8]) {
        while !bytes.is_empty() && self.strikes(6) {
            let at = self.below(bytes.len());
            bytes[at] = self.byte(bytes[at]);
        }
    }
}
