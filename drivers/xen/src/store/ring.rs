//! The ring page: bytes both ways, indices checked against private copies.
//!
//! Of the shared indices only the server's two are ever read; ours are kept
//! here and only written out. Each is loaded once per use.

use super::error::StoreOffence;
use crate::wire::xs::{
    CONNECTED, FEATURE_ERROR, FEATURE_RECONNECTION, Interface, RECONNECT, RING_SIZE as SIZE,
};
use alloc::collections::VecDeque;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;

const REQ: usize = offset_of!(Interface, req);
const RSP: usize = offset_of!(Interface, rsp);
const REQ_CONS: usize = offset_of!(Interface, req_cons);
const REQ_PROD: usize = offset_of!(Interface, req_prod);
const RSP_CONS: usize = offset_of!(Interface, rsp_cons);
const RSP_PROD: usize = offset_of!(Interface, rsp_prod);
const FEATURES: usize = offset_of!(Interface, server_features);
const CONNECTION: usize = offset_of!(Interface, connection);
const ERROR: usize = offset_of!(Interface, error);

/// What the server says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// In use.
    Up,
    /// Being set up or reset.
    Resetting,
    /// Given up by the server with an error.
    Broken(u32),
}

/// Our end of the ring.
pub(super) struct Ring {
    page: Region,
    req_prod: u32,
    /// Where the server last was; it may only go forward from here.
    req_cons: u32,
    rsp_cons: u32,
}

impl Ring {
    pub(super) const fn new(page: Region) -> Self {
        Self {
            page,
            req_prod: 0,
            req_cons: 0,
            rsp_cons: 0,
        }
    }

    /// Takes the indices as they are in the page, both queues being empty. If
    /// they are not, an earlier user left messages behind.
    pub(super) fn adopt(&mut self) -> bool {
        let index = |at| self.page.atomic_u32(at).load(Acquire);
        let (req_prod, req_cons) = (index(REQ_PROD), index(REQ_CONS));
        let (rsp_prod, rsp_cons) = (index(RSP_PROD), index(RSP_CONS));
        (self.req_prod, self.req_cons, self.rsp_cons) = (req_prod, req_prod, rsp_cons);
        req_prod == req_cons && rsp_prod == rsp_cons
    }

    pub(super) fn can_reconnect(&self) -> bool {
        self.features() & FEATURE_RECONNECTION != 0
    }

    fn features(&self) -> u32 {
        self.page.atomic_u32(FEATURES).load(Relaxed)
    }

    /// Asks the server to reset the connection.
    pub(super) fn ask_for_reset(&self) {
        self.page.atomic_u32(ERROR).store(0, Relaxed);
        self.page.atomic_u32(CONNECTION).store(RECONNECT, SeqCst);
    }

    pub(super) fn connection(&self) -> Result<Connection, StoreOffence> {
        match self.page.atomic_u32(CONNECTION).load(Acquire) {
            CONNECTED => {}
            RECONNECT => return Ok(Connection::Resetting),
            other => return Err(StoreOffence::ConnectionState(other)),
        }
        match self.page.atomic_u32(ERROR).load(Relaxed) {
            0 => Ok(Connection::Up),
            _ if self.features() & FEATURE_ERROR == 0 => Ok(Connection::Up),
            code => Ok(Connection::Broken(code)),
        }
    }

    /// Moves as much of `out` as fits; returns how many bytes.
    pub(super) fn send(&mut self, out: &mut VecDeque<u8>) -> Result<usize, StoreOffence> {
        let cons = self.page.atomic_u32(REQ_CONS).load(Acquire);
        let unread = self.req_prod.wrapping_sub(cons);
        if unread > self.req_prod.wrapping_sub(self.req_cons) {
            let prod = self.req_prod;
            return Err(StoreOffence::RequestIndex { cons, prod });
        }
        self.req_cons = cons;
        let room = (SIZE - unread) as usize;
        let mut sent = 0;
        let (front, back) = out.as_slices();
        for part in [front, back] {
            let part = &part[..part.len().min(room - sent)];
            for_each_run(self.req_prod, part.len(), |at, range| {
                self.page.copy_in(REQ + at, &part[range]);
            });
            self.req_prod = self.req_prod.wrapping_add(part.len() as u32);
            sent += part.len();
        }
        out.drain(..sent);
        if sent > 0 {
            let prod = self.page.atomic_u32(REQ_PROD);
            prod.store(self.req_prod, Release);
        }
        Ok(sent)
    }

    /// Fills as much of `buffer` as there are bytes. The result also tells
    /// whether the server may wait for the room that this made.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), StoreOffence> {
        let shared_prod = self.page.atomic_u32(RSP_PROD);
        let (prod, cons) = (shared_prod.load(Acquire), self.rsp_cons);
        let ready = prod.wrapping_sub(cons);
        if ready > SIZE {
            return Err(StoreOffence::ResponseIndex { prod, cons });
        }
        let len = buffer.len().min(ready as usize);
        if len == 0 {
            return Ok((0, false));
        }
        for_each_run(cons, len, |at, range| {
            self.page.copy_out(RSP + at, &mut buffer[range]);
        });
        self.rsp_cons = cons.wrapping_add(len as u32);
        let shared_cons = self.page.atomic_u32(RSP_CONS);
        shared_cons.store(self.rsp_cons, Release);
        // The server sleeps when it finds the ring full; it may have filled it
        // since `prod` was read and not have seen the new consumer index.
        fence(SeqCst);
        let was_full = shared_prod.load(Relaxed).wrapping_sub(cons) >= SIZE;
        Ok((len, was_full))
    }
}

/// Splits `len` bytes at free-running index `from` where the ring wraps: calls
/// with the offset in the ring and the range of the bytes.
fn for_each_run(from: u32, len: usize, mut run: impl FnMut(usize, core::ops::Range<usize>)) {
    let start = (from % SIZE) as usize;
    let first = len.min(SIZE as usize - start);
    run(start, 0..first);
    if first < len {
        run(0, first..len);
    }
}
