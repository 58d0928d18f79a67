//! The store's ring page: bytes in, bytes out, and how to spoil them.

use super::offence::StoreOffence;
use super::server::Message;
use crate::machine::Channel;
use firn_block::shm::Region;
use firn_xen::wire::xs::{
    CONNECTED, FEATURE_ERROR, FEATURE_RECONNECTION, Header, Interface, MessageType, PAYLOAD_MAX,
    RECONNECT, RING_SIZE,
};
use std::collections::VecDeque;
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const HEADER: usize = size_of::<Header>();
/// `XENSTORE_ERROR_RINGIDX` and `XENSTORE_ERROR_PROTO`.
const ERROR_RING_INDEX: u32 = 2;
const ERROR_PROTOCOL: u32 = 3;

/// The guest's connection.
pub(super) struct Ring {
    page: Region,
    channel: Channel,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    /// How far requests were read and replies written.
    req_cons: u32,
    rsp_prod: u32,
    /// The guest broke the protocol and is not listened to any more.
    ignored: bool,
    /// The ring was full: wait for the guest to say that it made room.
    blocked: bool,
    /// At most so many bytes go each way in a step.
    pub(super) pace: usize,
}

impl Ring {
    pub(super) fn new(page: Region, channel: Channel) -> Self {
        let ring = Self {
            page,
            channel,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            req_cons: 0,
            rsp_prod: 0,
            ignored: false,
            blocked: false,
            pace: usize::MAX,
        };
        let features = offset_of!(Interface, server_features);
        let offered = FEATURE_RECONNECTION | FEATURE_ERROR;
        ring.page.atomic_u32(features).store(offered, Release);
        ring
    }

    /// Goes on over another channel; the old one is closed.
    pub(super) fn listen(&mut self, channel: Channel) {
        self.channel = channel;
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        self.page.atomic_u32(offset)
    }

    fn shared_req_cons(&self) -> &AtomicU32 {
        self.word(offset_of!(Interface, req_cons))
    }

    fn req_prod(&self) -> &AtomicU32 {
        self.word(offset_of!(Interface, req_prod))
    }

    fn rsp_cons(&self) -> &AtomicU32 {
        self.word(offset_of!(Interface, rsp_cons))
    }

    fn shared_rsp_prod(&self) -> &AtomicU32 {
        self.word(offset_of!(Interface, rsp_prod))
    }

    fn connection(&self) -> &AtomicU32 {
        self.word(offset_of!(Interface, connection))
    }

    fn ignore(&mut self, error: u32) {
        self.ignored = true;
        self.word(offset_of!(Interface, error))
            .store(error, Release);
    }

    /// Whether the guest sent an event or there is work left from last time.
    pub(super) fn is_woken(&mut self) -> bool {
        let event = self.channel.take_pending();
        if event {
            self.blocked = false;
        }
        let unread = self.pace < usize::MAX && self.req_prod().load(Acquire) != self.req_cons;
        event || unread
    }

    pub(super) fn wants_reconnect(&self) -> bool {
        self.connection().load(Acquire) == RECONNECT
    }

    /// Announces a reset by the host: the guest has to wait.
    pub(super) fn announce_reset(&self) {
        self.connection().store(RECONNECT, Release);
        self.channel.notify();
    }

    /// Empties both directions and connects.
    pub(super) fn reconnect(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        (self.ignored, self.blocked) = (false, false);
        (self.req_cons, self.rsp_prod) = (0, 0);
        for index in [
            self.shared_req_cons(),
            self.req_prod(),
            self.rsp_cons(),
            self.shared_rsp_prod(),
        ] {
            index.store(0, Relaxed);
        }
        self.word(offset_of!(Interface, error)).store(0, Relaxed);
        self.connection().store(CONNECTED, Release);
        self.channel.notify();
    }

    pub(super) fn notify(&self) {
        self.channel.notify();
    }

    /// Takes what the guest wrote. Returns whether there was anything.
    pub(super) fn receive(&mut self) -> bool {
        let (prod, cons) = (self.req_prod().load(Acquire), self.req_cons);
        let available = prod.wrapping_sub(cons);
        if self.ignored || available == 0 {
            return false;
        }
        if available > RING_SIZE {
            self.ignore(ERROR_RING_INDEX);
            return false;
        }
        let take = self.pace.min(available as usize);
        for i in 0..take {
            let at = (cons.wrapping_add(i as u32) % RING_SIZE) as usize;
            let byte = self.page.atomic_u8(offset_of!(Interface, req) + at);
            self.incoming.push(byte.load(Relaxed));
        }
        self.req_cons = cons.wrapping_add(take as u32);
        self.shared_req_cons().store(self.req_cons, Release);
        true
    }

    /// The next whole request.
    pub(super) fn next_request(&mut self) -> Option<Message> {
        let word = |at: usize| {
            let bytes = self.incoming.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let header = Header {
            ty: word(0)?,
            req_id: word(4)?,
            tx_id: word(8)?,
            len: word(12)?,
        };
        let len = header.len as usize;
        if len > PAYLOAD_MAX {
            self.ignore(ERROR_PROTOCOL);
            return None;
        }
        if self.incoming.len() < HEADER + len {
            return None;
        }
        let payload = self.incoming[HEADER..HEADER + len].to_vec();
        self.incoming.drain(..HEADER + len);
        Some(Message { header, payload })
    }

    /// Moves bytes to the guest while there is room. Returns whether any went.
    pub(super) fn send(&mut self) -> bool {
        if self.outgoing.is_empty() || self.blocked || self.ignored {
            return false;
        }
        let (prod, cons) = (self.rsp_prod, self.rsp_cons().load(Acquire));
        let used = prod.wrapping_sub(cons);
        if used > RING_SIZE {
            self.ignore(ERROR_RING_INDEX);
            return false;
        }
        let room = (RING_SIZE - used) as usize;
        let count = room.min(self.outgoing.len()).min(self.pace);
        self.blocked = count == room && room < self.outgoing.len();
        for (i, byte) in self.outgoing.drain(..count).enumerate() {
            let at = (prod.wrapping_add(i as u32) % RING_SIZE) as usize;
            let slot = self.page.atomic_u8(offset_of!(Interface, rsp) + at);
            slot.store(byte, Relaxed);
        }
        self.rsp_prod = prod.wrapping_add(count as u32);
        self.shared_rsp_prod().store(self.rsp_prod, Release);
        count > 0
    }

    /// Queues a message, spoiled by the offence if it applies to this kind of
    /// message; says whether it did.
    pub(super) fn queue(&mut self, message: &Message, offence: Option<StoreOffence>) -> bool {
        let spoiled = offence.and_then(|offence| spoil(message, offence));
        let did = spoiled.is_some();
        for message in spoiled.unwrap_or_else(|| vec![message.clone()]) {
            self.queue_raw(&message);
        }
        did
    }

    fn queue_raw(&mut self, message: &Message) {
        let Header {
            ty,
            req_id,
            tx_id,
            len,
        } = message.header;
        for word in [ty, req_id, tx_id, len] {
            self.outgoing.extend(word.to_le_bytes());
        }
        self.outgoing.extend(&message.payload);
    }

    /// Breaks an index or says something unasked, at once. Returns whether the
    /// offence is of that kind.
    pub(super) fn offend_now(&mut self, offence: StoreOffence) -> bool {
        match offence {
            StoreOffence::ReplyIndexRunsAway => {
                let far = self.rsp_cons().load(Relaxed).wrapping_add(RING_SIZE + 1);
                self.shared_rsp_prod().store(far, Release);
            }
            StoreOffence::ReplyIndexGoesBack => {
                let back = self.rsp_cons().load(Relaxed).wrapping_sub(1);
                self.shared_rsp_prod().store(back, Release);
            }
            StoreOffence::RequestIndexRunsAway => {
                let far = self.req_prod().load(Relaxed).wrapping_add(1);
                self.shared_req_cons().store(far, Release);
            }
            StoreOffence::RequestIndexGoesBack => {
                let back = self.req_prod().load(Relaxed).wrapping_sub(RING_SIZE + 1);
                self.shared_req_cons().store(back, Release);
            }
            StoreOffence::UnsolicitedReply => {
                let reply = Message::new(MessageType::READ, 0x7fff_0000, 0, b"psst".to_vec());
                self.queue_raw(&reply);
                self.send();
            }
            _ => return false,
        }
        self.channel.notify();
        true
    }
}

/// What a spoiled message becomes; `None` when the offence is not about it.
fn spoil(message: &Message, offence: StoreOffence) -> Option<Vec<Message>> {
    let ty = message.ty();
    let mut bad = message.clone();
    let text = |ty: MessageType, payload: &[u8]| {
        let Header { req_id, tx_id, .. } = message.header;
        vec![Message::new(ty, req_id, tx_id, payload.to_vec())]
    };
    if ty == MessageType::WATCH_EVENT {
        return match offence {
            StoreOffence::WatchWithoutToken => Some(text(ty, b"device/vbd\0")),
            StoreOffence::GarbledWatch => Some(text(ty, b"\xff\xfe/\x80\0\xc0\0")),
            StoreOffence::UnknownToken => Some(text(ty, b"device/vbd\0nobody's\0")),
            _ => None,
        };
    }
    match offence {
        StoreOffence::OversizedReply => bad.header.len = PAYLOAD_MAX as u32 + 1,
        StoreOffence::EndlessReply => bad.header.len = u32::MAX,
        StoreOffence::UnknownRequestId => bad.header.req_id ^= 0x5555_0000,
        StoreOffence::WrongTransaction => bad.header.tx_id ^= 0x5555,
        StoreOffence::WrongType if ty == MessageType::READ => {
            bad.header.ty = MessageType::DIRECTORY.0;
        }
        StoreOffence::WrongType => bad.header.ty = MessageType::READ.0,
        StoreOffence::UnknownType => bad.header.ty = 0xdead,
        StoreOffence::DuplicatedReply => return Some(vec![message.clone(), bad]),
        StoreOffence::UnknownErrorName => return Some(text(MessageType::ERROR, b"EWHAT\0")),
        StoreOffence::EmptyError => return Some(text(MessageType::ERROR, b"")),
        StoreOffence::GarbledError => {
            return Some(text(MessageType::ERROR, b"\xff\xfe\0\x80"));
        }
        StoreOffence::GarbledValue if ty == MessageType::READ => {
            return Some(text(ty, b"\xff\xfe\x80"));
        }
        StoreOffence::UnendedDirectory if ty == MessageType::DIRECTORY => {
            return Some(text(ty, b"one\0tw"));
        }
        StoreOffence::GarbledTransaction if ty == MessageType::TRANSACTION_START => {
            return Some(text(ty, b"minus one\0"));
        }
        _ => return None,
    }
    Some(vec![bad])
}
