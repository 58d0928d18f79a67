//! What the boot tests and `cargo xtask run` share: a lab with disks to lend,
//! a guest whose results are collected, and the host's own look at the disks.
#![forbid(unsafe_code)]

mod again;
mod bench;
pub mod campaign;
pub mod disks;
mod emulator;
mod events;
pub mod ledger;
pub mod monitor;
mod results;
mod scene;
mod shared;
pub mod tiny;
pub mod verify;
mod watched;

pub use again::again;
pub use bench::{Bench, DISK_BYTES, Lent};
pub use emulator::{Emulator, Said};
pub use events::Event;
pub use results::JobResult;
pub use scene::{Live, PATIENT, Scene, check_file};
pub use watched::{Watched, judge};
