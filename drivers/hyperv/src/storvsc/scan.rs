//! Which disks a controller has, and what they are.

use super::controller::Controller;
use super::disks::{Found, Name};
use super::error::ConnectError;
use crate::hal::Hal;
use alloc::vec::Vec;
use firn_block::{Discard, DiskId, DiskInfo, Durability, PAGE, SECTOR};
use firn_scsi::vpd::{self, Limits, Provisioning};
use firn_scsi::{Capacity, Cdb, Condition, DataError, DeviceType, Inquiry, Luns, mode};

/// Bytes of a list of units: a page holds all that one byte can name but the
/// last.
const LUNS: u32 = PAGE as u32;

impl<H: Hal> Controller<H> {
    /// Looks which disks there are, and binds them.
    ///
    /// # Errors
    /// [`ConnectError`] of the controller; what is wrong with a single disk is
    /// noted.
    pub(super) async fn scan(&self) -> Result<(), ConnectError> {
        let units = self.list().await?;
        let (mut found, mut unusable) = (Vec::new(), Vec::new());
        for unit in units {
            match self.describe(unit).await {
                Ok(Some(disk)) => found.push(disk),
                Ok(None) => {}
                Err(error @ (ConnectError::Data(..) | ConnectError::Scsi(..))) => {
                    log::error!("unit {unit}: {error}");
                    unusable.push((unit, error));
                }
                Err(error @ ConnectError::Failed(_)) => unusable.push((unit, error)),
                Err(error) => return Err(error),
            }
        }
        *self.unusable.borrow_mut() = unusable;
        self.bind(&found);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<u8>, ConnectError> {
        let name = "REPORT LUNS";
        let listed = self.command(0, name, Cdb::report_luns(LUNS), LUNS).await;
        let bytes = match listed {
            // Nothing is plugged.
            Err(ConnectError::Scsi(_, Condition::NoUnit)) => return Ok(Vec::new()),
            listed => listed?,
        };
        let luns = Luns::parse(&bytes).map_err(|error| ConnectError::Data(name, error))?;
        if luns.others > 0 {
            log::warn!("{} units cannot be addressed", luns.others);
        }
        Ok(luns.units)
    }

    /// What a unit is; `None` if it is no disk.
    async fn describe(&self, unit: u8) -> Result<Option<Found>, ConnectError> {
        let name = "INQUIRY";
        let bytes = u32::from(Inquiry::BYTES);
        let cdb = Cdb::inquiry(Inquiry::BYTES);
        let answer = self.command(unit, name, cdb, bytes).await?;
        let inquiry = Inquiry::parse(&answer).map_err(|error| ConnectError::Data(name, error))?;
        if !inquiry.present || inquiry.device_type != DeviceType::DISK {
            return Ok(None);
        }
        let pages = self.page_data(unit, vpd::SUPPORTED, vpd::supported).await?;
        let pages = pages.unwrap_or_default();
        let has = |page| pages.contains(&page);
        let mut disk_name = Name {
            product: inquiry.product,
            ..Name::default()
        };
        if has(vpd::SERIAL) {
            let serial = self.page_data(unit, vpd::SERIAL, vpd::serial).await?;
            disk_name.serial = serial.flatten();
        }
        if has(vpd::IDENTIFICATION) {
            let read = vpd::identification;
            let found = self.page_data(unit, vpd::IDENTIFICATION, read).await?;
            disk_name.designator = found.flatten();
        }
        let limits = match has(vpd::LIMITS) {
            true => self.page_data(unit, vpd::LIMITS, vpd::limits).await?,
            false => None,
        };
        let thin = match has(vpd::PROVISIONING) {
            true => {
                let read = vpd::provisioning;
                self.page_data(unit, vpd::PROVISIONING, read).await?
            }
            false => None,
        };
        let capacity = self.capacity(unit).await?;
        let read_only = self.is_write_protected(unit).await?;
        let (limits, thin) = (limits.unwrap_or_default(), thin.unwrap_or_default());
        let mut found = self.found(unit, disk_name, capacity, limits, thin);
        found.info.read_only = read_only;
        Ok(Some(found))
    }

    /// Reads a page of vital product data; `None` if the unit does not have it
    /// after all.
    async fn page_data<T>(
        &self,
        unit: u8,
        page: u8,
        read: impl FnOnce(&[u8]) -> Result<T, DataError>,
    ) -> Result<Option<T>, ConnectError> {
        let name = "INQUIRY of product data";
        let cdb = Cdb::vpd(page, vpd::BYTES);
        match self.command(unit, name, cdb, vpd::BYTES.into()).await {
            Ok(answer) => read(&answer)
                .map(Some)
                .map_err(|error| ConnectError::Data(name, error)),
            Err(ConnectError::Scsi(_, Condition::InvalidField | Condition::UnknownCommand)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How large a disk is: by the long command, or by the short one of old ones.
    async fn capacity(&self, unit: u8) -> Result<Capacity, ConnectError> {
        let name = "READ CAPACITY";
        let bad = |error| ConnectError::Data(name, error);
        let bytes = Capacity::LONG as u32;
        let cdb = Cdb::read_capacity_16(bytes);
        match self.command(unit, name, cdb, bytes).await {
            Err(ConnectError::Scsi(_, Condition::InvalidField | Condition::UnknownCommand)) => {}
            answer => return Capacity::parse_16(&answer?).map_err(bad),
        }
        let (cdb, bytes) = (Cdb::read_capacity_10(), Capacity::SHORT as u32);
        let answer = self.command(unit, name, cdb, bytes).await?;
        let capacity = Capacity::parse_10(&answer).map_err(bad)?;
        capacity.ok_or(bad(DataError::TooLarge { last: u64::MAX }))
    }

    /// Whether a disk may not be written. One that does not say so says it to the
    /// first write.
    async fn is_write_protected(&self, unit: u8) -> Result<bool, ConnectError> {
        let name = "MODE SENSE";
        let bytes = mode::BYTES;
        let answer = self.command(unit, name, Cdb::mode_sense(bytes), bytes.into());
        match answer.await {
            // Hosts have been seen to fail it for no reason.
            Err(
                ConnectError::Failed(_)
                | ConnectError::Scsi(_, Condition::InvalidField | Condition::UnknownCommand),
            ) => Ok(false),
            answer => {
                mode::is_write_protected(&answer?).map_err(|error| ConnectError::Data(name, error))
            }
        }
    }

    fn found(
        &self,
        number: u8,
        name: Name,
        capacity: Capacity,
        limits: Limits,
        thin: Provisioning,
    ) -> Found {
        let (block, per_block) = (capacity.block, u64::from(capacity.block) / SECTOR);
        let mut most = self.most.get();
        if limits.transfer > 0 {
            most = most.min(limits.transfer.saturating_mul(block));
        }
        let granularity = limits.unmap_granularity.max(1).saturating_mul(block);
        let discard = Discard {
            granularity,
            alignment: limits.unmap_alignment.saturating_mul(block),
            secure: false,
        };
        let unmap = thin.unmap && limits.unmap_blocks > 0;
        let write_same = !unmap && thin.write_same && block as usize <= PAGE;
        let unmap_blocks = match (write_same, limits.write_same_blocks) {
            (false, _) => u64::from(limits.unmap_blocks),
            // It does not say: as many as a command can have.
            (true, 0) => u32::MAX.into(),
            (true, most) => most.min(u32::MAX.into()),
        };
        Found {
            number,
            name,
            info: DiskInfo {
                id: DiskId(0),
                capacity: capacity.blocks.saturating_mul(per_block),
                logical_block: block,
                physical_block: capacity.physical,
                read_only: false,
                durability: Durability::Flush,
                discard: (unmap || write_same).then_some(discard),
                max_transfer: (most - most % block).max(block),
                queue_depth: self.config.depth,
            },
            unmap_sectors: unmap_blocks * per_block,
            write_same,
        }
    }
}
