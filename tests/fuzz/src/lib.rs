//! What the fuzzers run: each target turns bytes into acts of a hostile host
//! and checks that the guest neither panics, nor hangs, nor breaks a rule.
//!
//! `README.md` says how to run them.
#![deny(unsafe_code)]

pub mod blkback;
pub mod bootinfo;
pub mod ic;
pub mod scsi;
pub mod store;
pub mod vmbus;

/// Acts of one input that are carried out; more only make it slow.
const MOST_ACTS: usize = 200;
