//! What a person asks firn to do: the job language, the shell, and every job.
//!
//! A line such as `verify disk=xvda size=64M seed=1; poweroff` is parsed by
//! [`lang`] and run by [`shell`], whether it stands on the kernel's command line
//! or is typed at the prompt. Jobs see the machine through one trait,
//! [`Machine`], and disks through [`io::Channel`]; they hold disk names, tokens
//! and buffers, never a driver. So all of this runs on a host against a disk in
//! memory, and all of a job's state may be saved and restored.
//!
//! Each job ends in one line for people and one line `firn-result {…}` for
//! programs; see [`result`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod editor;
mod error;
mod fill;
mod histogram;
mod input;
pub mod io;
mod jobs;
pub mod lang;
pub mod ledger_format;
mod machine;
mod power;
pub mod result;
mod rng;
mod shelf;
pub mod shell;
mod stream;
mod task;
#[cfg(test)]
mod testing;
mod units;
pub mod verify_format;

pub use error::{Failure, JobError};
pub use machine::{
    Counters, DiskReport, JobFuture, Machine, Mode, Power, Report, StoreAsk, StoreFuture,
};
pub use power::{
    Datum, Era, FreezeAsk, FreezeLevel, FreezeThen, MemoryHash, PowerAsk, PowerFuture,
    PowerRefusal, PowerReport,
};
pub use rng::Rng as Random;
