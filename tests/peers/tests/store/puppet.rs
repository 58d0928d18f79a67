//! A daemon that answers exactly what the test says, byte for byte.

use crate::world::store_page;
use firn_block::shm::Region;
use firn_peers::{Channel, FakeMachine, Peer};
use firn_xen::wire::xs::{Interface, MessageType, RING_SIZE};
use std::collections::VecDeque;
use std::mem::offset_of;
use std::sync::atomic::Ordering::SeqCst;

pub(crate) const REQ_CONS: usize = offset_of!(Interface, req_cons);
pub(crate) const REQ_PROD: usize = offset_of!(Interface, req_prod);
pub(crate) const RSP_CONS: usize = offset_of!(Interface, rsp_cons);
pub(crate) const RSP_PROD: usize = offset_of!(Interface, rsp_prod);
pub(crate) const FEATURES: usize = offset_of!(Interface, server_features);
pub(crate) const CONNECTION: usize = offset_of!(Interface, connection);
pub(crate) const ERROR: usize = offset_of!(Interface, error);

/// A request as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) what: MessageType,
    pub(crate) id: u32,
    pub(crate) tx: u32,
    pub(crate) payload: Vec<u8>,
}

impl Request {
    /// The payload with `|` for zero bytes.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).replace('\0', "|")
    }

    /// A reply of the right kind.
    pub(crate) fn reply(&self, payload: &[u8]) -> Vec<u8> {
        message(self.what, self.id, self.tx, payload)
    }

    /// An error.
    pub(crate) fn error(&self, name: &[u8]) -> Vec<u8> {
        message(MessageType::ERROR, self.id, self.tx, name)
    }

    /// What a plain daemon says: `OK` to changes, an open transaction.
    pub(crate) fn plain_reply(&self) -> Vec<u8> {
        match self.what {
            MessageType::TRANSACTION_START => self.reply(b"7\0"),
            MessageType::READ => self.reply(b"value"),
            _ => self.reply(b"OK\0"),
        }
    }
}

/// A message in the wire's form.
pub(crate) fn message(what: MessageType, id: u32, tx: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [what.0, id, tx, payload.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

type Answer = Box<dyn FnMut(&Request) -> Vec<u8>>;

/// Reads requests and writes what `answer` makes of them.
pub(crate) struct Puppet {
    pub(crate) page: Region,
    pub(crate) channel: Channel,
    incoming: VecDeque<u8>,
    outgoing: VecDeque<u8>,
    /// Every request that came.
    pub(crate) requests: Vec<Request>,
    answer: Answer,
    /// Bytes that go each way in a step.
    pub(crate) pace: Box<dyn FnMut() -> usize>,
}

impl Puppet {
    pub(crate) fn new(
        machine: &FakeMachine,
        answer: impl FnMut(&Request) -> Vec<u8> + 'static,
    ) -> Self {
        let (page, channel) = machine.take_store();
        assert_eq!(page.addr(), store_page(machine).addr());
        Self {
            page,
            channel,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            requests: Vec::new(),
            answer: Box::new(answer),
            pace: Box::new(|| usize::MAX),
        }
    }

    /// One that answers plainly and offers no feature.
    pub(crate) fn plain(machine: &FakeMachine) -> Self {
        Self::new(machine, Request::plain_reply)
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        self.page.atomic_u32(at).load(SeqCst)
    }

    pub(crate) fn set(&self, at: usize, value: u32) {
        self.page.atomic_u32(at).store(value, SeqCst);
    }

    /// Queues bytes for the guest.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    /// Empties both queues, as a reset does.
    pub(crate) fn connect(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        for at in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD] {
            self.set(at, 0);
        }
        self.set(CONNECTION, 0);
        self.channel.notify();
    }

    fn read(&mut self) -> usize {
        let cons = self.word(REQ_CONS);
        let count = self.word(REQ_PROD).wrapping_sub(cons) as usize;
        assert!(count <= RING_SIZE as usize, "the guest overran the ring");
        let count = count.min((self.pace)());
        for i in 0..count as u32 {
            let at = cons.wrapping_add(i) % RING_SIZE;
            let byte = self.page.atomic_u8(at as usize).load(SeqCst);
            self.incoming.push_back(byte);
        }
        self.set(REQ_CONS, cons.wrapping_add(count as u32));
        count
    }

    fn take_request(&mut self) -> Option<Request> {
        let word = |at: usize| {
            let bytes = self.incoming.range(at..at + 4);
            u32::from_le_bytes(bytes.copied().collect::<Vec<_>>().try_into().expect("four"))
        };
        if self.incoming.len() < 16 || self.incoming.len() < 16 + word(12) as usize {
            return None;
        }
        let (what, id, tx, len) = (MessageType(word(0)), word(4), word(8), word(12) as usize);
        assert!(len <= 4096, "the guest's message is too long");
        let payload = self.incoming.drain(..16 + len).skip(16).collect();
        Some(Request {
            what,
            id,
            tx,
            payload,
        })
    }

    fn write(&mut self) -> usize {
        let prod = self.word(RSP_PROD);
        let used = prod.wrapping_sub(self.word(RSP_CONS));
        let room = RING_SIZE.saturating_sub(used) as usize;
        let count = room.min(self.outgoing.len()).min((self.pace)());
        for (i, byte) in (0u32..).zip(self.outgoing.drain(..count)) {
            let at = 1024 + (prod.wrapping_add(i) % RING_SIZE) as usize;
            self.page.atomic_u8(at).store(byte, SeqCst);
        }
        if count > 0 {
            self.set(RSP_PROD, prod.wrapping_add(count as u32));
        }
        count
    }
}

impl Peer for Puppet {
    fn step(&mut self) -> bool {
        if self.word(CONNECTION) != 0 {
            return false;
        }
        let read = self.read();
        while let Some(request) = self.take_request() {
            let bytes = (self.answer)(&request);
            self.requests.push(request);
            self.say(&bytes);
        }
        let wrote = self.write();
        if read + wrote > 0 {
            self.channel.notify();
        }
        read + wrote > 0
    }
}
