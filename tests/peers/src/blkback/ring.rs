//! The backend's end of the block ring (`io/ring.h`).

use crate::machine::{Channel, Mapping};
use firn_block::PAGE;
use firn_xen::wire::blkif::{ENTRY_SIZE, Response};
use firn_xen::wire::ring::{ENTRIES, Header};
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

/// A request as it was copied out of the ring.
pub(super) type Raw = [u8; ENTRY_SIZE];

/// How many requests a ring of so many pages holds.
pub(super) fn capacity(pages: usize) -> u32 {
    let fit = (pages * PAGE - ENTRIES) / ENTRY_SIZE;
    1 << fit.ilog2()
}

/// A connected ring. Indices are private copies; the shared ones are written
/// from them.
pub(super) struct BackRing {
    pages: Vec<Mapping>,
    channel: Channel,
    size: u32,
    req_cons: u32,
    rsp_prod: u32,
    /// How far the answers were announced.
    published: u32,
}

impl BackRing {
    pub(super) fn new(pages: Vec<Mapping>, channel: Channel) -> Self {
        let size = capacity(pages.len());
        let ring = Self {
            pages,
            channel,
            size,
            req_cons: 0,
            rsp_prod: 0,
            published: 0,
        };
        let rsp_prod = ring.rsp_prod_shared().load(Acquire);
        Self {
            req_cons: rsp_prod,
            rsp_prod,
            published: rsp_prod,
            ..ring
        }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        self.pages[0].page().atomic_u32(offset)
    }

    fn req_prod_shared(&self) -> &AtomicU32 {
        self.word(offset_of!(Header, req_prod))
    }

    fn rsp_prod_shared(&self) -> &AtomicU32 {
        self.word(offset_of!(Header, rsp_prod))
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Requests taken and not answered.
    pub(super) const fn outstanding(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    fn slot(&self, index: u32) -> usize {
        ENTRIES + (index & (self.size - 1)) as usize * ENTRY_SIZE
    }

    /// Pages and offsets of a slot, which may lie across two pages.
    fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let first = len.min(PAGE - offset % PAGE);
        let pieces = [(offset, 0, first), (offset + first, first, len - first)];
        pieces
            .into_iter()
            .filter(|(_, _, len)| *len > 0)
            .map(|(at, from, len)| (at / PAGE, at % PAGE, from, len))
    }

    fn read_slot(&self, index: u32) -> Raw {
        let mut raw = [0; ENTRY_SIZE];
        for (page, at, from, len) in Self::pieces(self.slot(index), ENTRY_SIZE) {
            let page = self.pages[page].page();
            page.copy_out(at, &mut raw[from..from + len]);
        }
        raw
    }

    fn write_slot(&self, index: u32, bytes: &[u8]) {
        for (page, at, from, len) in Self::pieces(self.slot(index), bytes.len()) {
            let page = self.pages[page].page();
            page.copy_in(at, &bytes[from..from + len]);
        }
    }

    /// Takes the next request.
    ///
    /// # Errors
    /// What the guest's index is, when it claims more requests than fit.
    pub(super) fn take(&mut self) -> Result<Option<Raw>, u32> {
        let prod = self.req_prod_shared().load(Acquire);
        if prod.wrapping_sub(self.rsp_prod) > self.size {
            return Err(prod);
        }
        if prod == self.req_cons {
            return Ok(None);
        }
        let raw = self.read_slot(self.req_cons);
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(raw))
    }

    /// Asks for an event at the next request and looks once more: whether there
    /// is one already.
    pub(super) fn final_check(&self) -> bool {
        let event = self.word(offset_of!(Header, req_event));
        event.store(self.req_cons.wrapping_add(1), Relaxed);
        fence(SeqCst);
        self.req_prod_shared().load(Acquire) != self.req_cons
    }

    /// Asks for an event only after 2^32 requests.
    pub(super) fn never_wake(&self) {
        let event = self.word(offset_of!(Header, req_event));
        event.store(self.req_cons, Relaxed);
    }

    /// Places an answer; the guest does not see it before `publish`.
    pub(super) fn answer(&mut self, response: &Response) {
        let mut bytes = [0; size_of::<Response>()];
        bytes[..8].copy_from_slice(&response.id.to_le_bytes());
        bytes[8] = response.operation;
        bytes[10..12].copy_from_slice(&response.status.to_le_bytes());
        self.write_slot(self.rsp_prod, &bytes);
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
    }

    /// Announces what was answered. Says whether the guest wants an event.
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.rsp_prod);
        if old == new {
            return false;
        }
        self.published = new;
        self.rsp_prod_shared().store(new, Release);
        fence(SeqCst);
        let event = self.word(offset_of!(Header, rsp_event)).load(Relaxed);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }

    // Ways to break the rules.

    pub(super) fn run_away(&self) {
        let beyond = self.req_prod_shared().load(Relaxed).wrapping_add(1);
        self.rsp_prod_shared().store(beyond, Release);
    }

    pub(super) fn go_back(&self) {
        let back = self.rsp_prod.wrapping_sub(1);
        self.rsp_prod_shared().store(back, Release);
    }

    /// Writes nonsense into every slot that holds a request on the way.
    pub(super) fn scribble(&self) {
        for i in 0..self.outstanding() {
            let index = self.rsp_prod.wrapping_add(i);
            self.write_slot(index, &[0xa5; ENTRY_SIZE]);
        }
    }

    /// Writes a word anywhere into the ring's pages.
    pub(super) fn poke(&self, word: usize, value: u32) {
        let words = self.pages.len() * PAGE / 4;
        let at = word % words * 4;
        let page = self.pages[at / PAGE].page();
        page.atomic_u32(at % PAGE).store(value, Release);
    }

    pub(super) fn overwrite_request_index(&self) {
        self.req_prod_shared().store(0xdead_beef, Release);
    }
}
