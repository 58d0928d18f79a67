//! A signal that says "look again": many waiters, no payload.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

/// Counts notifications and wakes whoever waits for the next one.
///
/// A waiter reads [`Signal::seen`] *before* it looks at the state that the
/// signal guards; a notification between the look and the wait then ends the
/// wait at once, so none is lost.
#[derive(Default)]
pub struct Signal {
    count: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// A signal that was never notified.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: Cell::new(0),
            wakers: RefCell::new(Vec::new()),
        }
    }

    /// How often the signal was notified so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.count.get()
    }

    /// Wakes every waiter.
    pub fn notify(&self) {
        self.count.set(self.count.get().wrapping_add(1));
        // Drained in place: the list keeps its capacity, so a steady notifier
        // does not allocate.
        while let Some(waker) = self.pop() {
            waker.wake();
        }
    }

    /// A call of its own, so that no borrow is held while a waker runs.
    fn pop(&self) -> Option<Waker> {
        self.wakers.borrow_mut().pop()
    }

    /// Ends when the signal has been notified since `seen` was read.
    pub async fn changed(&self, seen: u64) {
        poll_fn(|context| {
            if self.count.get() != seen {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Executor;
    use alloc::rc::Rc;

    #[test]
    fn a_notification_before_the_wait_is_seen() {
        let executor = Executor::new();
        let signal = Rc::new(Signal::new());
        let waiter = signal.clone();
        let seen = signal.seen();
        signal.notify();
        let task = executor.spawn(async move { waiter.changed(seen).await });
        executor.poll_ready();
        assert!(!executor.is_alive(task));
    }

    #[test]
    fn every_waiter_is_woken_once() {
        let executor = Executor::new();
        let signal = Rc::new(Signal::new());
        for _ in 0..3 {
            let waiter = signal.clone();
            executor.spawn(async move { waiter.changed(waiter.seen()).await });
        }
        executor.poll_ready();
        assert_eq!(executor.len(), 3);
        signal.notify();
        executor.poll_ready();
        assert!(executor.is_empty());
    }
}
