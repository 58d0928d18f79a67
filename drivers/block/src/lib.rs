//! What a disk is, whatever bus it hangs on.
//!
//! One I/O goes one way: a [`Request`] is submitted to a [`Queue`], which
//! answers with a [`Token`] or gives the request back ([`Refused`]); exactly
//! one [`Completion`] follows each token. Submission never completes anything
//! by itself, and completion never submits.
//!
//! Data moves through [`Buffer`]s: page-aligned memory that is registered with
//! a queue once and then reused, so that the hot path neither copies nor
//! allocates. Memory that the host can see is only ever touched through
//! [`shm::Region`], which holds the only unsafe code of the driver crates.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod accepted;
mod buffers;
mod check;
pub mod freeze;
pub mod gate;
pub mod identity;
mod info;
mod path;
mod queue;
mod request;
pub mod shm;
pub mod slots;
mod stats;
mod step;
mod token;
mod wire;

pub use accepted::{Accepted, Owner, Parent};
pub use buffers::{AdoptError, Adopted, Buffers, MOST_BUFFERS, Registered};
pub use info::{Discard, DiskId, DiskInfo, Durability, ParseDiskIdError};
pub use path::{DataPath, PrivateQueue};
pub use queue::{Armed, Queue, RegisterError, Unregistered};
pub use request::{Buffer, Completion, IoError, Op, Refused, Request, Why};
pub use stats::Stats;
pub use step::{Busy, DiskStep, StepError, WhyNot};
pub use token::{Token, TokenId, lost_tokens};
pub use wire::Gfn;

/// Bytes in a sector as requests count them, whatever the disk's own sector is.
pub const SECTOR: u64 = 512;

/// Bytes in a page of memory, the unit of sharing with every host.
pub const PAGE: usize = 4096;
