//! Buffers of an earlier boot: a restore brings them back in job memory, with the
//! numbers that the queue of that boot gave them, on whatever host that was.

use super::buffers::Buffers;
use super::front::Front;
use crate::hal::Hal;
use core::fmt;
use firn_block::Adopted;

/// Buffers could not be adopted; the queue has none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// Somebody has a buffer that was registered in this boot.
    Lent,
    /// The number is used twice, or too large.
    Index(u32),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lent => f.write_str("buffers of this boot are registered with the disk"),
            Self::Index(index) => write!(f, "buffer {index} of the image cannot be"),
        }
    }
}

impl core::error::Error for AdoptError {}

impl<H: Hal> Front<H> {
    /// What [`Buffer::queue`](firn_block::Buffer::queue) says of this queue's
    /// buffers: to be saved beside them.
    #[must_use]
    pub const fn queue(&self) -> u32 {
        self.buffers.queue()
    }

    /// A number that no token of this queue has reached: to be saved as well.
    #[must_use]
    pub const fn next_token(&self) -> u64 {
        self.accepted.next_token()
    }

    /// Takes over the buffers of an earlier boot's queue, under their numbers:
    /// whoever has one goes on using it here. The disk may have another name now,
    /// so `queue` replaces this queue's own number. Tokens go on from
    /// `next_token`, so that none of the earlier boot's is given out twice.
    ///
    /// # Errors
    /// [`AdoptError`]; nothing is adopted then.
    pub fn adopt(
        &mut self,
        queue: u32,
        next_token: u64,
        buffers: impl IntoIterator<Item = Adopted>,
    ) -> Result<(), AdoptError> {
        if self.buffers.any_lent() {
            return Err(AdoptError::Lent);
        }
        self.buffers = Buffers::adopt(queue, buffers)?;
        self.accepted.skip_tokens(next_token);
        Ok(())
    }
}
