//! Further channels of a controller: asked for after the handshake, offered under
//! the controller's instance with numbers from 1 on, opened without a handshake of
//! their own. They carry requests of disks; everything else goes by the first
//! channel. A connection does without them wherever they do not come.

use super::controller::Controller;
use super::error::ConnectError;
use super::packet;
use crate::hal::Hal;
use crate::vmbus::{BusError, Channel, Offer};
use crate::wire::vmbus::class;
use crate::wire::vstor::{Status, Version};
use alloc::vec::Vec;
use core::fmt;
use firn_task::{Instant, timeout_at};

/// Most channels of a controller besides the first. A host serves each by itself, but
/// on one processor the guest gains nothing by more of them than the host has hands
/// for one disk; and each has rings of its own.
pub const MOST_SUBCHANNELS: u16 = 3;

/// Most pages of each ring of a further channel, the control page included: room for
/// the packets that are in flight on one of several.
const RING_PAGES: usize = 16;

/// Why a controller has fewer channels than its host said that it may have. It works
/// all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// The host refuses to make any.
    Refused(Status),
    /// The host does not say whether it makes any.
    NoAnswer,
    /// Fewer were offered in time than were asked for.
    Offers {
        /// Asked for.
        asked: u16,
        /// Offered.
        came: u16,
    },
    /// One that was offered could not be opened, the last one of them for this.
    NotOpened(BusError),
    /// The host took one back. What was in flight on it was sent again.
    TakenBack,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the host refuses subchannels: {status}"),
            Self::NoAnswer => f.write_str("no answer to the wish for subchannels"),
            Self::Offers { asked, came } => write!(f, "{came} of {asked} subchannels offered"),
            Self::NotOpened(error) => write!(f, "a subchannel did not open: {error}"),
            Self::TakenBack => f.write_str("the host took a subchannel back"),
        }
    }
}

impl<H: Hal> Controller<H> {
    /// Pages of each ring of a further channel.
    pub(super) fn subchannel_pages(&self) -> usize {
        self.config.ring_pages.min(RING_PAGES)
    }

    /// Asks for further channels, of `most` that there may be, and opens those that
    /// are offered in time.
    ///
    /// # Errors
    /// [`ConnectError`] of the first channel or of the bus. That there are fewer, or
    /// none, is noted as a [`Shortfall`].
    pub(super) async fn add_channels(&self, most: u16) -> Result<(), ConnectError> {
        self.shortfall.set(None);
        let asked = most.min(self.config.subchannels).min(MOST_SUBCHANNELS);
        if asked == 0 || !self.version().is_some_and(Version::has_subchannels) {
            return Ok(());
        }
        let until = self.now() + self.config.subchannel_deadline;
        match self.ask(&packet::create(asked), until).await {
            Ok(answer) if answer.status == Status::SUCCESS => {}
            Ok(answer) => return self.fall_short(Shortfall::Refused(answer.status)),
            Err(ConnectError::Deadline(_)) => return self.fall_short(Shortfall::NoAnswer),
            Err(error) => return Err(error),
        }
        let offers = self.wait_for_subchannels(asked, until).await?;
        let came = u16::try_from(offers.len()).unwrap_or(u16::MAX);
        if came < asked {
            self.fall_short(Shortfall::Offers { asked, came })?;
        }
        for offer in offers {
            let opened = self.open_channel(offer.relid, self.subchannel_pages());
            match opened.await {
                Ok(channel) => self.add_channel(channel),
                Err(error) => {
                    self.fall_short(Shortfall::NotOpened(error))?;
                    if matches!(error, BusError::Deadline(_)) {
                        // It would not answer for the others either.
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_channel(&self, channel: Channel<H>) {
        if let Some(link) = self.wire.link.borrow_mut().as_mut() {
            link.add_channel(channel);
        }
    }

    fn fall_short(&self, why: Shortfall) -> Result<(), ConnectError> {
        log::warn!("controller {}: {why}", self.instance);
        self.shortfall.set(Some(why));
        self.changed.notify();
        // It may be so because nothing works any more.
        self.check()?;
        Ok(self.bus.check()?)
    }

    /// The controller's further channels that are offered now, numbered up to `most`.
    fn subchannels(&self, most: u16) -> Vec<Offer> {
        let ours = |offer: &Offer| {
            offer.class == class::SCSI
                && offer.instance == self.instance
                && (1..=most).contains(&offer.subchannel)
        };
        let mut offers = self.bus.offers();
        offers.retain(ours);
        offers.sort_unstable_by_key(|offer| offer.subchannel);
        offers
    }

    /// Waits until all that were asked for are offered, or until it is late.
    async fn wait_for_subchannels(
        &self,
        asked: u16,
        until: Instant,
    ) -> Result<Vec<Offer>, ConnectError> {
        loop {
            let seen = self.bus.changed().seen();
            let offers = self.subchannels(asked);
            self.check()?;
            self.bus.check()?;
            if offers.len() == usize::from(asked) || self.now() >= until {
                return Ok(offers);
            }
            let changed = self.bus.changed().changed(seen);
            // At the deadline, one more look.
            let _ = timeout_at(&*self.wire.hv, until, changed).await;
        }
    }

    /// Has the host close further channels that somebody opened and gave up: it is to
    /// be done before the first one is closed or opened.
    pub(super) async fn close_left_open(&self) {
        for offer in self.subchannels(u16::MAX) {
            // One that is in use is closed by whoever uses it.
            let _ = Channel::close_left_open(&self.bus, offer.relid).await;
        }
    }

    /// Lets go of further channels that the host has taken back. Their requests go by
    /// the others.
    pub(super) async fn drop_lost_channels(&self) {
        while let Some(Some(channel)) = self.wire.with(|link| Ok(link.take_lost())) {
            log::warn!("controller {}: {}", self.instance, Shortfall::TakenBack);
            self.shortfall.set(Some(Shortfall::TakenBack));
            self.wire.attention.notify();
            self.changed.notify();
            // There is nothing to wait for: the host has let go.
            let _ = channel.close().await;
        }
    }
}
