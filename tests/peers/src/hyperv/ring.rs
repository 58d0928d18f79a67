//! The host's end of a channel's rings.

use super::bytes::{u16_at, u64_at};
use firn_block::PAGE;
use firn_block::shm::Region;
use std::sync::atomic::Ordering::SeqCst;

const WRITE: usize = 0;
const READ: usize = 4;
const MASK: usize = 8;
const FEATURES: usize = 64;

/// Pages of the guest's, as a GPADL lists them: one after the other.
pub(super) struct Pages(pub(super) Vec<Region>);

impl Pages {
    fn word(&self, at: usize) -> u32 {
        self.0[0].atomic_u32(at).load(SeqCst)
    }

    fn set(&self, at: usize, value: u32) {
        self.0[0].atomic_u32(at).store(value, SeqCst);
    }

    /// Bytes of the data area.
    fn size(&self) -> u32 {
        ((self.0.len() - 1) * PAGE) as u32
    }

    /// Page, offset in it, and room there, of an offset in the data area.
    fn place(&self, at: u32) -> (&Region, usize, usize) {
        let at = (at % self.size()) as usize;
        (&self.0[1 + at / PAGE], at % PAGE, PAGE - at % PAGE)
    }

    fn copy_out(&self, mut at: u32, to: &mut [u8]) {
        let mut rest = to;
        while !rest.is_empty() {
            let (page, offset, room) = self.place(at);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            page.copy_out(offset, now);
            at += now.len() as u32;
            rest = later;
        }
    }

    fn copy_in(&self, mut at: u32, from: &[u8]) {
        let mut rest = from;
        while !rest.is_empty() {
            let (page, offset, room) = self.place(at);
            let (now, later) = rest.split_at(room.min(rest.len()));
            page.copy_in(offset, now);
            at += now.len() as u32;
            rest = later;
        }
    }
}

/// A packet of the guest's.
pub(super) struct Raw {
    pub(super) packet_type: u16,
    pub(super) flags: u16,
    pub(super) transaction: u64,
    /// What stands between the descriptor and the data.
    pub(super) head: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// Both rings, from the host's side.
pub(super) struct HostRing {
    incoming: Pages,
    outgoing: Pages,
    read: u32,
    write: u32,
}

impl HostRing {
    pub(super) fn new(incoming: Pages, outgoing: Pages) -> Self {
        // Says that it waits for room where there is none.
        outgoing.set(FEATURES, 1);
        Self {
            incoming,
            outgoing,
            read: 0,
            write: 0,
        }
    }

    /// Whether this end wants no signals.
    pub(super) fn mask(&self, on: bool) {
        self.incoming.set(MASK, on.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.word(WRITE) == self.read
    }

    /// Takes the guest's next packet; what is wrong with it, if something is.
    pub(super) fn next(&mut self) -> Result<Option<Raw>, String> {
        let (size, write) = (self.incoming.size(), self.incoming.word(WRITE));
        if write >= size || !write.is_multiple_of(8) {
            return Err(format!("write index {write:#x}"));
        }
        let available = (write + size - self.read) % size;
        if available == 0 {
            return Ok(None);
        }
        let mut descriptor = [0; 16];
        self.incoming.copy_out(self.read, &mut descriptor);
        let (offset, len) = (
            u32::from(u16_at(&descriptor, 2)) * 8,
            u32::from(u16_at(&descriptor, 4)) * 8,
        );
        if offset < 16 || len < offset || len + 8 > available {
            return Err(format!("packet {offset}/{len}, {available} written"));
        }
        let mut all = vec![0; len as usize + 8];
        self.incoming.copy_out(self.read, &mut all);
        if u64_at(&all, len as usize) != u64::from(self.read) << 32 {
            return Err("wrong trailer".to_owned());
        }
        self.read = (self.read + len + 8) % size;
        self.incoming.set(READ, self.read);
        Ok(Some(Raw {
            packet_type: u16_at(&descriptor, 0),
            flags: u16_at(&descriptor, 6),
            transaction: u64_at(&descriptor, 8),
            head: all[16..offset as usize].to_vec(),
            data: all[offset as usize..len as usize].to_vec(),
        }))
    }

    /// Sends a packet: whether the guest wants a signal, or `None` if there is no
    /// room. `shape` is what its descriptor says of offset and length, in units
    /// of 8 bytes, where that is not the truth.
    pub(super) fn send(
        &mut self,
        packet_type: u16,
        transaction: u64,
        data: &[u8],
        shape: Option<[u16; 2]>,
    ) -> Option<bool> {
        let size = self.outgoing.size();
        let read = self.outgoing.word(READ) % size;
        let used = (self.write + size - read) % size;
        let len = 16 + data.len().next_multiple_of(8);
        if len + 8 >= (size - used) as usize {
            self.outgoing.set(12, len as u32 + 8);
            return None;
        }
        self.outgoing.set(12, 0);
        let [offset8, len8] = shape.unwrap_or([2, (len / 8) as u16]);
        let mut packet = Vec::with_capacity(len + 8);
        for half in [packet_type, offset8, len8, 0] {
            packet.extend(half.to_le_bytes());
        }
        packet.extend(transaction.to_le_bytes());
        packet.extend(data);
        packet.resize(len, 0);
        packet.extend((u64::from(self.write) << 32).to_le_bytes());
        self.outgoing.copy_in(self.write, &packet);
        let was_empty = used == 0;
        self.write = (self.write + packet.len() as u32) % size;
        self.outgoing.set(WRITE, self.write);
        Some(was_empty && self.outgoing.word(MASK) == 0)
    }

    /// Says that it has read up to somewhere.
    pub(super) fn pretend_read(&self, index: u32) {
        self.incoming.set(READ, index);
    }

    /// Where it has really read up to.
    pub(super) const fn read_index(&self) -> u32 {
        self.read
    }

    /// Bytes of the guest's ring.
    pub(super) fn incoming_size(&self) -> u32 {
        self.incoming.size()
    }

    /// Says that it has written up to somewhere.
    pub(super) fn pretend_write(&self, index: u32) {
        self.outgoing.set(WRITE, index);
    }

    /// Where it has really written up to.
    pub(super) const fn write_index(&self) -> u32 {
        self.write
    }

    /// Bytes of the host's ring.
    pub(super) fn outgoing_size(&self) -> u32 {
        self.outgoing.size()
    }
}
