//! What a host is like.

use super::offence::HvOffence;
use firn_hyperv::wire::vmbus::Version;
use std::time::Duration;

/// A VMBus host.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The version that it speaks, and none other: each is accepted alone.
    pub newest: Version,
    /// The oldest that it speaks.
    pub oldest: Version,
    /// It has no connection 4, as hosts before 5.0 have none.
    pub no_new_connection: bool,
    /// Its answers to a version are as short as they may be.
    pub short_answers: bool,
    /// Where messages go from 5.0 on.
    pub message_connection: u32,
    /// The first channel's number.
    pub first_relid: u32,
    /// Whether events of its channels need no interrupt page.
    pub dedicated: bool,
    /// Whether its channels have bits in the monitor pages.
    pub monitors: bool,
    /// How long an unload takes.
    pub unload: Duration,
    /// What it does wrong from the beginning.
    pub offences: Vec<HvOffence>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            newest: Version::V6_0,
            oldest: Version::V2_4,
            no_new_connection: false,
            short_answers: false,
            message_connection: 0x1_0007,
            first_relid: 11,
            dedicated: true,
            monitors: false,
            unload: Duration::ZERO,
            offences: Vec::new(),
        }
    }
}

impl HostConfig {
    /// A host that speaks one version.
    #[must_use]
    pub fn only(version: Version) -> Self {
        Self {
            newest: version,
            oldest: version,
            no_new_connection: version < Version::V5_0,
            ..Self::default()
        }
    }

    /// The same with an offence from the beginning.
    #[must_use]
    pub fn offending(mut self, offence: HvOffence) -> Self {
        self.offences.push(offence);
        self
    }
}
