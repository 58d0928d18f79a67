//! What is typed: shared between the shell, the job that runs, and ^C.

use crate::lang::MAX_LINE;
use crate::machine::Machine;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll};

/// ^C.
pub(crate) const INTERRUPT: u8 = 3;

/// The console's input with what was typed ahead.
pub(crate) struct Input<M: Machine> {
    machine: M,
    ahead: RefCell<VecDeque<u8>>,
}

impl<M: Machine> Input<M> {
    pub(crate) fn new(machine: M) -> Self {
        let ahead = RefCell::default();
        Self { machine, ahead }
    }

    /// The next byte.
    pub(crate) async fn byte(&self) -> u8 {
        poll_fn(|context| match self.ahead.borrow_mut().pop_front() {
            Some(byte) => Poll::Ready(byte),
            None => self.machine.poll_input(context),
        })
        .await
    }

    /// The next line that is not empty, without its end and without echo.
    pub(crate) async fn line(&self) -> String {
        let mut line = String::new();
        loop {
            match self.byte().await {
                b'\r' | b'\n' if line.is_empty() => {}
                b'\r' | b'\n' => return line,
                byte if line.len() < MAX_LINE => line.push(byte.into()),
                // The rest of an endless line is nobody's.
                _ => {}
            }
        }
    }

    /// Runs `job` unless ^C is typed meanwhile; what else is typed is kept.
    pub(crate) async fn unless_interrupted<F: Future>(&self, job: F) -> Option<F::Output> {
        let mut job = pin!(job);
        poll_fn(|context| match self.take_ahead(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => job.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Ready at ^C.
    fn take_ahead(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ahead = self.ahead.borrow_mut();
        while let Poll::Ready(byte) = self.machine.poll_input(context) {
            if byte == INTERRUPT {
                // As on any terminal, it takes back what was typed ahead.
                ahead.clear();
                return Poll::Ready(());
            }
            if ahead.len() < MAX_LINE {
                ahead.push_back(byte);
            }
        }
        Poll::Pending
    }
}
