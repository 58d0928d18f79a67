//! Where completions find the job that waits for them.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Waker};
use firn_block::{Buffer, Completion, DiskId, Token};

/// All open channels, and buffers of closed ones that came home late.
///
/// One per machine, in job memory: after a restore it finds the channels again.
#[derive(Default)]
pub struct ChannelTable {
    lines: RefCell<Vec<Rc<Line>>>,
    orphans: RefCell<Vec<(DiskId, Buffer)>>,
    next: Cell<u32>,
}

/// A completion that no channel waits for; the request is in it, buffer and all.
#[derive(Debug)]
#[must_use = "a completion that nobody waits for is a mistake somewhere"]
pub struct Stray(pub Completion);

impl ChannelTable {
    /// A table without channels.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lines: RefCell::new(Vec::new()),
            orphans: RefCell::new(Vec::new()),
            next: Cell::new(1),
        }
    }

    /// Hands a completion to the channel that submitted the request, and wakes
    /// it. Never allocates for an open channel, never touches a queue.
    ///
    /// # Errors
    /// [`Stray`] when no channel has such a request in flight.
    pub fn deliver(&self, completion: Completion) -> Result<(), Stray> {
        let line = match self.find(completion.request.cookie) {
            Some(line) => line,
            None => return Err(Stray(completion)),
        };
        let waker = {
            let mut state = line.state.borrow_mut();
            let completion = state.settle(completion)?;
            if state.open {
                state.done.push_back(completion);
            } else if let Some(buffer) = completion.request.buffer {
                self.orphans.borrow_mut().push((line.disk, buffer));
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.forget_if_idle(&line);
        Ok(())
    }

    /// How many channels are open or still have requests in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Whether no channel is open and nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some channel to that disk is open or has requests in flight.
    #[must_use]
    pub fn uses(&self, disk: DiskId) -> bool {
        self.lines.borrow().iter().any(|line| line.disk == disk)
    }

    /// Makes a line with room for `depth` requests.
    pub(super) fn open(&self, disk: DiskId, depth: usize) -> Rc<Line> {
        let id = self.next.get();
        // Ids are never reused in practice; after 2^32 channels the oldest are
        // long gone.
        self.next.set(id.wrapping_add(1));
        let line = Rc::new(Line {
            id,
            disk,
            state: RefCell::new(State::new(depth)),
        });
        self.lines.borrow_mut().push(line.clone());
        line
    }

    /// From now on what comes home goes to the orphans.
    pub(super) fn close(&self, line: &Rc<Line>) {
        line.state.borrow_mut().open = false;
        self.forget_if_idle(line);
    }

    /// A buffer that came home after its channel was closed.
    pub(super) fn pop_orphan(&self) -> Option<(DiskId, Buffer)> {
        self.orphans.borrow_mut().pop()
    }

    fn find(&self, cookie: u64) -> Option<Rc<Line>> {
        let lines = self.lines.borrow();
        lines
            .iter()
            .find(|line| u64::from(line.id) == cookie >> 32)
            .cloned()
    }

    fn forget_if_idle(&self, line: &Rc<Line>) {
        let idle = {
            let state = line.state.borrow();
            !state.open && state.in_flight() == 0
        };
        if idle {
            self.lines.borrow_mut().retain(|other| other.id != line.id);
        }
    }
}

/// What a channel shares with the table.
pub(super) struct Line {
    id: u32,
    pub(super) disk: DiskId,
    pub(super) state: RefCell<State>,
}

impl Line {
    /// The cookie under which slot `slot` of this line travels.
    pub(super) fn cookie(&self, slot: u32) -> u64 {
        u64::from(self.id) << 32 | u64::from(slot)
    }
}

/// One request's place. Its token is there while the request is in flight.
#[derive(Default)]
struct Slot {
    token: Option<Token>,
    cookie: u64,
}

/// Slots, and what is done. All capacity is there from the start.
pub(super) struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    done: VecDeque<Completion>,
    in_flight: usize,
    waker: Option<Waker>,
    open: bool,
}

impl State {
    fn new(depth: usize) -> Self {
        let count = u32::try_from(depth).unwrap_or(u32::MAX);
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            free: (0..count).rev().collect(),
            done: VecDeque::with_capacity(depth),
            in_flight: 0,
            waker: None,
            open: true,
        }
    }

    /// Accepted by the queue and not yet delivered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Accepted by the queue and not yet fetched.
    pub(super) fn outstanding(&self) -> usize {
        self.in_flight + self.done.len()
    }

    /// Takes a slot. It is occupied once [`State::occupy`] was called; else it
    /// must be given back.
    pub(super) fn take_slot(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// The request of `slot` was accepted; `cookie` is the submitter's own.
    pub(super) fn occupy(&mut self, slot: u32, token: Token, cookie: u64) {
        self.slots[slot as usize] = Slot {
            token: Some(token),
            cookie,
        };
        self.in_flight += 1;
    }

    /// The next completion that nobody has fetched.
    ///
    /// A slot is free again only once its completion was fetched, so `done`
    /// never holds more than it has room for.
    pub(super) fn pop_done(&mut self) -> Option<Completion> {
        let mut completion = self.done.pop_front()?;
        let slot = completion.request.cookie as u32;
        completion.request.cookie = self.slots[slot as usize].cookie;
        self.free.push(slot);
        Some(completion)
    }

    /// Keeps the waker of whoever waits for the next completion.
    pub(super) fn wait(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    /// Ends the token of the request that `completion` names by its cookie.
    fn settle(&mut self, completion: Completion) -> Result<Completion, Stray> {
        let slot = completion.request.cookie as u32 as usize;
        let Some(slot) = self.slots.get_mut(slot) else {
            return Err(Stray(completion));
        };
        let Some(token) = slot.token.take() else {
            return Err(Stray(completion));
        };
        match token.settle(&completion) {
            Ok(()) => {
                self.in_flight -= 1;
                Ok(completion)
            }
            Err(token) => {
                slot.token = Some(token);
                Err(Stray(completion))
            }
        }
    }
}
