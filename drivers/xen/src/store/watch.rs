//! Watches: a path, and the paths below it that changed since somebody looked.

use super::client::{Client, Fate};
use super::error::StoreOffence;
use crate::hal::Hal;
use crate::trace::Source;
use crate::wire::xs::MessageType;
use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use firn_task::Few;

/// Changed paths that are kept apart; with more, "everything" has changed.
const QUEUE: usize = 32;

/// All watches of a connection, by token.
#[derive(Default)]
pub(super) struct Watches {
    slots: Few<u32, Slot>,
    next: u32,
}

struct Slot {
    path: String,
    changed: VecDeque<String>,
    waker: Option<Waker>,
    /// The server has acknowledged it: after a reset it is registered again.
    registered: bool,
    /// Its owner is gone; the server has not confirmed the end yet and may
    /// still send events.
    ended: bool,
}

impl Watches {
    /// A new watch; returns its token.
    pub(super) fn add(&mut self, path: &str) -> u32 {
        while self.slots.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let token = self.next;
        self.next = token.wrapping_add(1);
        let slot = Slot {
            path: path.to_owned(),
            changed: VecDeque::new(),
            waker: None,
            registered: false,
            ended: false,
        };
        self.slots.insert(token, slot);
        token
    }

    /// The server has acknowledged the watch.
    pub(super) fn registered(&mut self, token: u32) {
        if let Some(slot) = self.slots.get_mut(&token) {
            slot.registered = true;
        }
    }

    /// The server will send no more events for the watch.
    pub(super) fn remove(&mut self, token: u32) {
        self.slots.remove(&token);
    }

    fn end(&mut self, token: u32) -> Option<String> {
        let slot = self.slots.get_mut(&token)?;
        slot.ended = true;
        slot.changed.clear();
        slot.waker = None;
        Some(slot.path.clone())
    }

    /// A watch event came. Returns who waits for it.
    pub(super) fn fire(&mut self, path: &str, token: &str) -> Result<Option<Waker>, StoreOffence> {
        let slot = token
            .parse()
            .ok()
            .and_then(|token: u32| self.slots.get_mut(&token));
        let slot = slot.ok_or(StoreOffence::UnknownWatch)?;
        if !slot.ended {
            slot.note(path);
        }
        Ok(slot.waker.take())
    }

    /// The connection is gone: ended watches are over, and every other one
    /// fires, so that its owner looks and learns what happened.
    pub(super) fn lose(&mut self) -> Vec<Waker> {
        self.slots.retain(|_, slot| !slot.ended);
        let mut wakers = Vec::new();
        for slot in self.slots.values_mut() {
            let path = slot.path.clone();
            slot.note(&path);
            wakers.extend(slot.waker.take());
        }
        wakers
    }

    /// Token and path of every watch that the server knew before a reset. One
    /// whose registration is under way sees to itself.
    pub(super) fn to_register(&self) -> Vec<(u32, String)> {
        let known = |slot: &Slot| slot.registered && !slot.ended;
        self.slots
            .iter()
            .filter(|(_, slot)| known(slot))
            .map(|(token, slot)| (*token, slot.path.clone()))
            .collect()
    }
}

impl Slot {
    /// Remembers a path, once. The watched path itself says that everything
    /// below it may have changed: it stands for all others, and too many of
    /// them become it.
    fn note(&mut self, path: &str) {
        let known = |known: &String| *known == path || *known == self.path;
        if self.changed.iter().any(known) {
            return;
        }
        if path == self.path || self.changed.len() == QUEUE {
            self.changed.clear();
            self.changed.push_back(self.path.clone());
        } else {
            self.changed.push_back(path.to_owned());
        }
    }
}

/// A watch. It fires once when it is registered, then whenever the path or
/// anything below it changes, and once when the connection is lost. Dropping it
/// ends it.
pub struct Watch<H: Hal> {
    client: Rc<Client<H>>,
    token: u32,
}

impl<H: Hal> Watch<H> {
    /// A watch that the server does not know yet.
    pub(super) fn new(client: Rc<Client<H>>, path: &str) -> Self {
        let token = client.state.borrow_mut().watches.add(path);
        Self { client, token }
    }

    /// What the server gives back with every event.
    pub(super) const fn token(&self) -> u32 {
        self.token
    }

    /// Waits for a change and returns the path that changed: relative if the
    /// watched path is. Changes of one path are told once however often it
    /// changed. The watched path stands for everything below it: it is told
    /// alone, and always when it fired, when many paths changed, and when the
    /// connection was lost.
    ///
    /// Has no deadline: the wait for a change may be long.
    pub async fn changed(&mut self) -> String {
        poll_fn(|context| {
            let mut state = self.client.state.borrow_mut();
            let Some(slot) = state.watches.slots.get_mut(&self.token) else {
                return Poll::Pending;
            };
            match slot.changed.pop_front() {
                Some(path) => Poll::Ready(path),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// A path that changed, if one has.
    pub fn try_changed(&mut self) -> Option<String> {
        let mut state = self.client.state.borrow_mut();
        let slot = state.watches.slots.get_mut(&self.token)?;
        slot.changed.pop_front()
    }
}

impl<H: Hal> Drop for Watch<H> {
    /// Unwatches; nobody waits for the reply.
    fn drop(&mut self) {
        let (client, token) = (&self.client, self.token);
        let Some(path) = client.state.borrow_mut().watches.end(token) else {
            return;
        };
        let text = token.to_string();
        let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", text.as_bytes(), b"\0"];
        let fate = Fate::EndOfWatch(token);
        client
            .xen
            .record(Source::Store, "unwatch", u64::from(token));
        if client
            .submit(MessageType::UNWATCH, 0, &parts, fate)
            .is_err()
        {
            // The connection is lost, and the watch with it.
            client.state.borrow_mut().watches.remove(token);
        }
    }
}
