//! What the backend says about itself: read once, checked, then believed.

use super::connect::ConnectError;
use crate::hal::Hal;
use crate::store::Store;
use crate::wire::blkif::{
    MAX_INDIRECT_PAGES, MAX_SEGMENTS, SEGMENTS_PER_INDIRECT_PAGE, VDISK_CDROM, VDISK_READONLY,
};
use alloc::format;
use alloc::string::{String, ToString};
use core::str::FromStr;
use firn_block::{Discard, Durability, PAGE, SECTOR};

/// The largest ring that is used, as a power of two of pages.
pub const MAX_RING_ORDER: u32 = 4;

/// What a backend offers, within what this frontend can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// It keeps grants mapped.
    pub persistent: bool,
    /// Segments of one request, at least [`MAX_SEGMENTS`]; more means indirect
    /// requests.
    pub segments: usize,
    /// How writes become durable.
    pub durability: Durability,
    /// Discard, where offered.
    pub discard: Option<Discard>,
    /// Bytes of a logical block.
    pub logical_block: u32,
    /// Bytes of a physical block.
    pub physical_block: u32,
    /// Sectors of 512 bytes, whole logical blocks.
    pub capacity: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// Reads one backend's keys.
pub(super) struct Keys<'a, H: Hal> {
    pub(super) store: &'a Store<H>,
    pub(super) backend: &'a str,
}

impl<H: Hal> Keys<'_, H> {
    async fn text(&self, key: &'static str) -> Result<Option<String>, ConnectError> {
        match self.store.read(&format!("{}/{key}", self.backend)).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(ConnectError::Store(error)),
        }
    }

    async fn number<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, ConnectError> {
        let Some(text) = self.text(key).await? else {
            return Ok(None);
        };
        let number = text.trim().parse();
        number
            .map(Some)
            .map_err(|_| bad(key, &text, "not a number of the key's range"))
    }

    async fn flag(&self, key: &'static str) -> Result<bool, ConnectError> {
        match self.number::<u32>(key).await? {
            None | Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(bad(key, &other.to_string(), "neither 0 nor 1")),
        }
    }

    /// The ring order to use: both dialects of the key are understood.
    pub(super) async fn ring_order(&self, most: u32) -> Result<u32, ConnectError> {
        let order = self.number::<u32>("max-ring-page-order").await?;
        let pages = self.number::<u32>("max-ring-pages").await?;
        let offered = match (order, pages) {
            (Some(order), _) => order,
            (None, Some(0)) => return Err(bad("max-ring-pages", "0", "a ring needs a page")),
            (None, Some(pages)) => pages.ilog2(),
            (None, None) => 0,
        };
        Ok(offered.min(most).min(MAX_RING_ORDER))
    }

    /// The disk's size alone, as it may change while connected.
    pub(super) async fn capacity(&self, logical_block: u32) -> Result<u64, ConnectError> {
        let sectors = self.number::<u64>("sectors").await?;
        let sectors = sectors.ok_or_else(|| bad("sectors", "", "missing"))?;
        if sectors.checked_mul(SECTOR).is_none() {
            return Err(bad("sectors", &sectors.to_string(), "beyond 2^64 bytes"));
        }
        let capacity = sectors - sectors % (u64::from(logical_block) / SECTOR);
        if capacity == 0 {
            return Err(bad(
                "sectors",
                &sectors.to_string(),
                "the disk has no blocks",
            ));
        }
        Ok(capacity)
    }

    async fn blocks(&self) -> Result<(u32, u32), ConnectError> {
        let sector = u32::try_from(SECTOR).unwrap_or(512);
        let logical = self.number("sector-size").await?.unwrap_or(sector);
        if !logical.is_power_of_two() || logical < sector || logical as usize > PAGE {
            let why = "not a power of two from 512 to 4096";
            return Err(bad("sector-size", &logical.to_string(), why));
        }
        let physical = self.number("physical-sector-size").await?;
        let physical = physical.unwrap_or(logical);
        if physical == 0 || physical % logical != 0 {
            let why = "not a multiple of sector-size";
            return Err(bad("physical-sector-size", &physical.to_string(), why));
        }
        Ok((logical, physical))
    }

    async fn discard(&self, logical_block: u32) -> Result<Option<Discard>, ConnectError> {
        if !self.flag("feature-discard").await? {
            return Ok(None);
        }
        let granularity = self.number("discard-granularity").await?;
        Ok(Some(Discard {
            granularity: granularity.unwrap_or(logical_block).max(logical_block),
            alignment: self.number("discard-alignment").await?.unwrap_or(0),
            secure: self.flag("discard-secure").await?,
        }))
    }

    /// Everything that counts once the backend is connected.
    pub(super) async fn features(&self, most_segments: usize) -> Result<Features, ConnectError> {
        let (logical_block, physical_block) = self.blocks().await?;
        let info = self.number::<u32>("info").await?.unwrap_or(0);
        if info & VDISK_CDROM != 0 {
            return Err(bad("info", &info.to_string(), "CD-ROMs are not driven"));
        }
        let indirect = self.number::<u32>("feature-max-indirect-segments").await?;
        let flush = self.flag("feature-flush-cache").await?;
        let barrier = self.flag("feature-barrier").await?;
        Ok(Features {
            persistent: self.flag("feature-persistent").await?,
            segments: usable_segments(indirect.unwrap_or(0), most_segments),
            durability: match (flush, barrier) {
                (true, _) => Durability::Flush,
                (false, true) => Durability::Barrier,
                (false, false) => Durability::None,
            },
            discard: self.discard(logical_block).await?,
            logical_block,
            physical_block,
            capacity: self.capacity(logical_block).await?,
            read_only: info & VDISK_READONLY != 0,
        })
    }
}

/// How many segments a request may have; a block of 4096 bytes never straddles
/// two requests, because a segment is at most a page and pages are aligned.
fn usable_segments(indirect: u32, most: usize) -> usize {
    let limit = (MAX_INDIRECT_PAGES * SEGMENTS_PER_INDIRECT_PAGE).min(most);
    (indirect as usize).min(limit).max(MAX_SEGMENTS)
}

fn bad(key: &'static str, value: &str, why: &'static str) -> ConnectError {
    ConnectError::BadValue {
        key,
        value: value.to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stay_within_what_both_can() {
        assert_eq!(usable_segments(0, 4096), 11);
        assert_eq!(usable_segments(11, 4096), 11);
        assert_eq!(usable_segments(256, 4096), 256);
        assert_eq!(usable_segments(256, 32), 32);
        assert_eq!(usable_segments(u32::MAX, usize::MAX), 4096);
    }
}
