//! What the backend says about itself: read once, checked, then believed.

use super::connect::ConnectError;
use crate::hal::Hal;
use crate::store::{Store, StoreError};
use crate::wire::blkif::{
    MAX_INDIRECT_PAGES, MAX_SEGMENTS, SEGMENTS_PER_INDIRECT_PAGE, VDISK_CDROM, VDISK_READONLY,
};
use alloc::format;
use alloc::string::{String, ToString};
use core::str::FromStr;
use firn_block::{Discard, Durability, PAGE, SECTOR};
use firn_task::{Few, join_all};

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

/// Every key that is read from a backend.
const KEYS: [&str; 14] = [
    "max-ring-page-order",
    "max-ring-pages",
    "feature-persistent",
    "feature-max-indirect-segments",
    "feature-flush-cache",
    "feature-barrier",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "discard-secure",
    "sector-size",
    "physical-sector-size",
    "sectors",
    "info",
];

/// One backend's keys as they were at one moment: each is read once, so a
/// backend that changes its mind cannot be half believed.
pub(super) struct Keys(Few<&'static str, String>);

impl Keys {
    /// Reads all keys at once; absent ones are left out.
    pub(super) async fn read<H: Hal>(store: &Store<H>, backend: &str) -> Result<Self, StoreError> {
        let reads = KEYS.map(async |key| (key, store.read(&format!("{backend}/{key}")).await));
        let mut keys = Few::new();
        for (key, value) in join_all(reads).await {
            match value {
                Ok(value) => {
                    keys.insert(key, value);
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(keys))
    }

    fn number<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, ConnectError> {
        let Some(text) = self.0.get(&key) else {
            return Ok(None);
        };
        let number = text.trim().parse();
        number
            .map(Some)
            .map_err(|_| bad(key, text, "not a number of the key's range"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, ConnectError> {
        match self.number::<u32>(key)? {
            None | Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(other) => Err(bad(key, &other.to_string(), "neither 0 nor 1")),
        }
    }

    /// The ring order to use: both dialects of the key are understood.
    pub(super) fn ring_order(&self, most: u32) -> Result<u32, ConnectError> {
        let order = self.number::<u32>("max-ring-page-order")?;
        let pages = self.number::<u32>("max-ring-pages")?;
        let offered = match (order, pages) {
            (Some(order), _) => order,
            (None, Some(0)) => return Err(bad("max-ring-pages", "0", "a ring needs a page")),
            (None, Some(pages)) => pages.ilog2(),
            (None, None) => 0,
        };
        Ok(offered.min(most).min(MAX_RING_ORDER))
    }

    /// The disk's size alone, as it may change while connected.
    pub(super) fn capacity(&self, logical_block: u32) -> Result<u64, ConnectError> {
        let sectors = self.number::<u64>("sectors")?;
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

    fn blocks(&self) -> Result<(u32, u32), ConnectError> {
        let sector = u32::try_from(SECTOR).unwrap_or(512);
        let logical = self.number("sector-size")?.unwrap_or(sector);
        if !logical.is_power_of_two() || logical < sector || logical as usize > PAGE {
            let why = "not a power of two from 512 to 4096";
            return Err(bad("sector-size", &logical.to_string(), why));
        }
        let physical = self.number("physical-sector-size")?.unwrap_or(logical);
        if physical == 0 || physical % logical != 0 {
            let why = "not a multiple of sector-size";
            return Err(bad("physical-sector-size", &physical.to_string(), why));
        }
        Ok((logical, physical))
    }

    fn discard(&self, logical_block: u32) -> Result<Option<Discard>, ConnectError> {
        if !self.flag("feature-discard")? {
            return Ok(None);
        }
        let granularity = self.number("discard-granularity")?;
        Ok(Some(Discard {
            granularity: granularity.unwrap_or(logical_block).max(logical_block),
            alignment: self.number("discard-alignment")?.unwrap_or(0),
            secure: self.flag("discard-secure")?,
        }))
    }

    /// Everything that counts once the backend is connected.
    pub(super) fn features(&self, most_segments: usize) -> Result<Features, ConnectError> {
        let (logical_block, physical_block) = self.blocks()?;
        let info = self.number::<u32>("info")?.unwrap_or(0);
        if info & VDISK_CDROM != 0 {
            return Err(bad("info", &info.to_string(), "CD-ROMs are not driven"));
        }
        let indirect = self.number::<u32>("feature-max-indirect-segments")?;
        let flush = self.flag("feature-flush-cache")?;
        let barrier = self.flag("feature-barrier")?;
        Ok(Features {
            persistent: self.flag("feature-persistent")?,
            segments: usable_segments(indirect.unwrap_or(0), most_segments),
            durability: match (flush, barrier) {
                (true, _) => Durability::Flush,
                (false, true) => Durability::Barrier,
                (false, false) => Durability::None,
            },
            discard: self.discard(logical_block)?,
            logical_block,
            physical_block,
            capacity: self.capacity(logical_block)?,
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

    fn keys(pairs: &[(&'static str, &str)]) -> Keys {
        let own = |(key, value): &(&'static str, &str)| (*key, value.to_string());
        Keys(pairs.iter().map(own).collect())
    }

    fn culprit(pairs: &[(&'static str, &str)]) -> &'static str {
        match keys(pairs).features(usize::MAX) {
            Err(ConnectError::BadValue { key, .. }) => key,
            other => panic!("{pairs:?} gives {other:?}"),
        }
    }

    #[test]
    fn segments_stay_within_what_both_can() {
        assert_eq!(usable_segments(0, 4096), 11);
        assert_eq!(usable_segments(11, 4096), 11);
        assert_eq!(usable_segments(256, 4096), 256);
        assert_eq!(usable_segments(256, 32), 32);
        assert_eq!(usable_segments(u32::MAX, usize::MAX), 4096);
    }

    #[test]
    fn a_backend_that_says_little_is_a_plain_disk() {
        let features = keys(&[("sectors", "9")]).features(usize::MAX);
        let features = features.expect("enough to go by");
        assert_eq!((features.capacity, features.logical_block), (9, 512));
        assert_eq!(features.segments, MAX_SEGMENTS);
        assert_eq!(features.durability, Durability::None);
        assert!(!features.persistent && !features.read_only && features.discard.is_none());
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(culprit(&[]), "sectors");
        for sectors in [
            "0",
            "-1",
            "x",
            "",
            "36028797018963968",
            "18446744073709551616",
        ] {
            assert_eq!(culprit(&[("sectors", sectors)]), "sectors", "{sectors}");
        }
        for size in ["0", "511", "513", "1000", "8192", "4294967296"] {
            let pairs = [("sectors", "64"), ("sector-size", size)];
            assert_eq!(culprit(&pairs), "sector-size", "{size}");
        }
        for size in ["0", "6000"] {
            let pairs = [
                ("sectors", "64"),
                ("sector-size", "4096"),
                ("physical-sector-size", size),
            ];
            assert_eq!(culprit(&pairs), "physical-sector-size", "{size}");
        }
        assert_eq!(
            culprit(&[("sectors", "7"), ("sector-size", "4096")]),
            "sectors"
        );
        for flag in [
            "feature-persistent",
            "feature-flush-cache",
            "feature-discard",
        ] {
            assert_eq!(culprit(&[("sectors", "64"), (flag, "2")]), flag);
        }
        assert_eq!(culprit(&[("sectors", "64"), ("info", "1")]), "info");
    }

    #[test]
    fn both_dialects_of_the_ring_size_are_understood() {
        let order = |pairs: &[(&'static str, &str)]| keys(pairs).ring_order(MAX_RING_ORDER);
        assert_eq!(order(&[]), Ok(0));
        assert_eq!(order(&[("max-ring-page-order", "3")]), Ok(3));
        assert_eq!(order(&[("max-ring-page-order", "31")]), Ok(4));
        assert_eq!(order(&[("max-ring-pages", "8")]), Ok(3));
        assert!(order(&[("max-ring-pages", "0")]).is_err());
        assert_eq!(keys(&[("max-ring-page-order", "4")]).ring_order(0), Ok(0));
    }
}
