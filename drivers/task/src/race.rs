//! Waiting for the first of two things.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// Which of two futures ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    First(A),
    /// The second one.
    Second(B),
}

/// Runs both until one ends; the other is dropped. The first is asked first.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(move |context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, yield_now};
    use alloc::rc::Rc;
    use core::cell::Cell;

    #[test]
    fn the_one_that_ends_wins_and_a_tie_goes_to_the_first() {
        let executor = Executor::new();
        let winner = Rc::new(Cell::new((None, None)));
        let slot = winner.clone();
        executor.spawn(async move {
            let never = core::future::pending::<()>();
            let late = race(never, yield_now()).await;
            let tie = race(async { 1 }, async { 2 }).await;
            slot.set((Some(late), Some(tie)));
        });
        while executor.poll_ready() {}
        let (late, tie) = winner.get();
        assert_eq!(late, Some(Either::Second(())));
        assert_eq!(tie, Some(Either::First(1)));
    }
}
