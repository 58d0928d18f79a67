//! What to know a data disk by.

use super::{Area, Store};
use crate::format::sum::Print;
use crate::{Device, DiskIdentity, Error};
use firn_block::identity::PartitionTable;
use firn_block::{PAGE, SECTOR};

/// How much of each end a fingerprint covers, in bytes.
const ENDS: u64 = 64 << 10;

impl<D: Device> Store<D> {
    /// What to know this disk by after a restore: the GUID of its partition
    /// table if it has one, else [`Store::fingerprint`]. For data disks, at
    /// the freeze.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read.
    pub async fn identify(&mut self, capacity: u64) -> Result<DiskIdentity, Error> {
        match self.disk_guid().await? {
            Some(guid) => Ok(DiskIdentity::Guid(guid)),
            None => Ok(DiskIdentity::Print(self.fingerprint(capacity).await?)),
        }
    }

    /// The GUID of the disk's partition table; `None` where there is no sound
    /// one.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read.
    pub async fn disk_guid(&mut self) -> Result<Option<[u8; 16]>, Error> {
        let info = self.io.device.with_queue(|queue| queue.info().clone())?;
        let whole = whole(info.capacity);
        let bytes = PartitionTable::wanted(info.logical_block).next_multiple_of(PAGE);
        if !whole.holds(0, bytes as u64) || bytes > super::BLOCK_PAGES * PAGE {
            return Ok(None);
        }
        let start = self.read(&whole, 0, bytes, "reading the partition table");
        let start = start.await?;
        let table = PartitionTable::parse(&start, info.logical_block, info.capacity);
        Ok(table.ok().flatten().map(|table| table.disk.to_bytes()))
    }

    /// The checksum of the first 64 KiB and the last 64 KiB of a disk, as if it
    /// had `capacity` sectors of 512 bytes: its size at the freeze.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read, or is smaller.
    pub async fn fingerprint(&mut self, capacity: u64) -> Result<u64, Error> {
        let what = "reading a disk's fingerprint";
        let info = self.io.device.with_queue(|queue| queue.info().clone())?;
        if capacity > info.capacity {
            return Err(Error::Order("the disk is smaller than its fingerprint"));
        }
        let block = u64::from(info.logical_block).max(SECTOR);
        let bytes = (capacity * SECTOR) / block * block;
        let length = bytes.min(ENDS);
        let disk = whole(capacity);
        let mut print = Print::new();
        for place in [0, bytes - length] {
            let part = self.read(&disk, place, length as usize, what);
            print.add(&part.await?);
        }
        Ok(print.end())
    }
}

const fn whole(capacity: u64) -> Area {
    Area {
        first_sector: 0,
        sectors: capacity,
        partition: None,
    }
}
