//! Everything of the jobs that is not in their own futures, in job memory.

use alloc::boxed::Box;
use core::cell::Cell;

use firn_jobs::Era;
use firn_jobs::io::ChannelTable;
use firn_task::{Executor, Timers};

use crate::mm::{self, Memory};

/// Found through the root of job memory; holds nothing of this boot.
pub(super) struct JobState {
    pub(super) executor: Executor,
    pub(super) timers: Timers,
    pub(super) channels: ChannelTable,
    /// Which boot these jobs live in, and how often they came back.
    pub(super) era: Cell<Era>,
}

impl JobState {
    /// Makes the state of a fresh job memory and hangs it on the root.
    pub(super) fn create() -> &'static Self {
        let _job = mm::enter(Memory::Job);
        let state = Box::leak(Box::new(Self {
            executor: Executor::new(),
            timers: Timers::new(),
            channels: ChannelTable::new(),
            era: Cell::default(),
        }));
        mm::set_job_root(core::ptr::from_ref(state).expose_provenance());
        state
    }
}
