//! The freeze image: a memory, written to a disk and found again.
//!
//! One [`Store`] is one disk (or partition) that holds at most one image at a
//! time. Two *header slots* say what it is; a record of at most one sector in
//! each, so that a torn write leaves the old record or the new one. Who
//! freezes calls, in this order and with what he has to do in between:
//!
//! 1. [`Store::look`], [`Store::plan`]: is there room, may it be written?
//! 2. [`Store::write_chunks`], [`Store::write_table`], [`Store::flush`];
//! 3. [`Store::commit`], [`Store::flush`], [`Store::read_back`].
//!
//! From the commit on, an error means that the image *may* be valid:
//! [`Store::void`] ends that, and nobody goes on before it has succeeded.
//!
//! Who restores calls [`Store::look`], [`Store::read_table`], [`check`],
//! [`Store::load`], and once everything is adopted [`Store::consume`] and
//! [`Store::retire`]; or, to go on without the image, [`Store::abandon`]. Before
//! [`Store::consume`] nothing is written.
//!
//! Everything that comes from the disk is a stranger's: it is checked, and what
//! is wrong has a name. docs/image-format.md describes every byte.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod check;
mod codec;
mod disks;
mod error;
mod format;
mod io;
mod meta;
mod plan;
mod seal;
mod slots;
mod store;

pub use check::{Machine, Refusal, check};
pub use disks::{BindError, Binding, DiskIdentity, PresentDisk, SavedDisk, bind};
pub use error::{Commit, Damage, Error};
pub use meta::{BuildId, Cpu, Heap, Meta, Reason};
pub use plan::{How, Key, Plan, Source, WhyNot};
pub use slots::{Generation, Header, Slot, SlotId, Slots, State, Verdict};
pub use store::{Area, Limits, Loaded, Store, Table, Target, Written};

use core::future::Future;
use firn_block::Queue;
use firn_task::Instant;
use gpt_disk_io::gpt_disk_types::{Guid, guid};

/// Bytes of memory that one chunk stands for.
pub const CHUNK: usize = 1 << 20;

/// The type of a GPT partition that holds an image.
pub const PARTITION_TYPE: Guid = guid!("f1a6e0c2-5b7d-4e39-8c14-66697266e001");

/// One disk, as the image code sees it: a queue that is polled, and the time.
pub trait Device {
    /// Runs `work` on the disk's queue.
    ///
    /// # Errors
    /// [`Gone`] when there is no queue any more.
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone>;

    /// Now, on a clock that never goes back.
    fn now(&self) -> Instant;

    /// Lets the host run and everyone else who must, then comes back to poll.
    /// Called when there is nothing to do but to wait for the disk: it may rest
    /// until the disk's event, which it then asks for itself, but not for long,
    /// as the caller keeps deadlines.
    fn breathe(&self) -> impl Future<Output = ()>;
}

impl<D: Device> Device for &D {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        (**self).with_queue(work)
    }

    fn now(&self) -> Instant {
        (**self).now()
    }

    fn breathe(&self) -> impl Future<Output = ()> {
        (**self).breathe()
    }
}

/// The disk has no queue any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;
