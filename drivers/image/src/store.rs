//! One image disk, and every step on it.

use crate::{
    Commit, Device, DiskIdentity, Error, Generation, Header, How, Key, Meta, Plan, SavedDisk,
    Slots, Source, WhyNot,
};
use alloc::vec::Vec;
use core::time::Duration;
use firn_block::shm::Region;

/// The part of a disk that holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its first sector of 512 bytes; 0 for a whole disk.
    pub first_sector: u64,
    /// Its length in sectors of 512 bytes.
    pub sectors: u64,
    /// The partition, where it is one.
    pub partition: Option<u32>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time without any completion.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(5),
        }
    }
}

/// What [`Store::write_chunks`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages that were stored.
    pub pages: u64,
    /// Pages left out because they are zero.
    pub zero: u64,
    /// Pages left out because they are free.
    pub free: u64,
    /// Bytes that went to the data area.
    pub bytes: u64,
    /// Chunks that were compressed.
    pub compressed: u32,
    /// Requests that went straight from the memory.
    pub in_place: u64,
    /// Requests that went through the store's own pages.
    pub staged: u64,
}

/// What [`Store::load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Pages that were read.
    pub pages: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

/// A chunk table that was read and verified, and the disks beside it.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) header: Header,
    pub(crate) disks: Vec<SavedDisk>,
}

impl Table {
    /// The header that it belongs to.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The disks that the image names.
    #[must_use]
    pub fn disks(&self) -> &[SavedDisk] {
        &self.disks
    }
}

/// One disk in use for images. The steps are separate so that whoever freezes
/// or restores orders them; the crate's documentation says how.
///
/// After [`Error::Stalled`] the host still has requests: close the disk before
/// its memory is used for anything else, and make a new store.
pub struct Store<D: Device> {
    device: D,
    limits: Limits,
}

impl<D: Device> Store<D> {
    /// The fewest pages of scratch memory that a store works with.
    pub const MIN_SCRATCH: usize = 2 * 256 + 32;

    /// A store on `device`. `scratch` is memory outside the image for headers,
    /// the table, and chunks that cannot be written in place: at least
    /// [`Store::MIN_SCRATCH`] pages; 8 MiB let compressed and sealed images be
    /// written at full depth. It is given back by [`Store::close`].
    ///
    /// # Errors
    /// [`Error::Memory`] when there is too little or the queue does not take it.
    pub fn open(device: D, scratch: Region, limits: Limits) -> Result<Self, Error> {
        let _ = scratch;
        Ok(Self { device, limits })
    }

    /// The disk.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// Takes all memory back from the queue. Returns the scratch memory, or
    /// `None` while the host still has some of it.
    pub fn close(self) -> Option<Region> {
        let _ = self.limits;
        None
    }

    /// Finds the part of the disk that is for images: the partition of
    /// [`crate::PARTITION_TYPE`], or without a partition table the whole disk.
    /// `None` where there is a table without such a partition.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read.
    pub async fn area(&mut self) -> Result<Option<Area>, Error> {
        Err(Error::Gone)
    }

    /// Reads both header slots.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read. What is wrong with the headers
    /// is in the answer.
    pub async fn look(&mut self, area: Area) -> Result<Slots, Error> {
        let _ = area;
        Err(Error::Gone)
    }

    /// F0: whether an image of this memory can be written. Does no I/O.
    ///
    /// # Errors
    /// [`WhyNot`] names the reason.
    pub fn plan(
        &self,
        area: Area,
        slots: &Slots,
        source: &Source<'_>,
        meta: &Meta,
        how: How,
    ) -> Result<Plan, WhyNot> {
        let _ = (area, slots, source, meta, how);
        Err(WhyNot::Foreign)
    }

    /// F8: writes the chunks. A blank disk gets its headers first.
    ///
    /// # Errors
    /// [`Error`]; the previous state of the disk still holds.
    pub async fn write_chunks(
        &mut self,
        plan: &mut Plan,
        source: &Source<'_>,
    ) -> Result<Written, Error> {
        let _ = (plan, source);
        Err(Error::Gone)
    }

    /// F9: writes the chunk table.
    ///
    /// # Errors
    /// [`Error`]; the previous state of the disk still holds.
    pub async fn write_table(&mut self, plan: &mut Plan) -> Result<(), Error> {
        let _ = plan;
        Err(Error::Gone)
    }

    /// F10 and F12: makes everything written so far durable. Nothing overlaps
    /// it.
    ///
    /// # Errors
    /// [`Error`]: nothing is known to be durable.
    pub async fn flush(&mut self) -> Result<(), Error> {
        Err(Error::Gone)
    }

    /// F11: one write of the header, into the slot that does not hold the
    /// latest state. An error of the flush after it means the same as
    /// [`Commit::Unknown`].
    ///
    /// # Errors
    /// [`Commit`] says whether the image may be valid.
    pub async fn commit(&mut self, plan: &mut Plan) -> Result<(), Commit> {
        let _ = plan;
        Err(Commit::Untouched(Error::Gone))
    }

    /// F13: reads the header back and compares.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Damaged`] when it differs. Treat both as
    /// [`Commit::Unknown`].
    pub async fn read_back(&mut self, plan: &Plan) -> Result<(), Error> {
        let _ = plan;
        Err(Error::Gone)
    }

    /// Rule 2 of failures: marks the image of a commit that went wrong VOID, in
    /// both slots, each durable before the next.
    ///
    /// # Errors
    /// [`Error`]: the image may be valid. Nothing may go on.
    pub async fn void(&mut self, plan: &Plan) -> Result<(), Error> {
        let _ = plan;
        Err(Error::Gone)
    }

    /// Reads and verifies the chunk table of the image that
    /// [`Slots::verdict`] found valid. `key` is the one given at boot.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Damaged`] when it is wrong.
    pub async fn read_table(
        &mut self,
        area: Area,
        slots: &Slots,
        key: Option<&Key>,
    ) -> Result<Table, Error> {
        let _ = (area, slots, key);
        Err(Error::Gone)
    }

    /// R4: counts a restore that begins, durably, in the slot that does not
    /// hold the image. Returns how many there were, with this one.
    ///
    /// # Errors
    /// [`Error`]; the image is still valid.
    pub async fn attempt(&mut self, table: &Table) -> Result<u32, Error> {
        let _ = table;
        Err(Error::Gone)
    }

    /// R5: reads every chunk into its place in `memory`, which is as long as
    /// the saved one, verifies it, and makes every other page zero.
    ///
    /// # Errors
    /// [`Error`]: what is in `memory` is not to be used; empty it.
    pub async fn load(&mut self, table: &Table, memory: &Region) -> Result<Loaded, Error> {
        let _ = (table, memory);
        Err(Error::Gone)
    }

    /// R9: marks the image CONSUMED in the slot that does not hold it, durably.
    /// Not before this has succeeded may anything outside change.
    ///
    /// # Errors
    /// [`Error`]: the image may or may not be restored once more.
    pub async fn consume(&mut self, table: &Table) -> Result<(), Error> {
        let _ = table;
        Err(Error::Gone)
    }

    /// R9: marks the image CONSUMED in its own slot, too, durably.
    ///
    /// # Errors
    /// [`Error`]; the image is consumed all the same.
    pub async fn retire(&mut self, table: &Table) -> Result<(), Error> {
        let _ = table;
        Err(Error::Gone)
    }

    /// Gives up whatever image is on the disk, or whatever it is that cannot
    /// be told because headers are damaged: ABANDONED in both slots, durably.
    /// Does nothing where there is no image.
    ///
    /// # Errors
    /// [`Error`]: the image may or may not still be valid.
    pub async fn abandon(&mut self, area: Area, slots: &Slots) -> Result<Generation, Error> {
        let _ = (area, slots);
        Err(Error::Gone)
    }

    /// Makes the area an empty image disk, whatever is on it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn format(&mut self, area: Area) -> Result<(), Error> {
        let _ = area;
        Err(Error::Gone)
    }

    /// What to know this disk by after a restore: the GUID of its partition
    /// table if it has one, else a fingerprint taken as if it had `capacity`
    /// sectors of 512 bytes. For data disks, not the image disk.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read or is smaller.
    pub async fn identify(&mut self, capacity: u64) -> Result<DiskIdentity, Error> {
        let _ = capacity;
        Err(Error::Gone)
    }
}
