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

mod fault;
mod host;
mod step;

pub use fault::Fault;
pub use host::{Disk, Host, Link, Then};
pub use step::Step;
