//! Instants, timers, sleeping and deadlines. Time is always a parameter.

use crate::few::Few;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::ops::{Add, Sub};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

/// A point on the machine's monotonic clock, in nanoseconds since an arbitrary
/// start. Arithmetic saturates: a deadline beyond the end of time never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Where tasks get the time and register what they wait for.
pub trait Time {
    /// Now, on a clock that never goes back.
    fn now(&self) -> Instant;

    /// The timers that the main loop fires.
    fn timers(&self) -> &Timers;
}

impl<T: Time + ?Sized> Time for Rc<T> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn timers(&self) -> &Timers {
        (**self).timers()
    }
}

impl<T: Time + ?Sized> Time for &T {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn timers(&self) -> &Timers {
        (**self).timers()
    }
}

/// Wakers in the order of their deadlines.
#[derive(Default)]
pub struct Timers {
    waiting: RefCell<Few<(Instant, u64), Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// No timer is set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiting: RefCell::new(Few::new()),
            next: Cell::new(0),
        }
    }

    /// The earliest deadline: until then nobody here needs to be woken.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.iter().next().map(|((at, _), _)| *at)
    }

    /// Wakes everyone whose deadline has come.
    pub fn fire(&self, now: Instant) {
        loop {
            let first = self.waiting.borrow_mut().pop_first_if(|(at, _)| *at <= now);
            let Some(waker) = first else { return };
            waker.wake();
        }
    }

    fn set(&self, at: Instant, waker: Waker) -> (Instant, u64) {
        let key = (at, self.next.get());
        self.next.set(key.1 + 1);
        self.waiting.borrow_mut().insert(key, waker);
        key
    }

    fn clear(&self, key: (Instant, u64)) {
        self.waiting.borrow_mut().remove(&key);
    }
}

/// A sleep; see [`sleep_until`].
pub struct Sleep<T: Time> {
    time: T,
    at: Instant,
    timer: Option<(Instant, u64)>,
}

impl<T: Time + Unpin> Future for Sleep<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(timer) = this.timer.take() {
            this.time.timers().clear(timer);
        }
        if this.time.now() >= this.at {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        this.timer = Some(this.time.timers().set(this.at, waker));
        Poll::Pending
    }
}

impl<T: Time> Drop for Sleep<T> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.time.timers().clear(timer);
        }
    }
}

/// Ends at `at` or as soon after as the main loop fires timers.
pub fn sleep_until<T: Time + Unpin>(time: T, at: Instant) -> Sleep<T> {
    Sleep {
        time,
        at,
        timer: None,
    }
}

/// A wait took longer than it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Runs `future` until it ends or `at` has come.
///
/// # Errors
/// [`Elapsed`] when the deadline came first; the future is dropped.
pub async fn timeout_at<T: Time + Unpin, F: Future>(
    time: T,
    at: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep_until(time, at);
    poll_fn(move |context| {
        // The future first: what is ready at the deadline is not late.
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(context).map(|()| Err(Elapsed))
    })
    .await
}

/// Runs `future` for at most `limit` from now.
///
/// # Errors
/// [`Elapsed`] when the limit ran out first; the future is dropped.
pub async fn timeout<T: Time + Unpin, F: Future>(
    time: T,
    limit: Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
    let at = time.now() + limit;
    timeout_at(time, at, future).await
}

/// Lets every other ready task run once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Executor;

    #[derive(Default)]
    struct Manual {
        now: Cell<u64>,
        timers: Timers,
    }

    impl Time for Manual {
        fn now(&self) -> Instant {
            Instant::from_nanos(self.now.get())
        }

        fn timers(&self) -> &Timers {
            &self.timers
        }
    }

    #[test]
    fn sleeps_until_the_deadline_and_no_longer() {
        let time = Rc::new(Manual::default());
        let executor = Executor::new();
        executor.spawn(sleep_until(time.clone(), Instant::from_nanos(100)));
        executor.poll_ready();
        assert_eq!(time.timers.next_deadline(), Some(Instant::from_nanos(100)));
        time.now.set(99);
        time.timers.fire(time.now());
        assert!(!executor.poll_ready());
        time.now.set(100);
        time.timers.fire(time.now());
        executor.poll_ready();
        assert!(executor.is_empty());
        assert_eq!(time.timers.next_deadline(), None);
    }

    #[test]
    fn timeout_ends_a_future_that_never_does_and_leaves_no_timer() {
        let time = Rc::new(Manual::default());
        let executor = Executor::new();
        let outcome = Rc::new(Cell::new(None));
        let (inner, slot) = (time.clone(), outcome.clone());
        executor.spawn(async move {
            let never = core::future::pending::<()>();
            slot.set(Some(timeout(inner, Duration::from_nanos(5), never).await));
        });
        executor.poll_ready();
        time.now.set(5);
        time.timers.fire(time.now());
        executor.poll_ready();
        assert_eq!(outcome.get(), Some(Err(Elapsed)));
        assert_eq!(time.timers.next_deadline(), None);
    }

    #[test]
    fn what_is_ready_at_the_deadline_is_not_late() {
        let time = Rc::new(Manual::default());
        let executor = Executor::new();
        let outcome = Rc::new(Cell::new(None));
        let (inner, slot) = (time.clone(), outcome.clone());
        executor.spawn(async move {
            slot.set(Some(timeout(inner, Duration::ZERO, async { 7 }).await));
        });
        executor.poll_ready();
        assert_eq!(outcome.get(), Some(Ok(7)));
    }

    #[test]
    fn instants_saturate() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Instant::from_nanos(1) - end, Duration::ZERO);
    }
}
