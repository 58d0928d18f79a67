//! Xen guest drivers for one vCPU, generic over a [`Hal`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blkfront;
pub mod bus;
mod byte_ring;
pub mod console;
pub mod control;
pub mod event;
pub mod grant;
pub mod hal;
pub mod hypercall;
mod machine;
mod start_page;
pub mod store;
pub mod suspend;
pub mod trace;
pub mod wire;

pub use hal::Hal;
pub use machine::{SetupError, Xen};
pub use start_page::StartPageError;
