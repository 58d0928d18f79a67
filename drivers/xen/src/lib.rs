//! Xen guest drivers for one vCPU, generic over a [`Hal`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blkfront;
pub mod bus;
pub mod event;
pub mod grant;
pub mod hal;
pub mod hypercall;
mod machine;
pub mod store;
pub mod trace;
pub mod wire;

pub use hal::Hal;
pub use machine::{SetupError, Xen};
