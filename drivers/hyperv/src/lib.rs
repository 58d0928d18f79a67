//! Hyper-V guest drivers for one vCPU, generic over a [`Hal`].
//!
//! [`HyperV`] is the hypervisor's side of the machine: hypercalls and the SynIC.
//! [`vmbus::Vmbus`] is the bus on top of it: offers, channels, shared memory.
//! [`ring`] is what a channel's packets go through; [`storvsc`] and the services of
//! [`ic`] use channels.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod clock;
pub mod crash;
pub mod hal;
pub mod hypercall;
pub mod ic;
mod machine;
pub mod post;
pub mod ring;
pub mod storvsc;
pub mod synic;
pub mod vmbus;
pub mod wire;

pub use hal::Hal;
pub use machine::{HyperV, SetupError};
