//! What the host offers.

use super::offence::Offence;
use crate::wire::synic::FLAGS;
use crate::wire::{Guid, vmbus};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use firn_task::Few;

/// One channel that the host offers: what is kept of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What kind of device ([`vmbus::class`]).
    pub class: Guid,
    /// Which device.
    pub instance: Guid,
    /// Zero for the device's first channel.
    pub subchannel: u16,
    /// The channel's number, until it is rescinded.
    pub relid: u32,
    /// Where its events are signalled.
    pub connection: u32,
    /// No bit in the interrupt page is needed for that.
    pub dedicated: bool,
    /// The bit of the monitor pages by which they may be signalled as well.
    pub monitor: Option<u8>,
}

struct Known {
    offer: Offer,
    rescinded: bool,
    in_use: bool,
    /// The host did not take the message that closes it.
    left_open: bool,
}

/// Every offer that stands, and those that have to be given back.
#[derive(Default)]
pub(super) struct Offers {
    known: Few<u32, Known>,
    /// Rescinded, out of use, and the host not told yet.
    to_release: VecDeque<u32>,
    releasing: Few<u32, ()>,
}

impl Offers {
    /// Takes up an offer.
    pub(super) fn add(&mut self, wire: &vmbus::Offer) -> Result<(), Offence> {
        let relid = wire.relid;
        if relid == 0 || relid >= FLAGS {
            return Err(Offence::RelidOutOfRange(relid));
        }
        if self.known.contains_key(&relid) {
            return Err(Offence::OfferedTwice(relid));
        }
        if self.releasing.contains_key(&relid) {
            return Err(Offence::OfferedTooEarly(relid));
        }
        if wire.connection == 0 {
            return Err(Offence::OfferWithoutConnection(relid));
        }
        let allocated = wire.monitor_allocated & 1 != 0;
        if allocated && wire.monitor >= vmbus::MONITORS {
            return Err(Offence::MonitorOutOfRange(relid));
        }
        let same = |known: &Known| {
            let other = &known.offer;
            !known.rescinded
                && other.instance == wire.instance
                && other.subchannel == wire.subchannel
        };
        if self.known.values().any(same) {
            return Err(Offence::InstanceTwice(relid));
        }
        let offer = Offer {
            class: wire.class,
            instance: wire.instance,
            subchannel: wire.subchannel,
            relid,
            connection: wire.connection,
            dedicated: wire.dedicated & 1 != 0,
            monitor: allocated.then_some(wire.monitor),
        };
        let known = Known {
            offer,
            rescinded: false,
            in_use: false,
            left_open: false,
        };
        self.known.insert(relid, known);
        Ok(())
    }

    /// The host takes an offer back.
    pub(super) fn rescind(&mut self, relid: u32) -> Result<(), Offence> {
        let Some(known) = self.known.get_mut(&relid) else {
            return Err(Offence::RescindUnknown(relid));
        };
        if core::mem::replace(&mut known.rescinded, true) {
            return Err(Offence::RescindTwice(relid));
        }
        self.give_back(relid);
        Ok(())
    }

    /// Somebody begins to use a channel.
    pub(super) fn take(&mut self, relid: u32) -> Option<Offer> {
        let known = self.known.get_mut(&relid)?;
        if known.rescinded || known.in_use {
            return None;
        }
        known.in_use = true;
        Some(known.offer)
    }

    /// The host could not be told that a channel was closed.
    pub(super) fn leave_open(&mut self, relid: u32) {
        if let Some(known) = self.known.get_mut(&relid) {
            known.left_open = true;
        }
    }

    /// Whether the host takes a channel for open that nobody uses; it is about to
    /// be told.
    pub(super) fn take_left_open(&mut self, relid: u32) -> bool {
        let known = self.known.get_mut(&relid);
        known.is_some_and(|known| core::mem::take(&mut known.left_open))
    }

    /// Nobody uses a channel any more.
    pub(super) fn put_back(&mut self, relid: u32) {
        if let Some(known) = self.known.get_mut(&relid) {
            known.in_use = false;
            self.give_back(relid);
        }
    }

    fn give_back(&mut self, relid: u32) {
        let over = |known: &Known| known.rescinded && !known.in_use;
        if self.known.get(&relid).is_some_and(over) {
            self.known.remove(&relid);
            self.releasing.insert(relid, ());
            self.to_release.push_back(relid);
        }
    }

    /// A channel that the host is to be told of.
    pub(super) fn next_release(&mut self) -> Option<u32> {
        self.to_release.pop_front()
    }

    /// The host was told, and may use the number again.
    pub(super) fn released(&mut self, relid: u32) {
        self.releasing.remove(&relid);
    }

    pub(super) fn is_rescinded(&self, relid: u32) -> bool {
        self.known.get(&relid).is_none_or(|known| known.rescinded)
    }

    pub(super) fn standing(&self) -> Vec<Offer> {
        let all = self.known.values().filter(|known| !known.rescinded);
        all.map(|known| known.offer).collect()
    }

    /// How many channels somebody uses.
    pub(super) fn in_use(&self) -> usize {
        self.known.values().filter(|known| known.in_use).count()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
