//! The ring page: bytes both ways, and the state of the connection.

use super::error::{StoreError, StoreOffence};
use crate::byte_ring::{Consumer, Place, Producer};
use crate::wire::xs::{
    CONNECTED, FEATURE_ERROR, FEATURE_RECONNECTION, Interface, RECONNECT, RING_SIZE,
};
use alloc::collections::VecDeque;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use firn_block::shm::Region;

const REQUESTS: Place = Place {
    data: offset_of!(Interface, req),
    size: RING_SIZE,
    prod: offset_of!(Interface, req_prod),
    cons: offset_of!(Interface, req_cons),
};
const REPLIES: Place = Place {
    data: offset_of!(Interface, rsp),
    size: RING_SIZE,
    prod: offset_of!(Interface, rsp_prod),
    cons: offset_of!(Interface, rsp_cons),
};
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
    requests: Producer,
    replies: Consumer,
}

impl Ring {
    pub(super) fn new(page: Region) -> Self {
        Self {
            requests: Producer::new(page.alias(), REQUESTS),
            replies: Consumer::new(page.alias(), REPLIES),
            page,
        }
    }

    /// Starts with the indices in the page. Returns whether both queues are
    /// empty; if not, an earlier user left messages behind.
    pub(super) fn adopt(&mut self) -> bool {
        (self.requests.adopt(), self.replies.adopt()) == (0, 0)
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
    pub(super) fn send(&mut self, out: &mut VecDeque<u8>) -> Result<usize, StoreError> {
        let sent = self.requests.send(out);
        sent.map_err(|bad| {
            self.impossible(StoreOffence::RequestIndex {
                cons: bad.theirs,
                prod: bad.ours,
            })
        })
    }

    /// Fills as much of `buffer` as there are bytes. The flag tells whether the
    /// server may wait for the room that this made.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), StoreError> {
        let received = self.replies.receive(buffer);
        received.map_err(|bad| {
            self.impossible(StoreOffence::ResponseIndex {
                prod: bad.theirs,
                cons: bad.ours,
            })
        })
    }

    /// An index that cannot be true is an offence, unless the server has reset
    /// the connection and we saw neither the beginning nor the end of that.
    fn impossible(&self, offence: StoreOffence) -> StoreError {
        if self.requests.is_zeroed() && self.replies.is_zeroed() {
            return StoreError::Reset;
        }
        offence.into()
    }
}
