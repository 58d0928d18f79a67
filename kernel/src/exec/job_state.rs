//! Everything of the jobs that is not in their own futures, in job memory.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use firn_block::DiskId;
use firn_jobs::io::ChannelTable;
use firn_jobs::{Era, PowerRefusal, PowerReport};
use firn_task::{Executor, Instant, Timers};

use super::asks::{AskId, Asks};
use super::registry::Registry;
use crate::mm::{self, AdoptError, Memory};

/// What comes of a question to the power code.
pub(super) type PowerAnswer = Result<PowerReport, PowerRefusal>;

/// Found through the root of job memory; holds nothing of this boot.
pub(super) struct JobState {
    pub(super) executor: Executor,
    pub(super) timers: Timers,
    pub(super) channels: ChannelTable,
    /// Which boot these jobs live in, and how often they came back.
    pub(super) era: Cell<Era>,
    /// Buffers that are registered with disks.
    pub(super) buffers: Registry,
    /// Disks whose jobs look for completions themselves.
    pub(super) polled: RefCell<BTreeSet<DiskId>>,
    /// Questions to xenstore.
    pub(super) store: Asks<Result<Vec<String>, String>>,
    /// Questions to the power code.
    pub(super) power: Asks<PowerAnswer>,
    /// The question that a freeze in progress answers.
    pub(super) freezing: Cell<Option<AskId>>,
    /// The jobs' clock when they were last parked.
    pub(super) parked_at: Cell<Instant>,
}

impl JobState {
    /// Makes the state of a fresh job memory and hangs it on the root.
    pub(super) fn create() -> &'static Self {
        let _job = mm::enter(Memory::Job);
        let state: &'static Self = Box::leak(Box::new(Self {
            executor: Executor::new(),
            timers: Timers::new(),
            channels: ChannelTable::new(),
            era: Cell::default(),
            buffers: Registry::new(),
            polled: RefCell::default(),
            store: Asks::new(),
            power: Asks::new(),
            freezing: Cell::new(None),
            parked_at: Cell::default(),
        }));
        mm::set_job_root(state);
        state
    }

    /// Takes the state that was loaded into job memory.
    pub(super) fn adopt() -> Result<&'static Self, AdoptError> {
        mm::adopt_job_memory()
    }
}
