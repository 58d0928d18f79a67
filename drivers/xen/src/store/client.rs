//! The connection: requests in flight, the phase it is in, and what comes in.

use super::error::{StoreError, StoreOffence};
use super::message::{Inbox, Received, encode};
use super::reply::{self, Refusal};
use super::ring::{Connection, Ring};
use super::watch::Watches;
use crate::Xen;
use crate::hal::{Hal, HalExt};
use crate::trace::Source;
use crate::wire::event_channel::Port;
use crate::wire::xs::{Header, MessageType};
use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use core::time::Duration;
use firn_task::{Few, Signal, timeout};

/// How long the server may take to answer, unless somebody says otherwise.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Requests that may be unanswered, those that nobody waits for included.
const MAX_UNANSWERED: usize = 128;
/// Steps in one [`Client::poll`]; a message takes two or three.
const STEPS: usize = 256;
/// How many answered ids are remembered, to tell a second reply from a reply
/// to nobody.
const REMEMBERED: usize = 32;

/// One connection to the server.
pub(super) struct Client<H: Hal> {
    pub(super) xen: Rc<Xen<H>>,
    pub(super) port: Cell<Port>,
    /// The last event could not be sent: the server may not know that the ring is
    /// full.
    pub(super) owes_event: Cell<bool>,
    /// Page and port are those of the HVM parameters.
    pub(super) attached: Cell<bool>,
    pub(super) state: RefCell<State>,
    /// The phase changed.
    pub(super) changed: Signal,
    /// How long the server may take to answer.
    pub(super) deadline: Cell<Duration>,
}

pub(super) struct State {
    pub(super) ring: Ring,
    pub(super) phase: Phase,
    pub(super) watches: Watches,
    /// Transactions that the server has open for us.
    pub(super) transactions: Few<u32, ()>,
    /// Counts resets: a transaction does not outlive one.
    pub(super) epoch: u32,
    /// A [`Store::reconnect`](super::Store::reconnect) is under way.
    pub(super) reconnecting: bool,
    inbox: Inbox,
    out: VecDeque<u8>,
    pending: Few<u32, Pending>,
    next_id: u32,
    answered: [u32; REMEMBERED],
}

/// What state the connection is in.
pub(super) enum Phase {
    /// The server sets it up or resets it; requests wait.
    Connecting,
    /// In use.
    Live,
    /// Lost, for ever if by an offence.
    Down(StoreError),
}

struct Pending {
    what: MessageType,
    tx: u32,
    fate: Fate,
}

/// Who gets the reply.
pub(super) enum Fate {
    /// A task that waits.
    Awaited(Option<Waker>),
    /// It is here, and the task has not looked yet.
    Done(Result<Vec<u8>, Failure>),
    /// Nobody any more.
    Forgotten,
    /// Nobody, but the watch is over then.
    EndOfWatch(u32),
}

/// Why a request has no payload.
pub(super) enum Failure {
    Refused(Refusal),
    Lost(StoreError),
}

enum Step {
    Idle,
    Up,
    Moved(Option<Waker>),
}

impl State {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            phase: Phase::Connecting,
            watches: Watches::default(),
            transactions: Few::new(),
            epoch: 0,
            reconnecting: false,
            inbox: Inbox::new(),
            out: VecDeque::new(),
            pending: Few::new(),
            next_id: 1,
            answered: [0; REMEMBERED],
        }
    }

    /// Queues a request and returns its id.
    fn post(&mut self, what: MessageType, tx: u32, parts: &[&[u8]], fate: Fate) -> u32 {
        while self.next_id == 0 || self.pending.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        encode(&mut self.out, what, id, tx, parts);
        self.pending.insert(id, Pending { what, tx, fate });
        id
    }

    /// Queues the registration of a watch that a new server does not know.
    /// Nobody waits for the reply.
    pub(super) fn post_watch(&mut self, path: &str, token: u32) {
        let token = token.to_string();
        let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.post(MessageType::WATCH, 0, &parts, Fate::Forgotten);
    }

    /// Ends everything that the connection carried. Returns who waits for it.
    pub(super) fn drop_everything(&mut self, error: &StoreError) -> Vec<Waker> {
        self.out.clear();
        self.inbox.clear();
        self.transactions.clear();
        self.epoch = self.epoch.wrapping_add(1);
        let mut wakers = self.watches.lose();
        self.pending.retain(|_, pending| match &mut pending.fate {
            Fate::Awaited(waker) => {
                wakers.extend(waker.take());
                pending.fate = Fate::Done(Err(Failure::Lost(error.clone())));
                true
            }
            Fate::Done(_) => true,
            Fate::Forgotten | Fate::EndOfWatch(_) => false,
        });
        wakers
    }

    /// Handles a message that came in. Returns whom to wake.
    fn dispatch(&mut self, header: &Header) -> Result<Option<Waker>, StoreOffence> {
        let got = MessageType(header.ty);
        if got == MessageType::WATCH_EVENT {
            let (path, token) = reply::watch_event(self.inbox.payload(header))?;
            return self.watches.fire(path, token);
        }
        let (asked, tx) = self.unanswered(header.req_id)?;
        if got != asked && got != MessageType::ERROR {
            return Err(StoreOffence::WrongType { asked, got });
        }
        if header.tx_id != tx {
            let got = header.tx_id;
            return Err(StoreOffence::WrongTransaction { asked: tx, got });
        }
        let payload = self.inbox.payload(header);
        let result = match got {
            MessageType::ERROR => Err(Failure::Refused(reply::refusal(payload)?)),
            _ => Ok(payload.to_owned()),
        };
        self.answer(header.req_id, asked, result)
    }

    /// What was asked, and in which transaction. Until all of a reply has been
    /// checked, its request stays unanswered: who waits learns of the offence.
    fn unanswered(&self, req_id: u32) -> Result<(MessageType, u32), StoreOffence> {
        match self.pending.get(&req_id) {
            Some(pending) if !matches!(pending.fate, Fate::Done(_)) => {
                Ok((pending.what, pending.tx))
            }
            Some(_) => Err(StoreOffence::DuplicateReply { req_id }),
            None if req_id != 0 && self.answered.contains(&req_id) => {
                Err(StoreOffence::DuplicateReply { req_id })
            }
            None => Err(StoreOffence::ReplyToNobody { req_id }),
        }
    }

    /// Gives a reply to whom it belongs. Returns whom to wake.
    fn answer(
        &mut self,
        req_id: u32,
        asked: MessageType,
        result: Result<Vec<u8>, Failure>,
    ) -> Result<Option<Waker>, StoreOffence> {
        self.answered[req_id as usize % REMEMBERED] = req_id;
        let Some(pending) = self.pending.get_mut(&req_id) else {
            return Ok(None);
        };
        if let Fate::Awaited(waker) = &mut pending.fate {
            let waker = waker.take();
            pending.fate = Fate::Done(result);
            return Ok(waker);
        }
        match self.pending.remove(&req_id).map(|pending| pending.fate) {
            Some(Fate::EndOfWatch(token)) => self.watches.remove(token),
            _ => self.answered_late(asked, result)?,
        }
        Ok(None)
    }

    /// A reply that nobody waits for any more. A transaction that was opened
    /// too late is closed again.
    fn answered_late(
        &mut self,
        asked: MessageType,
        result: Result<Vec<u8>, Failure>,
    ) -> Result<(), StoreOffence> {
        if let (MessageType::TRANSACTION_START, Ok(payload)) = (asked, result) {
            let tx = reply::transaction(&payload)?;
            let fate = Fate::Forgotten;
            self.post(MessageType::TRANSACTION_END, tx, &[b"F\0"], fate);
        }
        Ok(())
    }
}

impl<H: Hal> Client<H> {
    /// Moves bytes both ways. Returns whether there may be more to do.
    pub(super) fn poll(&self) -> bool {
        let mut kick = false;
        let mut steps = 0;
        while steps < STEPS {
            match self.step(&mut kick) {
                Ok(Step::Idle) => break,
                Ok(Step::Up) => self.changed.notify(),
                Ok(Step::Moved(waker)) => waker.into_iter().for_each(Waker::wake),
                Err(error) => self.fail(&error),
            }
            steps += 1;
        }
        if kick {
            self.kick();
        }
        steps == STEPS
    }

    fn step(&self, kick: &mut bool) -> Result<Step, StoreError> {
        let state = &mut *self.state.borrow_mut();
        if matches!(state.phase, Phase::Down(_)) {
            return Ok(Step::Idle);
        }
        let connecting = matches!(state.phase, Phase::Connecting);
        match state.ring.connection()? {
            Connection::Resetting if connecting => return Ok(Step::Idle),
            Connection::Resetting => return Err(StoreError::Reset),
            Connection::Broken(code) => return Err(StoreError::Server(code)),
            Connection::Up if connecting => {
                if !state.ring.adopt() {
                    return Err(StoreOffence::NotEmptied.into());
                }
                state.phase = Phase::Live;
                self.xen.record(Source::Store, "connected", 0);
                return Ok(Step::Up);
            }
            Connection::Up => {}
        }
        let sent = state.ring.send(&mut state.out)? > 0;
        *kick |= sent;
        let (received, wake_server) = state.inbox.receive(&mut state.ring)?;
        *kick |= wake_server;
        match received {
            Received::Message(header) => Ok(Step::Moved(state.dispatch(&header)?)),
            Received::Some => Ok(Step::Moved(None)),
            Received::Nothing if sent => Ok(Step::Moved(None)),
            Received::Nothing => Ok(Step::Idle),
        }
    }

    /// Sends an event to the server. That it cannot be sent shows by deadlines.
    pub(super) fn kick(&self) {
        let sent = self.xen.hal.send_event(self.port.get());
        self.owes_event.set(sent.is_err());
        if let Err(errno) = sent {
            self.xen
                .record(Source::Store, "event not sent", u64::from(errno.0));
        }
    }

    /// Ends the connection: for good if `error` is an offence.
    pub(super) fn fail(&self, error: &StoreError) {
        let wakers = {
            let mut state = self.state.borrow_mut();
            if matches!(state.phase, Phase::Down(StoreError::Protocol(_))) {
                return;
            }
            state.phase = Phase::Down(error.clone());
            state.drop_everything(error)
        };
        if matches!(error, StoreError::Protocol(_)) {
            self.xen.events.mask(self.port.get());
            self.xen.record(Source::Store, "offence", 0);
            log::error!("{error}; xenstore is not used any more");
        } else {
            self.xen.record(Source::Store, "connection lost", 0);
            log::warn!("{error}");
        }
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify();
    }

    /// Passes a parsed payload on; an offence in it fails the connection.
    pub(super) fn checked<T>(&self, parsed: Result<T, StoreOffence>) -> Result<T, StoreError> {
        parsed.map_err(|offence| {
            let error = StoreError::Protocol(offence);
            self.fail(&error);
            error
        })
    }

    /// Queues a request and sends what fits.
    ///
    /// Only requests that somebody waits for count against the limit: the
    /// others end something that such a request began.
    pub(super) fn submit(
        &self,
        what: MessageType,
        tx: u32,
        parts: &[&[u8]],
        fate: Fate,
    ) -> Result<u32, StoreError> {
        let (id, sent) = {
            let state = &mut *self.state.borrow_mut();
            if let Phase::Down(error) = &state.phase {
                return Err(error.clone());
            }
            let awaited = matches!(fate, Fate::Awaited(_));
            if awaited && state.pending.len() >= MAX_UNANSWERED {
                return Err(StoreError::TooManyRequests);
            }
            let id = state.post(what, tx, parts, fate);
            let live = matches!(state.phase, Phase::Live);
            let sent = if live {
                state.ring.send(&mut state.out)
            } else {
                Ok(0)
            };
            (id, sent)
        };
        match sent {
            Ok(0) if !self.owes_event.get() => Ok(id),
            Ok(_) => {
                self.kick();
                Ok(id)
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Sends a request about `path` and waits for the payload of its reply.
    pub(super) async fn request(
        &self,
        what: MessageType,
        tx: u32,
        path: &str,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        let ticket = Ticket {
            id: self.submit(what, tx, parts, Fate::Awaited(None))?,
            client: self,
        };
        let path = || path.to_owned();
        match timeout(self.xen.clone(), self.deadline.get(), ticket.reply()).await {
            Ok(Ok(payload)) => Ok(payload),
            Ok(Err(Failure::Lost(error))) => Err(error),
            Ok(Err(Failure::Refused(refusal))) => Err(refused(refusal, what, path())),
            Err(_) => {
                let id = u64::from(ticket.id);
                self.xen.record(Source::Store, "no answer to request", id);
                Err(StoreError::Timeout { what, path: path() })
            }
        }
    }

    /// Waits until the connection is up or lost.
    pub(super) async fn settled(&self) -> Result<(), StoreError> {
        loop {
            let seen = self.changed.seen();
            match &self.state.borrow().phase {
                Phase::Live => return Ok(()),
                Phase::Down(error) => return Err(error.clone()),
                Phase::Connecting => {}
            }
            self.changed.changed(seen).await;
        }
    }
}

fn refused(refusal: Refusal, what: MessageType, path: String) -> StoreError {
    match refusal {
        Refusal::Known(errno) => StoreError::Errno { errno, what, path },
        Refusal::Named(name) => StoreError::Refused { name, what, path },
    }
}

/// The right to one reply; dropped, the reply goes to nobody.
struct Ticket<'a, H: Hal> {
    client: &'a Client<H>,
    id: u32,
}

impl<H: Hal> Ticket<'_, H> {
    async fn reply(&self) -> Result<Vec<u8>, Failure> {
        poll_fn(|context| {
            let mut state = self.client.state.borrow_mut();
            match state.pending.get_mut(&self.id).map(|it| &mut it.fate) {
                Some(Fate::Awaited(waker)) => {
                    *waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Some(Fate::Done(_)) => {}
                Some(Fate::Forgotten | Fate::EndOfWatch(_)) | None => {
                    return Poll::Ready(Err(Failure::Lost(StoreError::Reset)));
                }
            }
            match state.pending.remove(&self.id).map(|it| it.fate) {
                Some(Fate::Done(result)) => Poll::Ready(result),
                _ => Poll::Ready(Err(Failure::Lost(StoreError::Reset))),
            }
        })
        .await
    }
}

impl<H: Hal> Drop for Ticket<'_, H> {
    fn drop(&mut self) {
        let mut state = self.client.state.borrow_mut();
        match state.pending.get_mut(&self.id).map(|it| &mut it.fate) {
            Some(fate @ Fate::Awaited(_)) => *fate = Fate::Forgotten,
            Some(Fate::Done(_)) => {
                state.pending.remove(&self.id);
            }
            _ => {}
        }
    }
}
