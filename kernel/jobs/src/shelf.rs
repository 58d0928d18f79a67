//! What jobs leave in memory for later jobs, and the jobs in the background.

use crate::fill::Filled;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use firn_task::Signal;

/// Shared by all jobs of one shell.
#[derive(Default)]
pub(crate) struct Shelf {
    /// What `fill` filled.
    pub(crate) fills: RefCell<Vec<Filled>>,
    beside: RefCell<Vec<Rc<Cell<bool>>>>,
    ended: Signal,
}

impl Shelf {
    /// A job now runs in the background; `stop` asks it to end. It counts as
    /// running until the guard is dropped.
    pub(crate) fn begin(self: &Rc<Self>, stop: Rc<Cell<bool>>) -> Beside {
        self.beside.borrow_mut().push(stop.clone());
        Beside {
            shelf: self.clone(),
            stop,
        }
    }

    /// Asks every job in the background to end.
    pub(crate) fn stop_all(&self) {
        for stop in self.beside.borrow().iter() {
            stop.set(true);
        }
    }

    /// How many jobs run in the background.
    pub(crate) fn count(&self) -> usize {
        self.beside.borrow().len()
    }

    /// Ends when no job runs in the background.
    pub(crate) async fn quiet(&self) {
        loop {
            let seen = self.ended.seen();
            if self.count() == 0 {
                return;
            }
            self.ended.changed(seen).await;
        }
    }
}

/// A job in the background.
pub(crate) struct Beside {
    shelf: Rc<Shelf>,
    stop: Rc<Cell<bool>>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        let mut beside = self.shelf.beside.borrow_mut();
        beside.retain(|stop| !Rc::ptr_eq(stop, &self.stop));
        drop(beside);
        self.shelf.ended.notify();
    }
}
