//! Freeze, restore, and going on without: in which order, and what happens
//! when a step fails.
//!
//! This crate knows the order of the steps ([`Step`]) and nothing of any
//! machine: the machine is a [`Host`], the image is `firn-image`. The kernel
//! implements [`Host`] on its main loop, the simulator on disks that lose what
//! was not flushed; both run the same sequences.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod boot;
mod cold;
mod fault;
mod freeze;
mod host;
mod look;
mod run;
mod step;
mod undo;

pub use boot::{Boot, BootOptions, Choice, Cold, OnRefusal, Refused, Restored, boot};
pub use cold::cold;
pub use fault::{Failure, Fault, Standing, Trouble};
pub use freeze::{Freeze, FreezeOptions, Frozen, Level, Report, check, freeze};
pub use host::{Disk, Host, Link, Then};
pub use run::Limits;
pub use step::Step;
