//! Buffers of an earlier boot: a restore brings them back in job memory, with
//! the numbers that the queue of that boot gave them.

use super::buffers::Buffers;
use super::front::Front;
use crate::grant::GrantError;
use crate::hal::Hal;
use core::fmt;

pub use firn_block::Adopted;

/// Buffers could not be adopted; the queue has none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptError {
    /// Somebody has a buffer that was registered in this boot.
    Lent,
    /// The number is used twice, or too large.
    Index(u32),
    /// No grants for a backend that keeps them mapped.
    Grant(GrantError),
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lent => f.write_str("buffers of this boot are registered with the disk"),
            Self::Index(index) => write!(f, "buffer {index} of the image cannot be"),
            Self::Grant(error) => write!(f, "{error}"),
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
    /// whoever has one goes on using it here. The disk may have another name
    /// now, so `queue` replaces this queue's own number. Tokens go on from
    /// `next_token`, so that none of the earlier boot's is given out twice.
    ///
    /// What the backend can do makes no difference to a buffer. If it keeps
    /// grants mapped, the pages are granted now, or when it connects. Smaller
    /// requests and rings than the earlier boot's only mean that requests are
    /// sent in more pieces; the only limit of which one may run out is grant
    /// references.
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
        let mut adopted = Buffers::adopt(queue, buffers)?;
        let link = self.link.as_ref();
        let met = link.map(|link| adopted.meet(&self.xen, link.backend, link.persistent));
        if let Some(Err(error)) = met {
            adopted.revoke_all(&self.xen);
            return Err(AdoptError::Grant(error));
        }
        // What the kernel looked at the disk with it may need again. Nobody can
        // ask for anything else that this boot had parked under its own number.
        adopted.inherit(&mut self.buffers);
        self.buffers.revoke_all(&self.xen);
        self.buffers = adopted;
        self.accepted.skip_tokens(next_token);
        Ok(())
    }
}
