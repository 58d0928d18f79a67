//! The executor: polls tasks whose wakers were called, in spawn order.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

/// Names one spawned task for the lifetime of its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}", self.0)
    }
}

/// What a waker points at: this task's flag and the executor-wide one, so that
/// an idle check is a single load.
struct Ready {
    this: AtomicBool,
    any: Arc<AtomicBool>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.this.store(true, Ordering::Release);
        self.any.store(true, Ordering::Release);
    }
}

struct Task {
    id: TaskId,
    ready: Arc<Ready>,
    waker: Waker,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

/// A set of tasks that belong to one vCPU.
///
/// [`Executor::poll_ready`] is one pass over the tasks that were woken; the
/// caller loops and decides when to halt. A task may spawn tasks; they run in
/// the next pass.
pub struct Executor {
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    any: Arc<AtomicBool>,
    next_id: Cell<u64>,
}

impl Executor {
    /// An executor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tasks: RefCell::new(Vec::new()),
            spawned: RefCell::new(Vec::new()),
            any: Arc::new(AtomicBool::new(false)),
            next_id: Cell::new(0),
        }
    }

    /// Adds a task; it is polled for the first time in the next pass.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let id = TaskId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let ready = Arc::new(Ready {
            this: AtomicBool::new(true),
            any: self.any.clone(),
        });
        self.any.store(true, Ordering::Release);
        self.spawned.borrow_mut().push(Task {
            id,
            waker: Waker::from(ready.clone()),
            ready,
            future: Box::pin(future),
        });
        id
    }

    /// Polls every woken task once. Returns whether any task was polled.
    ///
    /// A pass that is started from inside a task of the same executor polls
    /// nothing.
    pub fn poll_ready(&self) -> bool {
        if !self.any.swap(false, Ordering::Acquire) {
            return false;
        }
        let Ok(mut tasks) = self.tasks.try_borrow_mut() else {
            self.any.store(true, Ordering::Release);
            return false;
        };
        tasks.append(&mut self.spawned.borrow_mut());
        let mut ran = false;
        tasks.retain_mut(|task| {
            if !task.ready.this.swap(false, Ordering::Acquire) {
                return true;
            }
            ran = true;
            let mut context = Context::from_waker(&task.waker);
            task.future.as_mut().poll(&mut context) == Poll::Pending
        });
        ran
    }

    /// Whether some task waits to be polled.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Wakes every task, as after a restore: every wake may be spurious.
    pub fn wake_all(&self) {
        for task in self.tasks.borrow().iter() {
            task.waker.wake_by_ref();
        }
    }

    /// Where each task's state lies, and how many bytes it takes: for reports
    /// about memory. None from inside a pass.
    pub fn for_each_task(&self, mut visit: impl FnMut(TaskId, usize, usize)) {
        let (Ok(tasks), Ok(spawned)) = (self.tasks.try_borrow(), self.spawned.try_borrow()) else {
            return;
        };
        for task in tasks.iter().chain(spawned.iter()) {
            let state: &dyn Future<Output = ()> = &*task.future;
            let bytes = size_of_val(state);
            visit(task.id, core::ptr::from_ref(state).addr(), bytes);
        }
    }

    /// Drops every task, wherever it is. What owns both the executor and its
    /// tasks ends a cycle so. Does nothing from inside a pass.
    pub fn clear(&self) {
        let Ok(mut tasks) = self.tasks.try_borrow_mut() else {
            return;
        };
        // Taken first: a task may call the executor while it is dropped.
        let all = (core::mem::take(&mut *tasks), self.spawned.take());
        drop(tasks);
        drop(all);
    }

    /// Whether the task still exists (it has not returned).
    #[must_use]
    pub fn is_alive(&self, id: TaskId) -> bool {
        // A task that asks from inside a pass cannot see the borrowed list;
        // ids of that list are alive until the pass is over.
        let alive = |tasks: &RefCell<Vec<Task>>| {
            tasks
                .try_borrow()
                .map_or(true, |tasks| tasks.iter().any(|task| task.id == id))
        };
        alive(&self.tasks) || alive(&self.spawned)
    }

    /// Number of tasks that have not returned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.try_borrow().map_or(0, |tasks| tasks.len()) + self.spawned.borrow().len()
    }

    /// Whether no task is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yield_now;
    use alloc::rc::Rc;

    #[test]
    fn polls_only_what_was_woken() {
        let executor = Executor::new();
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        executor.spawn(async move {
            core::future::poll_fn(|_| {
                seen.set(seen.get() + 1);
                Poll::<()>::Pending
            })
            .await;
        });
        assert!(executor.poll_ready());
        assert!(!executor.poll_ready());
        assert_eq!(polls.get(), 1);
        executor.wake_all();
        assert!(executor.poll_ready());
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn a_task_may_spawn_and_ends() {
        let executor = Rc::new(Executor::new());
        let inner = executor.clone();
        let done = Rc::new(Cell::new(false));
        let mark = done.clone();
        let outer = executor.spawn(async move {
            yield_now().await;
            inner.spawn(async move { mark.set(true) });
        });
        let mut passes = 0;
        while executor.poll_ready() {
            passes += 1;
            assert!(passes < 10, "the tasks end");
        }
        assert!(done.get());
        assert!(!executor.is_alive(outer));
        assert!(executor.is_empty());
    }

    #[test]
    fn clearing_ends_a_cycle_of_an_executor_and_its_tasks() {
        let executor = Rc::new(Executor::new());
        for _ in 0..2 {
            let inner = executor.clone();
            executor.spawn(async move {
                core::future::pending::<()>().await;
                inner.wake_all();
            });
            executor.poll_ready();
        }
        let inner = executor.clone();
        executor.spawn(async move { inner.wake_all() });
        executor.clear();
        assert!(executor.is_empty());
        assert_eq!(Rc::strong_count(&executor), 1);
    }

    #[test]
    fn a_wake_during_the_poll_is_not_lost() {
        let executor = Executor::new();
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        executor.spawn(async move {
            for _ in 0..3 {
                yield_now().await;
                seen.set(seen.get() + 1);
            }
        });
        while executor.poll_ready() {}
        assert_eq!(polls.get(), 3);
    }
}
