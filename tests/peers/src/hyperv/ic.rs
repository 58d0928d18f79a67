//! Integration services from the host's side: each sends a negotiation when its
//! channel is open, and then what a test wants to be sent.

use super::bytes::{u16_at, u32_at, u64_at};
use super::device::Link;
use firn_hyperv::ic::Service;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

const IN_BAND: u16 = 6;
/// Where the body of a message begins.
const BODY: usize = 28;
/// Flags of a message: the beginning and the end of a transaction.
const REQUEST: u8 = 3;
const RESPONSE: u8 = 5;

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcAnswer {
    /// To what kind of message.
    pub kind: u16,
    /// How it went.
    pub status: u32,
    /// What follows the heads.
    pub body: Vec<u8>,
}

struct State {
    service: Service,
    instance: [u8; 16],
    /// Versions of the head, and of the messages.
    versions: [Vec<[u16; 2]>; 2],
    /// To be sent: kind of packet, bytes.
    outbox: VecDeque<(u16, Vec<u8>)>,
    next: u64,
    /// Requests without an answer: transaction, and what was sent.
    unanswered: VecDeque<(u64, Vec<u8>)>,
    answers: Vec<IcAnswer>,
    deaf: bool,
    open: bool,
}

/// A service; clones are the same.
#[derive(Clone)]
pub struct IcHost(Rc<RefCell<State>>);

impl IcHost {
    /// A service that speaks what today's hosts do.
    #[must_use]
    pub fn new(service: Service) -> Self {
        let newest = match service {
            Service::Shutdown => [3, 2],
            Service::TimeSync => [4, 0],
            Service::Heartbeat => [3, 0],
        };
        Self(Rc::new(RefCell::new(State {
            service,
            instance: [0x40 + service as u8; 16],
            versions: [vec![[1, 0], [3, 0]], vec![[1, 0], [3, 0], newest]],
            outbox: VecDeque::new(),
            next: 1,
            unanswered: VecDeque::new(),
            answers: Vec::new(),
            deaf: false,
            open: false,
        })))
    }

    /// Lists other versions, of the head and of the messages, from the next
    /// channel on.
    pub fn speak(&self, frames: &[[u16; 2]], messages: &[[u16; 2]]) {
        self.0.borrow_mut().versions = [frames.to_vec(), messages.to_vec()];
    }

    /// Sends a message of a kind.
    pub fn send(&self, kind: u16, body: &[u8]) {
        self.send_packet(IN_BAND, self.message(kind, body));
    }

    /// A message of a kind, with both heads.
    #[must_use]
    pub fn message(&self, kind: u16, body: &[u8]) -> Vec<u8> {
        let state = self.0.borrow();
        let [frame, version] = state.versions.each_ref().map(|list| list.last().copied());
        let [frame, version] = [frame, version].map(|version| version.unwrap_or_default());
        let mut message = 1u32.to_le_bytes().to_vec();
        message.extend((20 + body.len() as u32).to_le_bytes());
        let bytes = body.len() as u16;
        for half in [frame[0], frame[1], kind, version[0], version[1], bytes] {
            message.extend(half.to_le_bytes());
        }
        message.extend([0, 0, 0, 0, state.next as u8, REQUEST, 0, 0]);
        message.extend(body);
        message
    }

    /// Sends a packet as it is.
    pub fn send_packet(&self, packet_type: u16, bytes: Vec<u8>) {
        self.0.borrow_mut().outbox.push_back((packet_type, bytes));
    }

    /// Asks the guest to stop, as the flags say; with the text that hosts send.
    pub fn shut_down(&self, flags: u32) {
        let mut body = vec![0; 12 + 2048];
        body[8..12].copy_from_slice(&flags.to_le_bytes());
        self.send(3, &body);
    }

    /// Asks whether the guest lives.
    pub fn beat(&self, sequence: u64) {
        let mut body = sequence.to_le_bytes().to_vec();
        body.resize(40, 0);
        self.send(1, &body);
    }

    /// Tells the time, as version 4 does.
    pub fn tell_time(&self, host: u64, reference: u64, flags: u8) {
        let mut body = host.to_le_bytes().to_vec();
        body.extend(reference.to_le_bytes());
        body.extend([flags, 0, 1, 0, 0, 0]);
        self.send(4, &body);
    }

    /// Tells the time, as versions before 4 do.
    pub fn tell_old_time(&self, host: u64, flags: u8) {
        let mut body = host.to_le_bytes().to_vec();
        body.extend([0; 16]);
        body.push(flags);
        self.send(4, &body);
    }

    /// Reads no answers from now on, or reads them again.
    pub fn be_deaf(&self, deaf: bool) {
        self.0.borrow_mut().deaf = deaf;
    }

    /// Answers so far, that to the negotiation included.
    #[must_use]
    pub fn answers(&self) -> Vec<IcAnswer> {
        self.0.borrow().answers.clone()
    }

    /// Whether its channel is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.borrow().open
    }

    pub(super) fn class(&self) -> [u8; 16] {
        match self.0.borrow().service {
            Service::Shutdown => [
                0x31, 0x60, 0x0b, 0x0e, 0x13, 0x52, 0x34, 0x49, 0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed,
                0x39, 0xdb,
            ],
            Service::TimeSync => [
                0x30, 0xe6, 0x27, 0x95, 0xae, 0xd0, 0x7b, 0x49, 0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17,
                0x5c, 0xaf,
            ],
            Service::Heartbeat => [
                0x39, 0x4f, 0x16, 0x57, 0x15, 0x91, 0x78, 0x4e, 0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5,
                0x42, 0x2d,
            ],
        }
    }

    pub(super) fn instance(&self) -> [u8; 16] {
        self.0.borrow().instance
    }

    pub(super) fn opened(&self) {
        let body = {
            let mut state = self.0.borrow_mut();
            state.open = true;
            let [frames, messages] = &state.versions;
            let mut body = Vec::new();
            for half in [frames.len() as u16, messages.len() as u16, 0, 0] {
                body.extend(half.to_le_bytes());
            }
            let all = frames.iter().chain(messages).flatten();
            body.extend(all.flat_map(|half| half.to_le_bytes()));
            body
        };
        let negotiation = self.message(0, &body);
        let mut state = self.0.borrow_mut();
        state.outbox.push_front((IN_BAND, negotiation));
    }

    pub(super) fn closed(&self) {
        let mut state = self.0.borrow_mut();
        state.open = false;
        state.outbox.clear();
        state.unanswered.clear();
    }

    pub(super) fn serve(&self, link: &mut Link<'_>) -> bool {
        let mut state = self.0.borrow_mut();
        let mut any = state.take_answers(link);
        while let Some((packet_type, bytes)) = state.outbox.front() {
            let id = state.next;
            if !link.send(*packet_type, id, bytes) {
                // There is room when the guest signals.
                return any;
            }
            if let Some((_, bytes)) = state.outbox.pop_front() {
                state.unanswered.push_back((id, bytes));
            }
            state.next += 1;
            any = true;
        }
        any
    }
}

impl State {
    fn take_answers(&mut self, link: &mut Link<'_>) -> bool {
        if !link.channel.awake || self.deaf {
            return false;
        }
        link.channel.awake = false;
        loop {
            match link.channel.ring.next() {
                Ok(None) => return true,
                Ok(Some(raw)) => {
                    if (raw.packet_type, raw.flags) != (IN_BAND, 0) {
                        link.complaints.push("an answer of another kind".to_owned());
                    }
                    if let Err(why) = self.take(raw.transaction, &raw.data) {
                        link.complaints.push(why);
                    }
                }
                Err(why) => {
                    link.complaints.push(why);
                    return true;
                }
            }
        }
    }

    fn take(&mut self, transaction: u64, answer: &[u8]) -> Result<(), String> {
        let (asked, request) = self.unanswered.pop_front().ok_or("an answer unasked")?;
        let padded = request.len().next_multiple_of(8);
        if transaction != asked || answer.len() < padded {
            return Err(format!("an answer to {transaction}, not {asked}"));
        }
        let piped = u32_at(answer, 4) as usize + 8;
        let body = usize::from(u16_at(answer, 18));
        if u32_at(answer, 0) != 1 || piped > answer.len() || BODY + body > piped {
            return Err(format!("an answer of {piped} bytes, {body} of body"));
        }
        if (answer[24], answer[25]) != (request[24], RESPONSE) {
            return Err("an answer of another transaction".to_owned());
        }
        let kind = u16_at(answer, 12);
        if kind == 1 && u64_at(answer, BODY) != u64_at(&request, BODY) + 1 {
            return Err("a heart that beats out of step".to_owned());
        }
        self.answers.push(IcAnswer {
            kind,
            status: u32_at(answer, 20),
            body: answer[BODY..BODY + body].to_vec(),
        });
        Ok(())
    }
}
