//! Everything of the jobs that is not in their own futures, in job memory.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use firn_block::DiskId;
use firn_jobs::io::ChannelTable;
use firn_jobs::{Era, PowerRefusal, PowerReport};
use firn_task::{Executor, Few, Instant, Timers};

use super::asks::{AskId, Asks};
use super::registry::Registry;
use crate::arch::cpu;
use crate::mm::{self, Memory};

/// What comes of a question to the power code.
pub(crate) type PowerAnswer = Result<PowerReport, PowerRefusal>;

/// Found through the root of job memory; holds nothing of this boot.
pub(crate) struct JobState {
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) channels: ChannelTable,
    /// Which boot these jobs live in, and how often they came back.
    pub(crate) era: Cell<Era>,
    /// Buffers that are registered with disks.
    pub(crate) buffers: Registry,
    /// Disks whose jobs look for completions themselves.
    pub(crate) polled: RefCell<Few<DiskId, ()>>,
    /// Questions to xenstore.
    pub(crate) store: Asks<Result<Vec<String>, String>>,
    /// Questions to the power code.
    pub(crate) power: Asks<PowerAnswer>,
    /// The question that a freeze in progress answers.
    pub(crate) freezing: Cell<Option<AskId>>,
    /// The freeze in progress is to be audited, and a restore shall hash the
    /// memory that it found.
    pub(crate) audit_wanted: Cell<bool>,
    /// The jobs' clock when they were last parked.
    pub(crate) parked_at: Cell<Instant>,
}

impl JobState {
    /// Makes the state of a fresh job memory and hangs it on the root.
    pub(crate) fn create() -> &'static Self {
        let _job = mm::enter(Memory::Job);
        let state: &'static Self = Box::leak(Box::new(Self {
            executor: Executor::new(),
            timers: Timers::new(),
            channels: ChannelTable::new(),
            era: Cell::new(Era {
                boot: cpu::random(),
                ..Era::default()
            }),
            buffers: Registry::new(),
            polled: RefCell::default(),
            store: Asks::new(),
            power: Asks::new(),
            freezing: Cell::new(None),
            audit_wanted: Cell::new(false),
            parked_at: Cell::default(),
        }));
        mm::set_job_root(state);
        state
    }
}
