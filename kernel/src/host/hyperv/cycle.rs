//! Leaving the bus, and coming back: the last steps of a freeze, the first of the
//! way back from one, and the same again and again to see that nothing is lost.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use firn_hyperv::vmbus::{Channel, ChannelConfig};
use firn_power::Fault;

use super::HyperVPlatform;
use crate::mm::{self, Memory};

/// Pages of a ring that is only opened.
const RING_PAGES: usize = 4;

impl HyperVPlatform {
    /// Closes the services, unloads the bus, then turns the clock's page, SynIC and
    /// hypercall page off. The disks were disconnected before.
    ///
    /// # Errors
    /// [`Fault::InUse`] while a disk is connected. What the host answers to the
    /// unload: contact is made anew then, so that disks can be connected again.
    pub(in crate::host) async fn leave(&self) -> Result<(), Fault> {
        if !self.is_away() {
            return Err(Fault::InUse);
        }
        let idle = self.scsi.disconnect_idle().await;
        idle.map_err(|error| Fault::Other(error.to_string()))?;
        if self.bus.version().is_some() {
            self.services.close().await;
            if let Err(error) = self.bus.unload().await {
                // Whoever undoes a freeze needs the disks.
                let _ = self.bus.connect().await;
                self.services.open();
                return Err(Fault::Other(error.to_string()));
            }
        }
        super::keep_clock_page(false);
        self.hv.turn_off();
        Ok(())
    }

    /// Turns everything on again, and makes contact.
    ///
    /// # Errors
    /// What did not work, in words.
    pub(super) async fn come_back(&self) -> Result<(), String> {
        self.hv.turn_on().map_err(|error| error.to_string())?;
        super::keep_clock_page(true);
        let contacted = self.bus.connect().await;
        contacted.map(drop).map_err(|error| error.to_string())
    }

    /// Opens and closes every channel that nobody uses, leaves, and comes back, so
    /// many times; says what was lost by that. There must be no connected disk.
    ///
    /// # Errors
    /// What did not work, in words, and in which round.
    pub(crate) async fn cycle(&self, times: u64) -> Result<Cycles, String> {
        if !self.is_away() {
            return Err("disks are connected: this is for a bus without any".into());
        }
        // They would have some of the channels open.
        self.services.close().await;
        let done = self.cycle_alone(times).await;
        self.services.open();
        done
    }

    async fn cycle_alone(&self, times: u64) -> Result<Cycles, String> {
        let mut opened = 0;
        // The first round takes what is kept ever after.
        let mut before = None;
        for round in 0..=times {
            let done = self.round().await;
            opened += done.map_err(|why| format!("round {round}: {why}"))?;
            before.get_or_insert_with(|| (opened, self.held()));
        }
        let (first, before) = before.unwrap_or_default();
        let after = self.held();
        Ok(Cycles {
            version: self.bus.version().map(|version| version.to_string()),
            opened: opened - first,
            leaks: Leaks {
                gpadls: after.gpadls,
                channels: after.channels,
                pages: after.pages.saturating_sub(before.pages),
                bytes: after.bytes.saturating_sub(before.bytes),
            },
        })
    }

    async fn round(&self) -> Result<u64, String> {
        let mut opened = 0;
        for offer in self.bus.offers() {
            let config = ChannelConfig {
                ring_pages: RING_PAGES,
                interrupts: true,
                longest: 4096,
            };
            let channel = Channel::open(&self.bus, offer.relid, config).await;
            let channel = channel.map_err(|error| format!("opening {}: {error}", offer.class))?;
            let closed = channel.close().await;
            closed.map_err(|error| format!("closing {}: {error}", offer.class))?;
            opened += 1;
        }
        self.leave().await.map_err(|fault| fault.to_string())?;
        self.come_back().await?;
        Ok(opened)
    }

    /// What is held now of everything that could be lost.
    fn held(&self) -> Leaks {
        Leaks {
            gpadls: self.bus.gpadls() as u64,
            channels: self.bus.channels() as u64,
            pages: mm::used_frames(),
            bytes: mm::counts(Memory::Boot).used as u64,
        }
    }
}

/// What came of many rounds.
pub(crate) struct Cycles {
    /// The version of the last contact.
    pub(crate) version: Option<String>,
    /// Channels that were opened and closed.
    pub(crate) opened: u64,
    /// What was lost.
    pub(crate) leaks: Leaks,
}

/// What the host or nobody has.
#[derive(Clone, Copy, Default)]
pub(crate) struct Leaks {
    pub(crate) gpadls: u64,
    pub(crate) channels: u64,
    /// Frames of drivers.
    pub(crate) pages: u64,
    /// Of the kernel's heap.
    pub(crate) bytes: u64,
}

impl Leaks {
    /// Names and numbers.
    pub(crate) fn list(&self) -> Vec<(&'static str, u64)> {
        Vec::from([
            ("leaked_gpadls", self.gpadls),
            ("leaked_channels", self.channels),
            ("leaked_pages", self.pages),
            ("leaked_bytes", self.bytes),
        ])
    }
}
