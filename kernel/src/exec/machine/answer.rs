//! Waiting for the answer to a question, in job memory.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::exec::{AskId, Asks};

/// An open question. It finds the table by itself whenever it is polled: after
/// a restore that is the same one, in the same place.
pub(super) struct Answer<T: 'static> {
    table: fn() -> &'static Asks<T>,
    id: AskId,
}

impl<T> Answer<T> {
    /// Opens a question in `table`.
    pub(super) fn of(table: fn() -> &'static Asks<T>) -> Self {
        let id = table().open();
        Self { table, id }
    }

    /// The number under which to answer.
    pub(super) fn id(&self) -> AskId {
        self.id
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        (self.table)().poll(self.id, context)
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        (self.table)().forget(self.id);
    }
}
