//! Bytes that go wrong: what no list of offences has thought of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// A source of wrong bytes: by a seed, or from a tape that somebody else has
/// written. Silent without either.
#[derive(Default)]
pub(super) struct Noise {
    state: Cell<u64>,
    tape: RefCell<VecDeque<u8>>,
}

impl Noise {
    /// Makes noise by a seed from now on; zero is silence.
    pub(super) fn set(&self, seed: u64) {
        self.state.set(seed);
        self.tape.borrow_mut().clear();
    }

    /// Makes noise as a tape says, until it ends.
    pub(super) fn play(&self, tape: &[u8]) {
        self.tape.borrow_mut().extend(tape);
    }

    fn is_silent(&self) -> bool {
        self.state.get() == 0 && self.tape.borrow().is_empty()
    }

    /// A number below `limit`.
    pub(super) fn below(&self, limit: usize) -> usize {
        let taped = {
            let mut tape = self.tape.borrow_mut();
            tape.pop_front().zip(tape.pop_front())
        };
        let number = match taped {
            Some((low, high)) => u64::from(u16::from_le_bytes([low, high])),
            None => self.next() >> 16,
        };
        number as usize % limit.max(1)
    }

    fn next(&self) -> u64 {
        let mut state = self.state.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.state.set(state);
        state
    }

    /// Whether something goes wrong now: once in `times`.
    pub(super) fn strikes(&self, times: usize) -> bool {
        !self.is_silent() && self.below(times) == 0
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
