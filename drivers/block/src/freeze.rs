//! The steps of a freeze that are the same on every host, each to be called by
//! itself: a disk only keeps its own, whoever freezes a machine puts the steps of
//! all disks in order.

use crate::gate::Lifecycle;
use crate::path::{DataPath, PrivateQueue};
use crate::queue::{Armed, Queue};
use crate::step::WhyNot;
use crate::{Completion, Durability, IoError, Request, TokenId, Why};
use core::cell::RefCell;
use firn_task::{Instant, Time, race, timeout_at, yield_now};

/// Whether a disk could be frozen now: it is live, and can make durable what was
/// written to it. Without any effect.
///
/// # Errors
/// What a freeze would fail with.
pub fn ask<C>(path: &mut impl DataPath) -> Result<(), WhyNot<C>> {
    let state = path.look();
    let info = path.disk();
    match state {
        Lifecycle::Live if info.read_only => Ok(()),
        Lifecycle::Live if info.durability == Durability::None => Err(WhyNot::NoFlush),
        Lifecycle::Live => Ok(()),
        state => Err(WhyNot::State(state)),
    }
}

/// Waits until everything that jobs had in flight has completed and its
/// completion was handed out by [`Queue::poll`], which is the main loop's to
/// call. Asks for events by itself: also a disk whose jobs polled wakes the
/// machine.
///
/// # Errors
/// [`WhyNot::Deadline`] with how much was left; [`WhyNot::State`] when the host
/// left meanwhile or the device failed.
pub async fn drain<P: DataPath, C>(
    path: &RefCell<P>,
    time: &impl Time,
    until: Instant,
) -> Result<(), WhyNot<C>> {
    let empty = |path: &mut P| path.in_flight() == 0;
    serve(path, time, until, P::arm, empty).await
}

/// Makes everything that has completed durable, with a flush of the kernel's
/// own. A disk that cannot be written needs none.
///
/// # Errors
/// [`WhyNot::NoFlush`], [`WhyNot::Io`] when the host failed it,
/// [`WhyNot::Deadline`], [`WhyNot::State`].
pub async fn flush<P: DataPath, C>(
    path: &RefCell<P>,
    time: &impl Time,
    until: Instant,
) -> Result<(), WhyNot<C>> {
    if path.borrow().disk().read_only {
        return Ok(());
    }
    let token = submit_flush(&mut *path.borrow_mut())?;
    let mut result = None;
    let ended = |path: &mut P| {
        PrivateQueue::new(path).poll(usize::MAX, &mut |done: Completion| {
            // Others are of an earlier freeze that nobody waited for.
            if done.token == token {
                result = Some(done.result);
            }
        });
        result.is_some()
    };
    serve(path, time, until, arm_private, ended).await?;
    match result {
        Some(Err(IoError::NotSupported)) => Err(WhyNot::NoFlush),
        Some(Err(error)) => Err(WhyNot::Io(error)),
        Some(Ok(())) | None => Ok(()),
    }
}

fn submit_flush<C>(path: &mut impl DataPath) -> Result<TokenId, WhyNot<C>> {
    let mut queue = PrivateQueue::new(path);
    match queue.submit(Request::flush()) {
        Ok(token) => {
            queue.kick();
            let id = token.id();
            // The wait looks for the id.
            token.abandon();
            Ok(id)
        }
        Err(refused) => Err(match refused.why {
            Why::Unsupported(_) => WhyNot::NoFlush,
            Why::NotLive(state) => WhyNot::State(state),
            why => WhyNot::Refused(why),
        }),
    }
}

/// Waits for what the kernel itself left in flight: whoever asked for it has
/// given up by now.
///
/// # Errors
/// As of [`drain`].
pub async fn drain_private<P: DataPath, C>(
    path: &RefCell<P>,
    time: &impl Time,
    until: Instant,
) -> Result<(), WhyNot<C>> {
    let empty = |path: &mut P| {
        let mut queue = PrivateQueue::new(path);
        queue.poll(usize::MAX, &mut drop);
        queue.in_flight() == 0
    };
    serve(path, time, until, arm_private, empty).await
}

fn arm_private(path: &mut impl DataPath) -> Armed {
    PrivateQueue::new(path).arm()
}

/// Serves a shut disk until `done`.
async fn serve<P: DataPath, C>(
    path: &RefCell<P>,
    time: &impl Time,
    until: Instant,
    arm: impl Fn(&mut P) -> Armed,
    mut done: impl FnMut(&mut P) -> bool,
) -> Result<(), WhyNot<C>> {
    let attention = path.borrow().attention().clone();
    loop {
        let seen = attention.seen();
        let events = path.borrow().events();
        let fired = events.as_ref().map_or(0, |events| events.seen());
        let state = path.borrow_mut().look();
        if state != Lifecycle::Freezing {
            return Err(WhyNot::State(state));
        }
        if done(&mut *path.borrow_mut()) {
            return Ok(());
        }
        let Some(events) = events else {
            return Err(WhyNot::State(state));
        };
        if time.now() >= until {
            let in_flight = path.borrow().requests().count();
            return Err(WhyNot::Deadline { in_flight });
        }
        if arm(&mut *path.borrow_mut()) == Armed::Poll {
            // The main loop takes what is there.
            yield_now().await;
            continue;
        }
        let news = race(attention.changed(seen), events.changed(fired));
        // At the deadline, one more look.
        let _ = timeout_at(time, until, news).await;
    }
}

/// Looks whether anything of a shut disk is left: on the ring, accepted, or not
/// handed out.
///
/// # Errors
/// [`WhyNot::Busy`] says what.
pub fn check_idle<C>(path: &mut impl DataPath) -> Result<(), WhyNot<C>> {
    match (path.look(), path.busy()) {
        (Lifecycle::Freezing, None) => Ok(()),
        (Lifecycle::Freezing, Some(busy)) => Err(WhyNot::Busy(busy)),
        (state, _) => Err(WhyNot::State(state)),
    }
}
