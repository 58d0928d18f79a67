//! Tasks, timers and deadlines for one vCPU.
//!
//! Control paths (connecting a disk, talking to xenstore, a shell job) are
//! `async` functions; this crate polls them. It knows nothing of disks, buses
//! or machines: time comes from the caller through [`Time`], so a test decides
//! how late it is. What lists and sorts of few things all crates use is here, too.
//!
//! Nothing here is shared between vCPUs except wakers, which may be called
//! from anywhere. Every wake may be spurious.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod executor;
mod few;
mod join;
mod race;
mod signal;
mod time;

pub use executor::{Executor, TaskId};
pub use few::{Few, sort_few};
pub use join::join_all;
pub use race::{Either, race};
pub use signal::Signal;
pub use time::{
    Elapsed, Instant, Sleep, Time, Timers, sleep_until, timeout, timeout_at, yield_now,
};
