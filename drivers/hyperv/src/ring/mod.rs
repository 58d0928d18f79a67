//! The two rings of a channel.
//!
//! All decisions are made on private indices. Of the other end's words each is
//! read once per look, and checked: inside the ring, on a packet's boundary, and
//! not beyond what there can be. Full and misused are different things: the first
//! passes, the second is an [`Offence`].

mod offence;
mod receive;
mod send;

pub use offence::Offence;
pub use receive::{Packet, ReceiveRing};
pub use send::SendRing;

use firn_block::PAGE;
use firn_block::shm::Region;

/// Both rings of a channel.
pub struct Ring {
    /// To the host.
    pub send: SendRing,
    /// From the host.
    pub receive: ReceiveRing,
}

impl Ring {
    /// Empty rings in zeroed memory; each a control page and data pages. No packet
    /// of more than `longest` bytes is taken.
    #[must_use]
    pub fn new(send: Region, receive: Region, longest: u32) -> Self {
        Self {
            send: SendRing::new(send),
            receive: ReceiveRing::new(receive, longest),
        }
    }
}

/// The data area of a ring, addressed by offsets that wrap.
struct Data {
    memory: Region,
    size: u32,
}

impl Data {
    fn new(memory: Region) -> Self {
        let size = (memory.len() - PAGE) as u32;
        Self { memory, size }
    }

    /// The offset `by` bytes after `at`; `by` is less than the size.
    const fn after(&self, at: u32, by: u32) -> u32 {
        let next = at + by;
        if next >= self.size {
            next - self.size
        } else {
            next
        }
    }

    /// From one offset forward to another.
    const fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from {
            to - from
        } else {
            to + self.size - from
        }
    }

    /// Copies bytes in; returns the offset after them.
    fn copy_in(&self, at: u32, bytes: &[u8]) -> u32 {
        let room = (self.size - at) as usize;
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.memory.copy_in(PAGE + at as usize, first);
        self.memory.copy_in(PAGE, rest);
        self.after(at, bytes.len() as u32)
    }

    /// Copies bytes out.
    fn copy_out(&self, at: u32, to: &mut [u8]) {
        let room = (self.size - at) as usize;
        let split = to.len().min(room);
        let (first, rest) = to.split_at_mut(split);
        self.memory.copy_out(PAGE + at as usize, first);
        self.memory.copy_out(PAGE, rest);
    }
}
