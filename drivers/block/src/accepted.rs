//! Requests between their acceptance and their completion: what every driver
//! keeps of them, whatever its ring is like.
//!
//! An accepted request is a [`Parent`]. It goes to the host in one piece or in
//! several, in the order of submission; when the last piece has ended, it is
//! handed out, buffer included. Room is made when a disk connects: nothing here
//! allocates per request.

use crate::{Buffer, Completion, IoError, Op, Refused, Request, Stats, Token, TokenId, Why};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use firn_task::sort_few;

/// Whose request it is: each gets its own completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A job's, by the queue that everybody has.
    Job,
    /// The kernel's, by a way in of its own: it is open while the disk is shut to
    /// jobs.
    Kernel,
}

/// A request that was accepted and not handed out yet.
#[derive(Debug)]
pub struct Parent {
    /// Its receipt.
    pub token: TokenId,
    /// The request.
    pub request: Request,
    /// Sectors that were put on the ring.
    pub sent: u64,
    /// Nothing is left to put on the ring.
    pub all_sent: bool,
    /// Pieces on the ring.
    pub outstanding: u32,
    /// How the first piece that failed did.
    pub error: Option<IoError>,
    /// The host can still reach the buffer: it is not handed out.
    pub withhold: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// All of a queue's.
#[derive(Debug)]
pub struct Accepted {
    parents: Vec<Option<Parent>>,
    free: Vec<u16>,
    /// Those with sectors that are not on the ring yet, in order.
    unsent: VecDeque<u16>,
    done: VecDeque<Completion>,
    kernel_done: VecDeque<Completion>,
    kernel_in_flight: usize,
    next_token: u64,
    /// The counters.
    pub stats: Stats,
}

impl Accepted {
    /// Room for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            parents: Vec::new(),
            free: Vec::new(),
            unsent: VecDeque::new(),
            done: VecDeque::new(),
            kernel_done: VecDeque::new(),
            kernel_in_flight: 0,
            next_token: 1,
            stats: Stats::default(),
        }
    }

    /// Makes room for `depth` requests; for those that are there in any case.
    /// They are kept in their order, as if none of them had been sent.
    pub fn resize(&mut self, depth: usize) {
        let mut kept: Vec<Parent> = self.parents.drain(..).flatten().collect();
        sort_few(&mut kept, |parent| parent.token);
        let depth = u16::try_from(depth.max(kept.len())).unwrap_or(u16::MAX);
        self.parents = kept.into_iter().map(Some).collect();
        let in_use = u16::try_from(self.parents.len()).unwrap_or(u16::MAX);
        self.parents.resize_with(depth.into(), || None);
        self.free = (in_use..depth).rev().collect();
        self.unsent = VecDeque::with_capacity(depth.into());
        self.unsent.extend(0..in_use);
        self.done.reserve(depth.into());
        self.kernel_done.reserve(depth.into());
    }

    /// Accepts a request; the caller has asked the gate, and checked it.
    ///
    /// # Errors
    /// [`Why::Full`].
    pub fn accept(&mut self, request: Request, owner: Owner) -> Result<Token, Refused> {
        let Some(index) = self.free.pop() else {
            self.stats.full += 1;
            let why = Why::Full;
            return Err(Refused { why, request });
        };
        let token = TokenId(self.next_token);
        self.next_token += 1;
        self.parents[usize::from(index)] = Some(Parent {
            token,
            request,
            sent: 0,
            all_sent: false,
            outstanding: 0,
            error: None,
            withhold: false,
            owner,
        });
        self.kernel_in_flight += usize::from(owner == Owner::Kernel);
        self.stats.submitted += 1;
        self.unsent.push_back(index);
        Ok(Token::new(token))
    }

    /// The oldest request with something left to send.
    #[must_use]
    pub fn next_unsent(&self) -> Option<u16> {
        self.unsent.front().copied()
    }

    /// How many have something left to send.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Takes the oldest out of the line.
    pub fn pop_unsent(&mut self) -> Option<u16> {
        self.unsent.pop_front()
    }

    /// Puts one at the end of the line.
    pub fn push_unsent(&mut self, index: u16) {
        self.unsent.push_back(index);
    }

    /// An accepted request.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<&Parent> {
        self.parents.get(usize::from(index))?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, index: u16) -> Option<&mut Parent> {
        self.parents.get_mut(usize::from(index))?.as_mut()
    }

    /// Numbers of all that there is room for.
    pub fn indices(&self) -> impl Iterator<Item = u16> + use<> {
        (0..).take(self.parents.len())
    }

    /// The host is another one: all is to be sent again from its beginning.
    pub fn send_again(&mut self) {
        for parent in self.parents.iter_mut().flatten() {
            (parent.sent, parent.outstanding) = (0, 0);
            parent.all_sent = false;
        }
    }

    /// A piece has ended: what its request does, if it is there.
    pub fn end_piece(&mut self, index: u16, error: Option<IoError>) -> Option<Op> {
        let parent = self.get_mut(index)?;
        parent.outstanding = parent.outstanding.saturating_sub(1);
        if let Some(error) = error {
            parent.error.get_or_insert(error);
        }
        Some(parent.request.op)
    }

    /// Sends no more of a request: it ends with `error` once nothing of it is on
    /// the ring.
    pub fn give_up(&mut self, index: u16, error: IoError) {
        if let Some(parent) = self.get_mut(index) {
            parent.all_sent = true;
            parent.error.get_or_insert(error);
        }
    }

    /// Hands a request out if all of it has ended; whether it has. A buffer that
    /// the host can still reach is shown to `withheld` instead.
    pub fn finish(&mut self, index: u16, withheld: impl FnOnce(&Buffer)) -> bool {
        let Some(slot) = self.parents.get_mut(usize::from(index)) else {
            return false;
        };
        let over = |parent: &Parent| parent.all_sent && parent.outstanding == 0;
        if !slot.as_ref().is_some_and(over) {
            return false;
        }
        let Some(mut parent) = slot.take() else {
            return false;
        };
        self.free.push(index);
        if parent.withhold
            && let Some(buffer) = parent.request.buffer.take()
        {
            withheld(&buffer);
        }
        let result = parent.error.map_or(Ok(()), Err);
        let bytes = parent.request.bytes();
        self.stats.completed += 1;
        match (result, parent.request.op) {
            (Err(_), _) => self.stats.errors += 1,
            (Ok(()), Op::Read) => self.stats.bytes_read += bytes,
            (Ok(()), Op::Write) => self.stats.bytes_written += bytes,
            (Ok(()), Op::Flush | Op::Discard { .. }) => {}
        }
        let completion = Completion {
            token: parent.token,
            request: parent.request,
            result,
        };
        match parent.owner {
            Owner::Job => self.done.push_back(completion),
            Owner::Kernel => {
                self.kernel_in_flight -= 1;
                self.kernel_done.push_back(completion);
            }
        }
        true
    }

    /// Hands out up to `budget` completions of an owner; how many.
    pub fn deliver(
        &mut self,
        owner: Owner,
        budget: usize,
        done: &mut dyn FnMut(Completion),
    ) -> usize {
        let list = match owner {
            Owner::Job => &mut self.done,
            Owner::Kernel => &mut self.kernel_done,
        };
        let mut handed = 0;
        while handed < budget {
            let Some(completion) = list.pop_front() else {
                break;
            };
            handed += 1;
            done(completion);
        }
        handed
    }

    /// Completions of an owner that nobody took.
    #[must_use]
    pub fn completions(&self, owner: Owner) -> usize {
        match owner {
            Owner::Job => self.done.len(),
            Owner::Kernel => self.kernel_done.len(),
        }
    }

    /// Forgets the kernel's completions: whoever asked has given up.
    pub fn forget_kernel(&mut self) {
        self.kernel_done.clear();
    }

    /// Requests that were accepted and have not ended, whoever's they are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.parents.len() - self.free.len()
    }

    /// Requests of an owner that were accepted and have not ended.
    #[must_use]
    pub fn unended(&self, owner: Owner) -> usize {
        match owner {
            Owner::Job => self.count() - self.kernel_in_flight,
            Owner::Kernel => self.kernel_in_flight,
        }
    }

    /// Requests of an owner that were accepted and not handed out.
    #[must_use]
    pub fn in_flight(&self, owner: Owner) -> usize {
        self.unended(owner) + self.completions(owner)
    }

    /// A number that no token has reached.
    #[must_use]
    pub const fn next_token(&self) -> u64 {
        self.next_token
    }

    /// Gives out no token below a number.
    pub fn skip_tokens(&mut self, next: u64) {
        self.next_token = self.next_token.max(next);
    }
}

impl Default for Accepted {
    fn default() -> Self {
        Self::new()
    }
}
