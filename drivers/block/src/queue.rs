//! The queue: where requests go and completions come from.

use crate::shm::Region;
use crate::{Buffer, Completion, DiskInfo, Refused, Request, Stats, Token};
use core::fmt;

/// One queue of one disk; it belongs to one vCPU.
///
/// `Ok` from [`Queue::submit`] means that exactly one completion will be handed
/// out by a later [`Queue::poll`]; an error gives the request back untouched.
pub trait Queue {
    /// What the disk is now; it may change while connected.
    fn info(&self) -> &DiskInfo;

    /// Makes memory known to the host, for any number of requests.
    ///
    /// # Errors
    /// [`RegisterError`] gives the memory back.
    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError>;

    /// Takes memory away from the host.
    fn unregister(&mut self, buffer: Buffer) -> Unregistered;

    /// A buffer of `pages` pages that was unregistered while the host still
    /// mapped it: the same host may have it again.
    fn reuse(&mut self, pages: usize) -> Option<Buffer>;

    /// Whether the host keeps registered memory mapped. What is registered then
    /// moves much faster than other memory, but costs the host a mapping for
    /// each page, of which it keeps few.
    fn keeps_mapped(&self) -> bool {
        false
    }

    /// Accepts a request and places what fits on the ring. The host may not
    /// see it before [`Queue::kick`].
    ///
    /// # Errors
    /// [`Refused`] gives the request back and says why.
    fn submit(&mut self, request: Request) -> Result<Token, Refused>;

    /// Publishes everything submitted so far and notifies the host if it asks
    /// for that.
    fn kick(&mut self);

    /// Reaps up to `budget` responses and hands out the requests that ended.
    /// Returns how many did.
    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize;

    /// Asks the host for an event at the next completion, and looks once more.
    fn arm(&mut self) -> Armed;

    /// Requests accepted and not yet handed out.
    fn in_flight(&self) -> usize;

    /// The counters.
    fn stats(&self) -> &Stats;
}

/// Whether it is safe to sleep after [`Queue::arm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// An event will come with the next completion.
    Sleep,
    /// Completions arrived meanwhile: poll first.
    Poll,
}

/// Why memory could not be registered.
#[derive(Debug)]
pub struct RegisterError {
    /// The memory, given back.
    pub region: Region,
    /// What ran out.
    pub why: &'static str,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer not registered: {}", self.why)
    }
}

/// What became of memory that was unregistered.
#[derive(Debug)]
#[must_use = "memory that the host still maps must not be used again"]
pub enum Unregistered {
    /// The host can no longer reach it.
    Free(Region),
    /// The host still maps it: it must not be used for anything else. The queue
    /// keeps it for [`Queue::reuse`].
    StillMapped,
}
