//! How jobs do I/O: a [`Channel`] per job and disk, a [`ChannelTable`] per machine.
//!
//! A channel has room for a fixed number of requests, and their buffers, from
//! the start; submitting and completing allocates nothing. Requests travel with
//! a cookie that names the channel (upper half) and the slot (lower half); the
//! main loop hands every completion to [`ChannelTable::deliver`], which finds
//! the channel by it.

mod table;

pub use table::{ChannelTable, Stray};

use crate::error::JobError;
use crate::machine::{Machine, Mode};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::{Buffer, Completion, DiskId, PAGE, Refused, Request, Unregistered, Why};
use firn_task::{Instant, Sleep, sleep_until};
use table::Line;

/// How long a disk may take over one request before a job gives up on it.
pub const IO_DEADLINE: Duration = Duration::from_secs(30);

/// Responses reaped at once.
const BUDGET: usize = 64;

/// How often a polling channel looks before it lets other tasks run.
const LOOKS: usize = 16;

/// One job's way to one disk, for up to `depth` requests at a time.
///
/// Dropping it is allowed at any moment: what is in flight still completes, and
/// its buffers are given back by whoever opens or closes a channel next
/// ([`reclaim`]).
pub struct Channel<M: Machine> {
    machine: M,
    line: Rc<Line>,
    mode: Mode,
    idle: Vec<Buffer>,
    unkicked: bool,
    alarm: Option<Alarm<M>>,
}

/// A timer that stays set across waits with the same deadline, so that the
/// steady path does not touch the timers for each request.
struct Alarm<M: Machine> {
    at: Instant,
    waker: Waker,
    _sleep: Sleep<M>,
}

/// Nothing completed before the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

impl<M: Machine> Channel<M> {
    /// A channel to `disk` for `depth` requests, each with a buffer of at least
    /// `bytes` bytes (none if zero). Completions are noticed as the disk's mode
    /// says now.
    ///
    /// # Errors
    /// [`JobError::NoMemory`], [`JobError::NotRegistered`],
    /// [`JobError::NoSuchDisk`].
    pub fn open(machine: &M, disk: DiskId, depth: usize, bytes: usize) -> Result<Self, JobError> {
        reclaim(machine);
        let mut channel = Self {
            machine: machine.clone(),
            line: machine.channels().open(disk, depth),
            mode: machine.mode(disk),
            idle: Vec::with_capacity(depth),
            unkicked: false,
            alarm: None,
        };
        if bytes > 0 {
            for _ in 0..depth {
                // On an error the drop of `channel` gives back the others.
                let buffer = channel.register(bytes)?;
                channel.idle.push(buffer);
            }
        }
        Ok(channel)
    }

    /// The disk at the other end.
    #[must_use]
    pub fn disk(&self) -> DiskId {
        self.line.disk
    }

    /// A buffer that is not in use. Give it back by submitting it, or with
    /// [`Channel::put_buffer`].
    pub fn take_buffer(&mut self) -> Option<Buffer> {
        self.idle.pop()
    }

    /// Gives back a buffer of this channel.
    pub fn put_buffer(&mut self, buffer: Buffer) {
        self.idle.push(buffer);
    }

    /// Accepts a request; the host may not see it before the next wait or
    /// [`Channel::kick`]. The request's cookie comes back with its completion.
    ///
    /// # Errors
    /// [`Refused`] gives the request back; [`Why::Full`] passes by itself once
    /// a completion was fetched.
    pub fn submit(&mut self, mut request: Request) -> Result<(), Refused> {
        let Some(slot) = self.line.state.borrow_mut().take_slot() else {
            let why = Why::Full;
            return Err(Refused { why, request });
        };
        let cookie = core::mem::replace(&mut request.cookie, self.line.cookie(slot));
        let disk = self.line.disk;
        let outcome = self
            .machine
            .with_queue(disk, request, |queue, request| queue.submit(request));
        let mut state = self.line.state.borrow_mut();
        let (why, mut request) = match outcome {
            Ok(Ok(token)) => {
                state.occupy(slot, token, cookie);
                self.unkicked = true;
                return Ok(());
            }
            Ok(Err(refused)) => (refused.why, refused.request),
            Err(request) => (Why::NotLive(Lifecycle::Closed), request),
        };
        state.give_back(slot);
        request.cookie = cookie;
        Err(Refused { why, request })
    }

    /// Shows the host what was submitted.
    pub fn kick(&mut self) {
        if core::mem::take(&mut self.unkicked) {
            let disk = self.line.disk;
            // A disk that is gone has nothing left to be kicked for.
            let _ = self.machine.with_queue(disk, (), |queue, ()| queue.kick());
        }
    }

    /// Requests accepted whose completion was not fetched yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.line.state.borrow().outstanding()
    }

    /// Gives back the buffer of a completion.
    pub fn recycle(&mut self, completion: Completion) {
        self.idle.extend(completion.request.buffer);
    }

    /// A completion that is already here.
    pub fn try_next(&mut self) -> Option<Completion> {
        self.line.state.borrow_mut().pop_done()
    }

    /// The next completion. When none is here, what was submitted is shown to
    /// the host first.
    ///
    /// # Errors
    /// [`Late`] when none came before `deadline`.
    pub async fn next(&mut self, deadline: Instant) -> Result<Completion, Late> {
        poll_fn(|context| self.poll_next(context, deadline)).await
    }

    fn poll_next(
        &mut self,
        context: &Context<'_>,
        deadline: Instant,
    ) -> Poll<Result<Completion, Late>> {
        if let Some(completion) = self.try_next() {
            return Poll::Ready(Ok(completion));
        }
        self.kick();
        let late = self.machine.now() >= deadline;
        // What is here at the deadline is not late, even if nobody was told.
        let looks = match (late, self.mode) {
            (true, _) => 1,
            (false, Mode::Poll) => LOOKS,
            (false, Mode::Event) => 0,
        };
        for _ in 0..looks {
            self.reap();
            if let Some(completion) = self.try_next() {
                return Poll::Ready(Ok(completion));
            }
            core::hint::spin_loop();
        }
        if late {
            return Poll::Ready(Err(Late));
        }
        self.line.state.borrow_mut().wait(context);
        match self.mode {
            Mode::Poll => context.waker().wake_by_ref(),
            Mode::Event => self.set_alarm(context, deadline),
        }
        Poll::Pending
    }

    /// Hands out what the queue has, to this channel and to every other.
    fn reap(&self) {
        let channels = self.machine.channels();
        // A disk that is gone has handed out everything before it went.
        let _ = self.machine.with_queue(self.line.disk, (), |queue, ()| {
            queue.poll(BUDGET, &mut |completion| {
                // A stray is a request that no job made: nobody misses it here.
                let _ = channels.deliver(completion);
            })
        });
    }

    fn set_alarm(&mut self, context: &Context<'_>, at: Instant) {
        let still_set = |alarm: &Alarm<M>| alarm.at == at && alarm.waker.will_wake(context.waker());
        if self.alarm.as_ref().is_some_and(still_set) {
            return;
        }
        let waker = context.waker().clone();
        let mut sleep = sleep_until(self.machine.clone(), at);
        // The first poll sets the timer. Should the deadline have passed since
        // it was last compared, the task is simply polled again.
        let context = &mut Context::from_waker(&waker);
        if Future::poll(Pin::new(&mut sleep), context).is_ready() {
            waker.wake_by_ref();
        }
        self.alarm = Some(Alarm {
            at,
            waker,
            _sleep: sleep,
        });
    }

    fn register(&self, bytes: usize) -> Result<Buffer, JobError> {
        let (disk, pages) = (self.line.disk, bytes.div_ceil(PAGE));
        let kept = self
            .machine
            .with_queue(disk, (), |queue, ()| queue.reuse(pages));
        if let Ok(Some(buffer)) = kept {
            return Ok(buffer);
        }
        let region = self
            .machine
            .alloc_pages(pages)
            .ok_or(JobError::NoMemory { bytes })?;
        let outcome = self
            .machine
            .with_queue(disk, region, |queue, region| queue.register(region));
        let (why, region) = match outcome {
            Ok(Ok(buffer)) => return Ok(buffer),
            Ok(Err(error)) => (error.why, error.region),
            Err(region) => ("the disk is gone", region),
        };
        self.machine.free_pages(region);
        Err(JobError::NotRegistered { disk, why })
    }
}

impl<M: Machine> Drop for Channel<M> {
    fn drop(&mut self) {
        // Nothing that was accepted may wait for a kick that never comes.
        self.kick();
        self.machine.channels().close(&self.line);
        while let Some(completion) = self.try_next() {
            self.idle.extend(completion.request.buffer);
        }
        for buffer in self.idle.drain(..) {
            give_back(&self.machine, self.line.disk, buffer);
        }
        reclaim(&self.machine);
    }
}

/// Gives back the buffers that came home after their channel was closed.
pub fn reclaim<M: Machine>(machine: &M) {
    while let Some((disk, buffer)) = machine.channels().pop_orphan() {
        give_back(machine, disk, buffer);
    }
}

/// Unregisters a buffer and frees its pages, if the host lets go of them.
fn give_back<M: Machine>(machine: &M, disk: DiskId, buffer: Buffer) {
    let outcome = machine.with_queue(disk, buffer, |queue, buffer| queue.unregister(buffer));
    // Without the queue nobody knows whether the host still maps the pages, so
    // they stay out of use, as those do that it certainly maps.
    if let Ok(Unregistered::Free(region)) = outcome {
        machine.free_pages(region);
    }
}

#[cfg(test)]
mod tests;
