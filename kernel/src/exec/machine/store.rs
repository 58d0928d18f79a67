//! Questions of jobs to xenstore.
//!
//! The asking is done by a task of the drivers, because the client and its
//! waits are boot memory; the job holds a slot in job memory, in which the
//! answer appears.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use firn_jobs::{StoreAsk, StoreFuture};
use firn_xen::store::{Store, StoreError};

use super::MainLoop;
use crate::host::xen::XenHal;
use crate::mm::{self, Memory};

type Answer = Result<Vec<String>, String>;

#[derive(Default)]
struct Slot {
    answer: Option<Answer>,
    waiting: Option<Waker>,
}

/// Asks, and returns a future that lives in job memory alone.
pub(super) fn ask(main_loop: &MainLoop, ask: StoreAsk) -> StoreFuture {
    let slot = Rc::new(RefCell::new(Slot::default()));
    let (store, theirs) = (main_loop.store.clone(), slot.clone());
    {
        let _boot = mm::enter(Memory::Boot);
        main_loop.drivers.spawn(async move {
            let answer = answer(&store, &ask).await;
            let _job = mm::enter(Memory::Job);
            let mut slot = theirs.borrow_mut();
            slot.answer = Some(in_job_memory(answer));
            if let Some(job) = slot.waiting.take() {
                job.wake();
            }
        });
    }
    Box::pin(poll_fn(move |context| {
        let mut slot = slot.borrow_mut();
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }))
}

async fn answer(store: &Store<XenHal>, ask: &StoreAsk) -> Result<Vec<String>, StoreError> {
    match ask {
        StoreAsk::List(path) => store.directory(path).await,
        StoreAsk::Read(path) => store.read(path).await.map(|value| Vec::from([value])),
    }
}

/// A copy of the answer whose allocations are those of the memory in use.
fn in_job_memory(answer: Result<Vec<String>, StoreError>) -> Answer {
    match answer {
        Ok(names) => Ok(names
            .iter()
            .map(|name| String::from(name.as_str()))
            .collect()),
        Err(error) => Err(error.to_string()),
    }
}
