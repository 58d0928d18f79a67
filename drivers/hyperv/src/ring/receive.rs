//! The ring that the host writes.

use super::Data;
use super::offence::Offence;
use crate::wire::ring::{Descriptor, PacketType, TRAILER, control};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;

/// A packet that was copied out of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// What it is.
    pub packet_type: PacketType,
    /// Whose answer it is, or to whom an answer goes.
    pub transaction: u64,
    /// What follows its head, padding included.
    pub data: &'a [u8],
}

/// The guest's end of the incoming ring.
pub struct ReceiveRing {
    data: Data,
    /// Where the next packet is.
    read: u32,
    /// Up to where the host may write.
    committed: u32,
    /// What was written and not read when we last looked.
    available: u32,
    packet: Vec<u8>,
}

impl ReceiveRing {
    pub(super) fn new(memory: Region, longest: u32) -> Self {
        Self {
            data: Data::new(memory),
            read: 0,
            committed: 0,
            available: 0,
            packet: alloc::vec![0; longest as usize],
        }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        self.data.memory.atomic_u32(at)
    }

    /// How far the host has written.
    fn look(&mut self) -> Result<(), Offence> {
        let write = self.word(control::WRITE_INDEX).load(Acquire);
        if write >= self.data.size {
            return Err(Offence::WriteIndexOutside(write));
        }
        if !write.is_multiple_of(8) {
            return Err(Offence::WriteIndexOdd(write));
        }
        let available = self.data.distance(self.read, write);
        // What was read but not committed was not the host's to write.
        let unread = self.data.distance(self.committed, self.read);
        if available < self.available || available + unread >= self.data.size {
            return Err(Offence::WriteIndexGoesBack(write));
        }
        self.available = available;
        Ok(())
    }

    /// Takes the next packet out, if there is one. The host may write over it
    /// after [`ReceiveRing::commit`].
    ///
    /// # Errors
    /// [`Offence`] of the host's index or of the packet.
    pub fn take(&mut self) -> Result<Option<Packet<'_>>, Offence> {
        if self.available == 0 {
            self.look()?;
        }
        if self.available == 0 {
            return Ok(None);
        }
        let written = self.available;
        let mut head = [0; size_of::<Descriptor>()];
        if written < (head.len() + TRAILER) as u32 {
            let bytes = (head.len() + TRAILER) as u32;
            return Err(Offence::PacketTorn { bytes, written });
        }
        self.data.copy_out(self.read, &mut head);
        let descriptor: Descriptor = zerocopy::transmute!(head);
        let Descriptor { offset8, len8, .. } = descriptor;
        if offset8 < 2 || len8 < offset8 {
            return Err(Offence::PacketHead { offset8, len8 });
        }
        let (offset, len) = (usize::from(offset8) * 8, usize::from(len8) * 8);
        let bytes = (len + TRAILER) as u32;
        if bytes > written {
            return Err(Offence::PacketTorn { bytes, written });
        }
        if bytes as usize > self.packet.len() {
            return Err(Offence::PacketTooLong(bytes));
        }
        let data = self.data.after(self.read, offset as u32);
        let to = &mut self.packet[..len - offset];
        self.data.copy_out(data, to);
        self.read = self.data.after(self.read, bytes);
        self.available -= bytes;
        Ok(Some(Packet {
            packet_type: PacketType(descriptor.packet_type),
            transaction: descriptor.transaction,
            data: to,
        }))
    }

    /// Gives the room of what was taken back to the host; whether it is to be
    /// signalled, because it waits for just that much.
    pub fn commit(&mut self) -> bool {
        let freed = self.data.distance(self.committed, self.read);
        if freed == 0 {
            return false;
        }
        self.committed = self.read;
        self.word(control::READ_INDEX).store(self.read, Release);
        // The index must be visible before the host's wish is read: it looks at
        // them in the opposite order before it waits.
        fence(SeqCst);
        let wanted = self.word(control::PENDING_SEND_SIZE).load(Relaxed);
        let supported = self.word(control::FEATURES).load(Relaxed);
        if wanted == 0 || supported & control::SUPPORTS_PENDING_SEND_SIZE == 0 {
            return false;
        }
        let write = self.word(control::WRITE_INDEX).load(Relaxed) % self.data.size;
        let free = self.data.size - self.data.distance(self.read, write);
        // Only the read that makes enough room is told of.
        free > wanted && free.saturating_sub(freed) <= wanted
    }

    /// Whether there is something to take.
    ///
    /// # Errors
    /// [`Offence`] of the host's index.
    pub fn has_packets(&mut self) -> Result<bool, Offence> {
        self.look()?;
        Ok(self.available > 0)
    }

    /// Asks the host for no signals: whoever does that has to look.
    pub fn mask(&self) {
        self.word(control::INTERRUPT_MASK).store(1, Relaxed);
    }

    /// Asks the host for a signal at the next packet; whether there is one
    /// already.
    ///
    /// # Errors
    /// [`Offence`] of the host's index.
    pub fn unmask(&mut self) -> Result<bool, Offence> {
        self.word(control::INTERRUPT_MASK).store(0, Relaxed);
        // The wish must be visible before the index is read: the host looks at
        // them in the opposite order after it writes.
        fence(SeqCst);
        self.has_packets()
    }
}
