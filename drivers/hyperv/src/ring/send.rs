//! The ring that the guest writes.

use super::Data;
use super::offence::Offence;
use crate::wire::ring::{Descriptor, PacketType, TRAILER, control};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;
use zerocopy::IntoBytes;

/// The guest's end of the outgoing ring.
pub struct SendRing {
    data: Data,
    /// Where the next packet goes.
    write: u32,
    /// Up to where the host may read.
    published: u32,
    /// How far the host had read when we last looked.
    read: u32,
    /// Whether the host was told what room is waited for.
    waits: bool,
}

impl SendRing {
    pub(super) fn new(memory: Region) -> Self {
        let features = memory.atomic_u32(control::FEATURES);
        features.store(control::SUPPORTS_PENDING_SEND_SIZE, Release);
        Self {
            data: Data::new(memory),
            write: 0,
            published: 0,
            read: 0,
            waits: false,
        }
    }

    fn word(&self, at: usize) -> &core::sync::atomic::AtomicU32 {
        self.data.memory.atomic_u32(at)
    }

    /// How far the host has read; at most up to what it was shown.
    fn look(&mut self) -> Result<(), Offence> {
        let read = self.word(control::READ_INDEX).load(Acquire);
        if read >= self.data.size {
            return Err(Offence::ReadIndexOutside(read));
        }
        if !read.is_multiple_of(8) {
            return Err(Offence::ReadIndexOdd(read));
        }
        let shown = self.data.distance(self.read, self.published);
        if self.data.distance(self.read, read) > shown {
            return Err(Offence::ReadIndexRunsAway(read));
        }
        self.read = read;
        Ok(())
    }

    /// Bytes that can be written; a ring is never filled to the last byte, as it
    /// would look empty.
    const fn free(&self) -> u32 {
        self.data.size - self.data.distance(self.read, self.write)
    }

    /// Whether the host has read everything that was written.
    ///
    /// # Errors
    /// [`Offence`] of the host's read index.
    pub fn is_empty(&mut self) -> Result<bool, Offence> {
        self.look()?;
        Ok(self.read == self.write)
    }

    /// Writes a packet, to be shown to the host by [`SendRing::publish`]: `head`
    /// is what stands between descriptor and data, in words of 8 bytes. Returns
    /// whether there was room; where there was not, the host is asked to signal
    /// when there is.
    ///
    /// # Errors
    /// [`Offence`] of the host's read index.
    pub fn push(
        &mut self,
        packet_type: PacketType,
        flags: u16,
        transaction: u64,
        head: &[u64],
        data: &[u8],
    ) -> Result<bool, Offence> {
        let offset = size_of::<Descriptor>() + 8 * head.len();
        let bytes = offset + data.len().next_multiple_of(8);
        let total = bytes + TRAILER;
        if total >= self.free() as usize {
            self.look()?;
        }
        if total >= self.free() as usize {
            let wanted = u32::try_from(total).unwrap_or(u32::MAX);
            self.word(control::PENDING_SEND_SIZE).store(wanted, SeqCst);
            self.waits = true;
            // The host may have made room before it could see the wish.
            self.look()?;
            if total >= self.free() as usize {
                return Ok(false);
            }
        }
        if self.waits {
            self.word(control::PENDING_SEND_SIZE).store(0, Release);
            self.waits = false;
        }
        let descriptor = Descriptor {
            packet_type: packet_type.0,
            offset8: (offset / 8) as u16,
            len8: (bytes / 8) as u16,
            flags,
            transaction,
        };
        let start = self.write;
        let mut at = self.data.copy_in(start, descriptor.as_bytes());
        at = self.data.copy_in(at, head.as_bytes());
        at = self.data.copy_in(at, data);
        at = self
            .data
            .copy_in(at, &[0; 8][..bytes - offset - data.len()]);
        let trailer = u64::from(start) << 32;
        self.write = self.data.copy_in(at, trailer.as_bytes());
        Ok(true)
    }

    /// Shows the host what was written; whether it is to be signalled. It is only
    /// when the ring was empty and the host has not said that it looks by itself:
    /// hosts take needless signals for an attack.
    ///
    /// # Errors
    /// [`Offence`] of the host's read index.
    pub fn publish(&mut self) -> Result<bool, Offence> {
        if self.write == self.published {
            return Ok(false);
        }
        let before = self.published;
        self.word(control::WRITE_INDEX).store(self.write, Release);
        self.published = self.write;
        // The new index must be visible before the host's words are read: it
        // looks at them in the opposite order before it sleeps.
        fence(SeqCst);
        if self.word(control::INTERRUPT_MASK).load(Relaxed) != 0 {
            return Ok(false);
        }
        self.look()?;
        Ok(self.read == before)
    }
}
