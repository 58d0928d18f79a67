//! Buffers of an earlier boot, as a restore brings them back.

use crate::shm::Region;

/// Most buffers of one queue.
pub const MOST_BUFFERS: u32 = 1 << 16;

/// A buffer as the earlier boot's queue knew it.
#[derive(Debug)]
pub struct Adopted {
    /// [`Buffer::index`](crate::Buffer::index).
    pub index: u32,
    /// The memory.
    pub region: Region,
    /// Nobody has it: it was given back while the host of that boot had it
    /// mapped. [`Queue::reuse`](crate::Queue::reuse) hands it out again.
    pub parked: bool,
}
