//! Bytes typed on the console, for the one task that reads them.

use core::cell::RefCell;
use core::task::{Context, Poll, Waker};

use heapless::Deque;

use crate::host::Platform;

/// Bytes read from the console at once.
const CHUNK: usize = 64;

/// What came in and was not taken yet, and who waits for more.
#[derive(Default)]
pub(in crate::exec) struct Input {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    bytes: Deque<u8, CHUNK>,
    reader: Option<Waker>,
}

impl Input {
    /// The next byte, or the context's waker is kept.
    pub(super) fn poll(&self, platform: &Platform, context: &Context<'_>) -> Poll<u8> {
        let mut state = self.state.borrow_mut();
        if state.bytes.is_empty() {
            let mut chunk = [0; CHUNK];
            let count = platform.read_input(&mut chunk);
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

    /// Whether somebody waits for a byte.
    pub(in crate::exec) fn is_awaited(&self) -> bool {
        self.state.borrow().reader.is_some()
    }

    /// To be called by the main loop: moves output on, and wakes the reader
    /// when something was typed.
    pub(in crate::exec) fn look(&self, platform: &Platform) {
        if platform.has_input()
            && let Some(reader) = self.state.borrow_mut().reader.take()
        {
            reader.wake();
        }
    }
}
