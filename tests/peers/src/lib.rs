//! The other end of every ring, in-process and single-threaded.
//!
//! [`FakeMachine`] is a Xen machine with one guest: memory, event channels,
//! grant table, timer. It answers hypercalls as Xen does and keeps a list of
//! the guest's [`Violation`]s: pages freed while the host maps them, writes to
//! freed pages, grants revoked under a mapping. [`XenStored`] is the store
//! daemon, [`BlkBack`] a block backend. Each can be told to misbehave.
//!
//! Nothing runs by itself: peers are stepped, and a peer looks at its ring only
//! after the guest notified it, so that a forgotten notification shows.
#![deny(unsafe_code)]

mod blkback;
mod frames;
pub mod hyperv;
mod io;
mod machine;
pub mod memory;
mod migrate;
mod store;
mod world;

pub use blkback::{
    Backing, BlkBack, BlkOffence, Config, Counters, DiscardConfig, Disk, DiskOp, Later, Order,
    Publish, Work,
};
pub use io::{SECTORS, completions, live, pattern};
pub use machine::{
    CallKind, Channel, FakeMachine, GUEST, GrantError, HOST, MAX_GRANT_FRAMES, Mapping, Violation,
};
pub use migrate::NewDisk;
pub use store::{HostWatch, Perms, StoreOffence, XenStored};
pub use world::{Guest, World};

/// Something on the host's side that is run by hand.
pub trait Peer {
    /// Does what there is to do now. Returns whether there was anything.
    fn step(&mut self) -> bool;
}
