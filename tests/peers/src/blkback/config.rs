//! What a backend offers and how it works.

use super::offence::BlkOffence;
use firn_xen::wire::DomId;
use std::collections::BTreeMap;

/// In which order requests that can be answered are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they came.
    Fifo,
    /// The last first.
    Reversed,
    /// By the seed; also, some stay for a later step.
    Random,
}

/// When the features are in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Before `InitWait`, as QEMU does.
    Early,
    /// Only what the ring needs before `InitWait`, the rest before
    /// `Connected`, as Linux does.
    Late,
}

/// What is said about discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardConfig {
    /// `discard-granularity` in bytes.
    pub granularity: u32,
    /// `discard-alignment` in bytes.
    pub alignment: u32,
    /// `discard-secure`.
    pub secure: bool,
}

/// A backend's settings. [`Config::default`] is like Linux' blkback on a disk
/// of 512-byte sectors with a volatile cache.
#[derive(Clone, Debug)]
pub struct Config {
    /// The virtual device number: 51712 is `xvda`.
    pub device: u32,
    /// The domain that the backend runs in.
    pub domain: DomId,
    /// `feature-persistent`.
    pub persistent: bool,
    /// `feature-max-indirect-segments`, 0 for none.
    pub indirect: u32,
    /// `max-ring-page-order`; absent if `None`.
    pub ring_order: Option<u32>,
    /// `feature-flush-cache`.
    pub flush: bool,
    /// `feature-barrier`.
    pub barrier: bool,
    /// `feature-discard` and what goes with it.
    pub discard: Option<DiscardConfig>,
    /// `sector-size` in bytes.
    pub sector_size: u32,
    /// `physical-sector-size` in bytes; absent if `None`.
    pub physical_sector_size: Option<u32>,
    /// `mode` and the flag in `info`.
    pub read_only: bool,
    /// When the features are published.
    pub publish: Publish,
    /// How requests are answered.
    pub order: Order,
    /// So many steps pass between taking a request and answering it.
    pub delay: u64,
    /// Grants that a persistent backend keeps mapped at most.
    pub max_persistent: usize,
    /// Seed of [`Order::Random`].
    pub seed: u64,
    /// Keys that are written differently: other text, or not at all.
    pub keys: BTreeMap<&'static str, Option<String>>,
    /// What it does wrong from the start.
    pub offences: Vec<BlkOffence>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: 51712,
            domain: DomId(0),
            persistent: true,
            indirect: 256,
            ring_order: Some(4),
            flush: true,
            barrier: true,
            discard: None,
            sector_size: 512,
            physical_sector_size: Some(512),
            read_only: false,
            publish: Publish::Late,
            order: Order::Fifo,
            delay: 0,
            max_persistent: 1056,
            seed: 1,
            keys: BTreeMap::new(),
            offences: Vec::new(),
        }
    }
}

impl Config {
    /// The poorest backend: one ring page, no optional feature.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            persistent: false,
            indirect: 0,
            ring_order: None,
            flush: false,
            barrier: false,
            physical_sector_size: None,
            ..Self::default()
        }
    }

    /// The `index`th disk: 0 is `xvda`.
    #[must_use]
    pub fn disk(mut self, index: u32) -> Self {
        self.device = 202 << 8 | index << 4;
        self
    }

    /// Writes a key with other text.
    #[must_use]
    pub fn key(mut self, name: &'static str, text: &str) -> Self {
        self.keys.insert(name, Some(text.to_owned()));
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn without(mut self, name: &'static str) -> Self {
        self.keys.insert(name, None);
        self
    }

    /// Misbehaves from the start.
    #[must_use]
    pub fn offending(mut self, offence: BlkOffence) -> Self {
        self.offences.push(offence);
        self
    }

    /// Keys that the frontend needs to make its ring.
    pub(super) fn early_keys(&self) -> Vec<(&'static str, String)> {
        let order = self.ring_order.map(|order| order.to_string());
        order
            .map(|order| ("max-ring-page-order", order))
            .into_iter()
            .collect()
    }

    /// All other keys of the backend's.
    pub(super) fn late_keys(&self, capacity: u64) -> Vec<(&'static str, String)> {
        let bit = |yes: bool| u32::from(yes).to_string();
        let mut keys = vec![
            ("sectors", capacity.to_string()),
            ("sector-size", self.sector_size.to_string()),
            ("info", (u32::from(self.read_only) * 4).to_string()),
            ("feature-persistent", bit(self.persistent)),
        ];
        // Linux writes these whatever they are, QEMU only if they are true.
        if self.flush || self.publish == Publish::Late {
            keys.push(("feature-flush-cache", bit(self.flush)));
        }
        if self.barrier || self.publish == Publish::Late {
            keys.push(("feature-barrier", bit(self.barrier)));
        }
        if self.indirect > 0 {
            keys.push(("feature-max-indirect-segments", self.indirect.to_string()));
        }
        if let Some(size) = self.physical_sector_size {
            keys.push(("physical-sector-size", size.to_string()));
        }
        if let Some(discard) = self.discard {
            keys.push(("feature-discard", bit(true)));
            keys.push(("discard-granularity", discard.granularity.to_string()));
            keys.push(("discard-alignment", discard.alignment.to_string()));
            keys.push(("discard-secure", bit(discard.secure)));
        }
        keys
    }
}
