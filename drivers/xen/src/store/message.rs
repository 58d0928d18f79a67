//! Messages: a header and up to 4096 bytes, cut out of a stream of bytes.

use super::error::{StoreError, StoreOffence};
use super::ring::Ring;
use crate::wire::xs::{Header, MessageType, PAYLOAD_MAX};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use zerocopy::{FromZeros, IntoBytes};

const HEADER: usize = size_of::<Header>();

/// Appends a message to the bytes that wait to be sent. The payload consists of
/// `parts`, together at most [`PAYLOAD_MAX`] bytes: the caller checked that.
pub(super) fn encode(
    out: &mut VecDeque<u8>,
    what: MessageType,
    req_id: u32,
    tx_id: u32,
    parts: &[&[u8]],
) {
    let header = Header {
        ty: what.0,
        req_id,
        tx_id,
        len: parts.iter().map(|part| part.len() as u32).sum(),
    };
    out.extend(header.as_bytes());
    for part in parts {
        out.extend(*part);
    }
}

/// A message being received.
pub(super) struct Inbox {
    buffer: Box<[u8; HEADER + PAYLOAD_MAX]>,
    have: usize,
    /// The header, once it is complete and its length was checked.
    header: Option<Header>,
}

/// One step of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// No bytes are there.
    Nothing,
    /// Some bytes, but no whole message yet.
    Some,
    /// A message: see [`Inbox::payload`].
    Message(Header),
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            buffer: Box::new([0; HEADER + PAYLOAD_MAX]),
            have: 0,
            header: None,
        }
    }

    /// Forgets a message of which only a part came.
    pub(super) const fn clear(&mut self) {
        self.have = 0;
        self.header = None;
    }

    /// Takes bytes from the ring, up to the end of the header or the message.
    /// The flag tells whether the server may wait for the room.
    pub(super) fn receive(&mut self, ring: &mut Ring) -> Result<(Received, bool), StoreError> {
        let payload = self.header.map_or(0, |header| header.len as usize);
        let (len, wake) = ring.receive(&mut self.buffer[self.have..HEADER + payload])?;
        self.have += len;
        if self.header.is_none() && self.have == HEADER {
            self.header = Some(self.checked_header()?);
        }
        match self.header {
            Some(header) if self.have == HEADER + header.len as usize => {
                self.clear();
                Ok((Received::Message(header), wake))
            }
            _ if len == 0 => Ok((Received::Nothing, wake)),
            _ => Ok((Received::Some, wake)),
        }
    }

    fn checked_header(&self) -> Result<Header, StoreOffence> {
        let mut header = Header::new_zeroed();
        header
            .as_mut_bytes()
            .copy_from_slice(&self.buffer[..HEADER]);
        if header.len as usize > PAYLOAD_MAX {
            return Err(StoreOffence::PayloadTooLong { len: header.len });
        }
        Ok(header)
    }

    /// The payload of the message that was just received.
    pub(super) fn payload(&self, header: &Header) -> &[u8] {
        &self.buffer[HEADER..HEADER + header.len as usize]
    }
}
