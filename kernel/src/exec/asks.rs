//! Questions of jobs whose answers the kernel brings later.
//!
//! The kernel's side holds the number of a question and nothing else: a job
//! that waits may be saved and restored, and the boot that asked is gone then.
//! The next one answers every question that it finds open.

use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};
use firn_task::Few;

/// Names one open question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(u64);

struct Slot<T> {
    answer: Option<T>,
    waiting: Option<Waker>,
}

/// All open questions of one kind, in job memory.
pub struct Asks<T> {
    open: RefCell<Few<AskId, Slot<T>>>,
    next: Cell<u64>,
}

impl<T> Asks<T> {
    /// Without questions.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: RefCell::new(Few::new()),
            next: Cell::new(0),
        }
    }

    /// Opens a question. Whoever asks must [`Asks::forget`] it.
    pub fn open(&self) -> AskId {
        let id = AskId(self.next.get());
        self.next.set(id.0 + 1);
        let slot = Slot {
            answer: None,
            waiting: None,
        };
        self.open.borrow_mut().insert(id, slot);
        id
    }

    /// Answers a question; one that nobody waits for any more is dropped.
    pub fn answer(&self, id: AskId, answer: T) {
        let waker = match self.open.borrow_mut().get_mut(&id) {
            Some(slot) => {
                slot.answer = Some(answer);
                slot.waiting.take()
            }
            None => None,
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The answer, once.
    pub fn poll(&self, id: AskId, context: &Context<'_>) -> Poll<T> {
        let mut open = self.open.borrow_mut();
        let Some(slot) = open.get_mut(&id) else {
            return Poll::Pending;
        };
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub fn forget(&self, id: AskId) {
        let slot = self.open.borrow_mut().remove(&id);
        drop(slot);
    }

    /// The questions without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = AskId> {
        let open = self.open.borrow();
        let ids: alloc::vec::Vec<AskId> = open
            .iter()
            .filter(|(_, slot)| slot.answer.is_none())
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
    }
}

impl<T> Default for Asks<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn an_answer_comes_once_and_only_to_its_question() {
        let asks = Asks::new();
        let (one, two) = (asks.open(), asks.open());
        let context = Context::from_waker(Waker::noop());
        asks.answer(two, 2);
        assert_eq!(asks.poll(one, &context), Poll::Pending);
        assert_eq!(asks.poll(two, &context), Poll::Ready(2));
        assert_eq!(asks.poll(two, &context), Poll::Pending);
        asks.forget(two);
        asks.answer(two, 3);
        assert_eq!(asks.unanswered().collect::<Vec<_>>(), [one]);
    }

    #[test]
    fn who_waits_is_woken() {
        let asks = std::rc::Rc::new(Asks::new());
        let executor = firn_task::Executor::new();
        let (theirs, id) = (asks.clone(), asks.open());
        executor.spawn(async move {
            core::future::poll_fn(|context| theirs.poll(id, context)).await;
        });
        while executor.poll_ready() {}
        asks.answer(id, ());
        while executor.poll_ready() {}
        assert!(executor.is_empty());
    }
}
