//! Waiting for all of several things.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

/// Runs all futures at once until the last has ended; the outputs come in the
/// futures' order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Result<F::Output, Pin<Box<F>>>> = futures
        .into_iter()
        .map(|future| Err(Box::pin(future)))
        .collect();
    poll_fn(|context| {
        let mut pending = false;
        for slot in &mut running {
            if let Err(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Ok(output),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running.into_iter().filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, yield_now};
    use alloc::rc::Rc;
    use alloc::vec;
    use core::cell::RefCell;

    #[test]
    fn outputs_keep_the_order_whoever_is_first() {
        let executor = Executor::new();
        let outputs = Rc::new(RefCell::new(Vec::new()));
        let slot = outputs.clone();
        executor.spawn(async move {
            let futures = (0..4).map(async |i| {
                for _ in i..4 {
                    yield_now().await;
                }
                i
            });
            *slot.borrow_mut() = join_all(futures).await;
            assert!(
                join_all(Vec::<core::future::Ready<()>>::new())
                    .await
                    .is_empty()
            );
        });
        while executor.poll_ready() {}
        assert_eq!(*outputs.borrow(), vec![0, 1, 2, 3]);
    }
}
