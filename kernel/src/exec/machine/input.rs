//! Bytes typed on the console, for the one task that reads them.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

use firn_xen::Xen;
use firn_xen::console::Console;
use heapless::Deque;

use crate::host::xen::XenHal;

/// Bytes read from the ring at once.
const CHUNK: usize = 64;

/// What came in and was not taken yet, and who waits for more.
pub(in crate::exec) struct Input {
    console: Option<Rc<Console<XenHal>>>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    bytes: Deque<u8, CHUNK>,
    reader: Option<Waker>,
}

impl Input {
    pub(in crate::exec) fn new(console: Option<Rc<Console<XenHal>>>) -> Self {
        Self {
            console,
            state: RefCell::default(),
        }
    }

    /// Where it comes from.
    pub(in crate::exec) fn console(&self) -> Option<&Console<XenHal>> {
        self.console.as_deref()
    }

    /// The next byte, or the context's waker is kept.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<u8> {
        let mut state = self.state.borrow_mut();
        if state.bytes.is_empty()
            && let Some(console) = &self.console
        {
            let mut chunk = [0; CHUNK];
            let count = console.read(&mut chunk);
            // A chunk fits into the empty queue.
            state.bytes.extend(chunk.into_iter().take(count));
        }
        match state.bytes.pop_front() {
            Some(byte) => Poll::Ready(byte),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Forgets who waits: he is woken anyway when jobs run again.
    pub(in crate::exec) fn forget_reader(&self) {
        self.state.borrow_mut().reader = None;
    }

    /// To be called by the main loop: moves output on, and wakes the reader
    /// when the console's port fired.
    pub(in crate::exec) fn look(&self, xen: &Xen<XenHal>) {
        let Some(console) = &self.console else { return };
        console.flush();
        if xen.events.take(console.port())
            && let Some(reader) = self.state.borrow_mut().reader.take()
        {
            reader.wake();
        }
    }
}
