//! Requests in flight: lanes, deadlines, and what comes back late.
//!
//! A *lane* is one registered buffer and at most one request with it. All lanes
//! are made before anything is written, so that a request costs no allocation.
//! Completions are matched by a cookie that no other store and no earlier
//! attempt uses; one that is not ours only gives its buffer back to the queue.

use crate::{Device, Error, Limits};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use firn_block::shm::Region;
use firn_block::{
    Buffer, Completion, IoError, Op, Queue, Request, SECTOR, Token, Unregistered, Why,
};
use firn_task::{Instant, yield_now};

/// Completions taken per poll.
const BUDGET: usize = 64;
/// The lane number of a flush, which has no buffer.
const FLUSH: u32 = u32::MAX;

/// Tells the requests of one store from those of all others.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// What a request is for: the words of its error, and the caller's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    pub(crate) what: &'static str,
    pub(crate) tag: u32,
}

/// A part of the disk and of a lane's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) sector: u64,
    pub(crate) bytes: usize,
    /// Where in the lane's buffer, in bytes.
    pub(crate) offset: usize,
}

#[derive(Debug)]
struct Lane {
    memory: Region,
    state: Busy,
    purpose: Purpose,
    sector: u64,
    bytes: usize,
}

#[derive(Debug)]
enum Busy {
    /// The buffer is here.
    Idle(Buffer),
    /// The host has it.
    Sent(Token),
    /// It came back; nobody has looked yet.
    Back(Buffer, Result<(), IoError>),
    /// The request failed, and the queue kept the buffer; nobody has looked yet.
    Kept(IoError),
    /// The buffer was given back to the queue, or never came.
    Gone,
}

/// The lanes of one disk.
pub(crate) struct Io<D: Device> {
    pub(crate) device: D,
    limits: Limits,
    epoch: u32,
    lanes: Vec<Lane>,
    flush: Option<Token>,
    flushed: Option<Result<(), IoError>>,
    /// When something last came back.
    progress: Instant,
}

impl<D: Device> Io<D> {
    pub(crate) fn new(device: D, limits: Limits) -> Self {
        let progress = device.now();
        Self {
            device,
            limits,
            epoch: EPOCH.fetch_add(1, Ordering::Relaxed),
            lanes: Vec::new(),
            flush: None,
            flushed: None,
            progress,
        }
    }

    /// Adds `count` lanes with `memory` each, or the part that `cut` gives.
    pub(crate) fn add(&mut self, count: usize, cut: impl Fn(usize) -> Region) -> Result<(), Error> {
        let none = Error::Memory("no room for the list of requests");
        self.lanes.try_reserve_exact(count).map_err(|_| none)?;
        for number in 0..count {
            let memory = cut(number);
            let alias = memory.alias();
            let buffer = self.device.with_queue(|queue| queue.register(alias))?;
            let buffer = buffer.map_err(|error| Error::Memory(error.why))?;
            self.lanes.push(Lane::new(memory, buffer));
        }
        Ok(())
    }

    /// Adds the lane of a buffer that the queue kept.
    pub(crate) fn add_kept(&mut self, buffer: Buffer) {
        self.lanes.push(Lane::new(buffer.region().alias(), buffer));
    }

    /// Gives the lanes from `first` on back to the queue. Whether the host has
    /// none of their memory any more.
    pub(crate) fn remove(&mut self, first: usize) -> bool {
        let mut free = true;
        for lane in self.lanes.drain(first.min(self.lanes.len())..) {
            match lane.state {
                Busy::Idle(buffer) | Busy::Back(buffer, _) => {
                    let gone = self.device.with_queue(|queue| queue.unregister(buffer));
                    free &= !matches!(gone, Ok(Unregistered::StillMapped));
                }
                Busy::Sent(token) => {
                    token.abandon();
                    free = false;
                }
                Busy::Kept(_) => free = false,
                Busy::Gone => {}
            }
        }
        free
    }

    /// The memory of a lane; only looked at while the lane is idle.
    pub(crate) fn memory(&self, lane: usize) -> Region {
        self.lanes[lane].memory.alias()
    }

    /// An idle lane from `first` on, before `end`.
    pub(crate) fn idle(&self, first: usize, end: usize) -> Option<usize> {
        let lanes = self.lanes.get(first..end.min(self.lanes.len()))?;
        let at = lanes
            .iter()
            .position(|l| matches!(l.state, Busy::Idle(_)))?;
        Some(first + at)
    }

    /// How many lanes from `first` on, before `end`, are idle.
    pub(crate) fn idle_count(&self, first: usize, end: usize) -> usize {
        let lanes = self.lanes.get(first..end.min(self.lanes.len()));
        let idle = |lane: &&Lane| matches!(lane.state, Busy::Idle(_));
        lanes.map_or(0, |lanes| lanes.iter().filter(idle).count())
    }

    /// Requests that the host has.
    pub(crate) fn in_flight(&self) -> usize {
        let sent = |lane: &&Lane| matches!(lane.state, Busy::Sent(_));
        self.lanes.iter().filter(sent).count() + usize::from(self.flush.is_some())
    }

    /// Submits with an idle lane; false when there is no room now.
    fn offer(&mut self, lane: usize, op: Op, span: Span, purpose: Purpose) -> Result<bool, Error> {
        let cookie = self.cookie(lane as u32);
        let slot = &mut self.lanes[lane];
        let Busy::Idle(buffer) = core::mem::replace(&mut slot.state, Busy::Gone) else {
            return Err(Error::Order("a lane was used twice"));
        };
        let mut request = Request::data(op, span.sector, buffer, span.bytes).with_cookie(cookie);
        request.offset = span.offset;
        match self.device.with_queue(|queue| queue.submit(request))? {
            Ok(token) => {
                if self.lanes.iter().all(|l| !matches!(l.state, Busy::Sent(_))) {
                    self.progress = self.device.now();
                }
                let slot = &mut self.lanes[lane];
                slot.state = Busy::Sent(token);
                slot.purpose = purpose;
                slot.sector = span.sector;
                slot.bytes = span.bytes;
                Ok(true)
            }
            Err(refused) => {
                if let Some(buffer) = refused.request.buffer {
                    slot.state = Busy::Idle(buffer);
                }
                let what = purpose.what;
                match refused.why {
                    Why::Full => Ok(false),
                    why => Err(Error::Refused { what, why }),
                }
            }
        }
    }

    /// Submits with an idle lane, and waits for room if there is none. The host
    /// may not see it before [`Io::kick`].
    pub(crate) async fn send(
        &mut self,
        lane: usize,
        op: Op,
        span: Span,
        purpose: Purpose,
    ) -> Result<(), Error> {
        self.progress = self.device.now();
        while !self.offer(lane, op, span, purpose)? {
            self.kick()?;
            self.turn(purpose.what).await?;
        }
        Ok(())
    }

    pub(crate) fn kick(&self) -> Result<(), Error> {
        Ok(self.device.with_queue(|queue| queue.kick())?)
    }

    /// Waits for something to come back; an error when nothing came for too
    /// long. The machine may rest meanwhile.
    pub(crate) async fn turn(&mut self, what: &'static str) -> Result<(), Error> {
        if self.poll()? > 0 {
            yield_now().await;
            return Ok(());
        }
        let waited = self.device.now().since(self.progress);
        if waited >= self.limits.stall {
            let in_flight = self.in_flight();
            return Err(Error::Stalled {
                what,
                in_flight,
                waited,
            });
        }
        self.device.breathe().await;
        Ok(())
    }

    /// Takes what came back while there is more to do: others run once, but
    /// nobody rests.
    pub(crate) async fn glance(&mut self) -> Result<(), Error> {
        self.poll()?;
        yield_now().await;
        Ok(())
    }

    /// Takes what came back. Returns how much of it was ours.
    pub(crate) fn poll(&mut self) -> Result<usize, Error> {
        let Self {
            device,
            lanes,
            epoch,
            flush,
            flushed,
            ..
        } = self;
        let mut ours = 0;
        let mut strays: Vec<Buffer> = Vec::new();
        device.with_queue(|queue| {
            queue.poll(BUDGET, &mut |completion| {
                let taken = match completion.request.cookie {
                    cookie if (cookie >> 32) as u32 != *epoch => Err(completion),
                    cookie if cookie as u32 == FLUSH => take_flush(flush, flushed, completion),
                    cookie => take_data(lanes, cookie as u32, completion),
                };
                match taken {
                    Ok(()) => ours += 1,
                    Err(stray) => strays.extend(stray.request.buffer),
                }
            });
            // Late guests of an attempt that was given up.
            for buffer in strays.drain(..) {
                give_up(queue, buffer);
            }
        })?;
        if ours > 0 {
            self.progress = self.device.now();
        }
        Ok(ours)
    }

    /// A lane that came back: its number and purpose. The lane is idle again.
    ///
    /// # Errors
    /// Its request failed.
    pub(crate) fn harvest(&mut self) -> Result<Option<(usize, Purpose)>, Error> {
        let back = |lane: &Lane| matches!(lane.state, Busy::Back(..) | Busy::Kept(_));
        let Some(at) = self.lanes.iter().position(back) else {
            return Ok(None);
        };
        let lane = &mut self.lanes[at];
        let result = match core::mem::replace(&mut lane.state, Busy::Gone) {
            Busy::Back(buffer, result) => {
                lane.state = Busy::Idle(buffer);
                result
            }
            Busy::Kept(error) => Err(error),
            Busy::Idle(_) | Busy::Sent(_) | Busy::Gone => return Ok(None),
        };
        let (purpose, sector) = (lane.purpose, lane.sector);
        let what = purpose.what;
        match result {
            Ok(()) => Ok(Some((at, purpose))),
            Err(error) => Err(Error::Io {
                what,
                sector,
                error,
            }),
        }
    }

    /// Waits until nothing is in flight; the first error of what came back.
    pub(crate) async fn settle(&mut self, what: &'static str) -> Result<(), Error> {
        let mut first = Ok(());
        self.progress = self.device.now();
        self.kick()?;
        loop {
            loop {
                match self.harvest() {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(error) => first = first.and(Err(error)),
                }
            }
            if self.in_flight() == 0 {
                return first;
            }
            self.turn(what).await?;
        }
    }

    /// One request, start to end.
    pub(crate) async fn once(
        &mut self,
        lane: usize,
        op: Op,
        span: Span,
        what: &'static str,
    ) -> Result<(), Error> {
        self.settle(what).await?;
        self.send(lane, op, span, Purpose { what, tag: 0 }).await?;
        self.settle(what).await
    }

    /// Makes everything durable; nothing else is in flight meanwhile.
    pub(crate) async fn flush(&mut self, what: &'static str) -> Result<(), Error> {
        self.settle(what).await?;
        let cookie = self.cookie(FLUSH);
        loop {
            let request = Request::flush().with_cookie(cookie);
            match self.device.with_queue(|queue| queue.submit(request))? {
                Ok(token) => {
                    self.flushed = None;
                    self.flush = Some(token);
                    break;
                }
                Err(refused) if refused.why == Why::Full => self.turn(what).await?,
                Err(refused) => {
                    let why = refused.why;
                    return Err(Error::Refused { what, why });
                }
            }
        }
        self.settle(what).await?;
        let ended = self.flushed.take().unwrap_or(Err(IoError::Gone));
        ended.map_err(|error| Error::Io {
            what,
            sector: 0,
            error,
        })
    }

    fn cookie(&self, lane: u32) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(lane)
    }
}

impl Lane {
    fn new(memory: Region, buffer: Buffer) -> Self {
        Self {
            memory,
            state: Busy::Idle(buffer),
            purpose: Purpose { what: "", tag: 0 },
            sector: 0,
            bytes: 0,
        }
    }
}

fn take_data(lanes: &mut [Lane], number: u32, completion: Completion) -> Result<(), Completion> {
    let Some(lane) = lanes.get_mut(number as usize) else {
        return Err(completion);
    };
    match core::mem::replace(&mut lane.state, Busy::Gone) {
        Busy::Sent(token) => match token.settle(&completion) {
            Ok(()) => {
                lane.state = match (completion.request.buffer, completion.result) {
                    (Some(buffer), result) => Busy::Back(buffer, result),
                    (None, Err(error)) => Busy::Kept(error),
                    (None, Ok(())) => Busy::Gone,
                };
                Ok(())
            }
            Err(token) => {
                lane.state = Busy::Sent(token);
                Err(completion)
            }
        },
        other => {
            lane.state = other;
            Err(completion)
        }
    }
}

fn take_flush(
    flush: &mut Option<Token>,
    flushed: &mut Option<Result<(), IoError>>,
    completion: Completion,
) -> Result<(), Completion> {
    match flush.take().map(|token| token.settle(&completion)) {
        Some(Ok(())) => {
            *flushed = Some(completion.result);
            Ok(())
        }
        Some(Err(token)) => {
            *flush = Some(token);
            Err(completion)
        }
        None => Err(completion),
    }
}

/// What the host still maps, the queue keeps.
fn give_up(queue: &mut dyn Queue, buffer: Buffer) {
    match queue.unregister(buffer) {
        Unregistered::Free(_) | Unregistered::StillMapped => {}
    }
}

impl<D: Device> Drop for Io<D> {
    fn drop(&mut self) {
        self.remove(0);
        if let Some(token) = self.flush.take() {
            token.abandon();
        }
    }
}

/// Sectors of so many bytes.
pub(crate) const fn sectors(bytes: u64) -> u64 {
    bytes.div_ceil(SECTOR)
}
