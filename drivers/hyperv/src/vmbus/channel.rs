//! A channel: two rings that the host reaches by a GPADL.

use super::wait::Key;
use super::{BusError, Offer, Vmbus, relid_only, succeeded};
use crate::hal::Hal;
use crate::ring::Ring;
use crate::wire::hypercall::Status;
use crate::wire::vmbus::{Header, Kind, NO_INTERRUPTS, Open};
use alloc::rc::Rc;
use core::sync::atomic::Ordering::AcqRel;
use firn_block::shm::Region;
use firn_task::{Instant, Signal};
use zerocopy::IntoBytes;

/// Where the half of the interrupt page begins that the guest writes.
const OUTGOING_HALF: usize = 2048;

/// How a channel is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Pages of each ring, the control page included: 2 at least.
    pub ring_pages: usize,
    /// Whether the host is to send interrupts. Without them the channel has to
    /// be polled.
    pub interrupts: bool,
    /// Bytes of the longest packet that is taken, head and trailer included.
    pub longest: u32,
}

/// An open channel. Whoever drops it without [`Channel::close`] leaks its memory:
/// the host may still write it.
pub struct Channel<H: Hal> {
    bus: Rc<Vmbus<H>>,
    offer: Offer,
    gpadl: u32,
    memory: Region,
    /// Both rings.
    pub ring: Ring,
}

impl<H: Hal> Channel<H> {
    /// Opens an offered channel.
    ///
    /// # Errors
    /// [`BusError`]; nothing is shared with the host then, unless it did not
    /// answer: then the memory is given up.
    pub async fn open(
        bus: &Rc<Vmbus<H>>,
        relid: u32,
        config: ChannelConfig,
    ) -> Result<Self, BusError> {
        bus.check()?;
        let taken = bus.offers.borrow_mut().take(relid);
        let offer = taken.ok_or(BusError::Rescinded)?;
        let opened = Self::open_offer(bus, offer, config).await;
        if opened.is_err() {
            bus.offers.borrow_mut().put_back(relid);
            bus.changed.notify();
        }
        opened
    }

    async fn open_offer(
        bus: &Rc<Vmbus<H>>,
        offer: Offer,
        config: ChannelConfig,
    ) -> Result<Self, BusError> {
        let pages = config.ring_pages.max(2);
        let memory = bus.hv.hal.alloc_shared(2 * pages);
        let memory = memory.ok_or(BusError::NoMemory)?;
        if let Err(error) = Self::close_of_before(bus, offer.relid).await {
            bus.hv.hal.free_shared(memory);
            return Err(error);
        }
        let (send, receive) = (memory.pages(0, pages), memory.pages(pages, pages));
        let ring = Ring::new(send, receive, config.longest);
        let until = bus.reply_deadline();
        let gpadl = match bus.create_gpadl(offer.relid, &memory, until).await {
            Ok(gpadl) => gpadl,
            Err(error) => {
                // Where the host did not say, it may have it yet.
                if matches!(error, BusError::Refused(..) | BusError::Rescinded) {
                    bus.hv.hal.free_shared(memory);
                }
                return Err(error);
            }
        };
        let channel = Self {
            bus: bus.clone(),
            offer,
            gpadl,
            memory,
            ring,
        };
        match channel.ask_to_open(config, until).await {
            Ok(()) => Ok(channel),
            Err(error) => {
                channel.take_memory_back().await;
                Err(error)
            }
        }
    }

    /// Tells the host that a channel is closed, if it did not take that message when
    /// it was.
    async fn close_of_before(bus: &Vmbus<H>, relid: u32) -> Result<(), BusError> {
        if !bus.offers.borrow_mut().take_left_open(relid) {
            return Ok(());
        }
        bus.send_close(relid, bus.reply_deadline()).await
    }

    async fn ask_to_open(&self, config: ChannelConfig, until: Instant) -> Result<(), BusError> {
        let relid = self.offer.relid;
        self.bus.hv.synic.forget(relid);
        let target_vp = match config.interrupts {
            true => self.bus.hv.vp_index(),
            false => NO_INTERRUPTS,
        };
        let message = Open {
            header: Header::new(Kind::OPEN),
            relid,
            open_id: relid,
            gpadl: self.gpadl,
            target_vp,
            downstream_page: (self.memory.page_count() / 2) as u32,
            user: [0; 120],
        };
        let (key, bytes) = (Key::Open(relid), message.as_bytes());
        let reply = self.bus.ask(Kind::OPEN, bytes, key, Some(relid), until);
        succeeded(key, reply.await?)
    }

    /// Has the host let go of the memory; if it does not, the memory is given up.
    async fn take_memory_back(self) {
        let until = self.bus.reply_deadline();
        let relid = self.offer.relid;
        match self.bus.tear_down_gpadl(relid, self.gpadl, until).await {
            Ok(()) => self.bus.hv.hal.free_shared(self.memory),
            Err(error) => log::warn!(
                "relid {relid}: {} pages are given up: {error}",
                self.memory.page_count()
            ),
        }
    }

    /// What was offered.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether the host has taken the offer back: nothing more will be answered.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.bus.is_rescinded(self.offer.relid)
    }

    /// Whether the host signalled since this was last asked.
    #[must_use]
    pub fn take_event(&self) -> bool {
        self.bus.hv.synic.take_event(self.offer.relid)
    }

    /// Notified when the host signals.
    #[must_use]
    pub fn events(&self) -> Rc<Signal> {
        self.bus.hv.synic.signal(self.offer.relid)
    }

    /// Tells the host that there is something on the ring, or room again.
    ///
    /// # Errors
    /// What the host said.
    pub fn signal(&self) -> Result<(), Status> {
        let relid = self.offer.relid as usize;
        if !self.offer.dedicated {
            let word = OUTGOING_HALF + relid / 32 * 4;
            let word = self.bus.interrupt_page().atomic_u32(word);
            word.fetch_or(1 << (relid % 32), AcqRel);
        }
        self.bus.hv.signal(self.offer.connection)
    }

    /// Closes the channel and takes its memory back.
    ///
    /// # Errors
    /// [`BusError`]: the memory is given up, as the host may still write it.
    pub async fn close(self) -> Result<(), BusError> {
        let (bus, relid) = (self.bus.clone(), self.offer.relid);
        let until = bus.reply_deadline();
        let torn_down = async {
            if !self.is_rescinded() {
                bus.send_close(relid, until).await?;
            }
            bus.tear_down_gpadl(relid, self.gpadl, until).await
        };
        let torn_down = torn_down.await;
        bus.hv.synic.forget(relid);
        bus.offers.borrow_mut().put_back(relid);
        bus.changed.notify();
        if torn_down.is_ok() {
            bus.hv.hal.free_shared(self.memory);
        }
        torn_down
    }
}

impl<H: Hal> Vmbus<H> {
    /// Tells the host that a channel is closed; if it does not take the message, it
    /// is told before the channel is opened again.
    async fn send_close(&self, relid: u32, until: Instant) -> Result<(), BusError> {
        let message = relid_only(Kind::CLOSE, relid);
        let sent = self.send(Kind::CLOSE, message.as_bytes(), until).await;
        if sent.is_err() {
            self.offers.borrow_mut().leave_open(relid);
        }
        sent
    }
}
