//! Questions of jobs to xenstore.
//!
//! The asking is done by a task of the drivers, because the client and its
//! waits are boot memory; the job waits for the number of its question.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use firn_jobs::{StoreAsk, StoreFuture};
use firn_xen::store::{Store, StoreError};

use super::answer::Answer;
use crate::exec::main_loop::{self, MainLoop};
use crate::host::xen::XenHal;
use crate::mm::{self, Memory};

/// Asks, and returns a future that lives in job memory alone.
pub(super) fn ask(main_loop: &MainLoop, ask: StoreAsk) -> StoreFuture {
    let answer = Answer::of(|| &main_loop::get().jobs().store);
    let id = answer.id();
    let Some(xen) = main_loop.platform.xen() else {
        let none = Err(String::from("there is a xenstore on Xen only"));
        main_loop.jobs().store.answer(id, none);
        return Box::pin(answer);
    };
    let store = xen.store.clone();
    {
        let _boot = mm::enter(Memory::Boot);
        main_loop.drivers().spawn(async move {
            let answer = self::answer(&store, &ask).await;
            let _job = mm::enter(Memory::Job);
            main_loop::get()
                .jobs()
                .store
                .answer(id, in_job_memory(answer));
        });
    }
    Box::pin(answer)
}

async fn answer(store: &Store<XenHal>, ask: &StoreAsk) -> Result<Vec<String>, StoreError> {
    match ask {
        StoreAsk::List(path) => store.directory(path).await,
        StoreAsk::Read(path) => store.read(path).await.map(|value| Vec::from([value])),
    }
}

/// A copy of the answer whose allocations are those of the memory in use.
fn in_job_memory(answer: Result<Vec<String>, StoreError>) -> Result<Vec<String>, String> {
    match answer {
        Ok(names) => Ok(names
            .iter()
            .map(|name| String::from(name.as_str()))
            .collect()),
        Err(error) => Err(error.to_string()),
    }
}
