//! Xen guest drivers for one vCPU, generic over a [`Hal`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod hal;
pub mod hypercall;
pub mod wire;

pub use hal::Hal;
