//! A channel: two rings that the host reaches by a GPADL.

use super::wait::Key;
use super::{BusError, Offer, Vmbus, relid_only, succeeded};
use crate::hal::Hal;
use crate::ring::Ring;
use crate::wire::hypercall::Status;
use crate::wire::vmbus::{Header, Kind, NO_INTERRUPTS, Open};
use alloc::rc::Rc;
use core::cell::Cell;
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

/// A channel that somebody uses, until this is dropped, at whatever moment.
struct Taken<H: Hal> {
    bus: Rc<Vmbus<H>>,
    offer: Offer,
    /// The host has it open, or may have.
    open: Cell<bool>,
}

impl<H: Hal> Taken<H> {
    fn new(bus: &Rc<Vmbus<H>>, relid: u32) -> Result<Self, BusError> {
        let mut offers = bus.offers.borrow_mut();
        let offer = offers.take(relid).ok_or(BusError::Rescinded)?;
        Ok(Self {
            bus: bus.clone(),
            offer,
            open: Cell::new(offers.take_left_open(relid)),
        })
    }

    /// Tells the host that the channel is closed.
    async fn close(&self, until: Instant) -> Result<(), BusError> {
        let relid = self.offer.relid;
        if self.open.get() && !self.bus.is_rescinded(relid) {
            let message = relid_only(Kind::CLOSE, relid);
            let sent = self.bus.send(Kind::CLOSE, message.as_bytes(), until);
            sent.await?;
        }
        self.open.set(false);
        Ok(())
    }
}

impl<H: Hal> Drop for Taken<H> {
    fn drop(&mut self) {
        let relid = self.offer.relid;
        let mut offers = self.bus.offers.borrow_mut();
        if self.open.get() {
            offers.leave_open(relid);
        }
        offers.put_back(relid);
        drop(offers);
        self.bus.changed.notify();
    }
}

/// An open channel. Whoever drops it without [`Channel::close`] leaks its memory:
/// the host may still write it.
pub struct Channel<H: Hal> {
    taken: Taken<H>,
    gpadl: u32,
    /// Its bit in the monitor pages, if that is to be used.
    monitor: Option<u8>,
    memory: Region,
    /// Both rings.
    pub ring: Ring,
}

impl<H: Hal> Channel<H> {
    /// Opens an offered channel. Whoever drops this half-way gives the memory up.
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
        let taken = Taken::new(bus, relid)?;
        let until = bus.reply_deadline();
        // If it was left open.
        taken.close(until).await?;
        let pages = config.ring_pages.max(2);
        let memory = bus.hv.hal.alloc_shared(2 * pages);
        let memory = memory.ok_or(BusError::NoMemory)?;
        let (send, receive) = (memory.pages(0, pages), memory.pages(pages, pages));
        let ring = Ring::new(send, receive, config.longest);
        let gpadl = match bus.create_gpadl(relid, &memory, until).await {
            Ok(gpadl) => gpadl,
            Err(error) => {
                // Where the host did not say, it may have it yet.
                if matches!(error, BusError::Refused(..) | BusError::Rescinded) {
                    bus.hv.hal.free_shared(memory);
                }
                return Err(error);
            }
        };
        // Hosts do not look there for a channel without interrupts.
        let monitored = bus.config.monitored && config.interrupts;
        let channel = Self {
            monitor: taken.offer.monitor.filter(|_| monitored),
            taken,
            gpadl,
            memory,
            ring,
        };
        match channel.ask_to_open(config, until).await {
            Ok(()) => Ok(channel),
            Err(error) => {
                if let Err(error) = channel.close().await {
                    log::warn!("relid {relid}: its memory is given up: {error}");
                }
                Err(error)
            }
        }
    }

    /// Closes a channel that nobody uses, if the host takes it for open: of
    /// somebody who opened it and gave up.
    ///
    /// # Errors
    /// [`BusError`]: the host was not told.
    pub async fn close_left_open(bus: &Rc<Vmbus<H>>, relid: u32) -> Result<(), BusError> {
        bus.check()?;
        let taken = Taken::new(bus, relid)?;
        taken.close(bus.reply_deadline()).await
    }

    async fn ask_to_open(&self, config: ChannelConfig, until: Instant) -> Result<(), BusError> {
        let (bus, relid) = (&self.taken.bus, self.taken.offer.relid);
        bus.hv.synic.forget(relid);
        let target_vp = match config.interrupts {
            true => bus.hv.vp_index(),
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
        self.taken.open.set(true);
        let reply = bus.ask(Kind::OPEN, bytes, key, Some(relid), until).await;
        let opened = reply.and_then(|reply| succeeded(key, reply));
        if matches!(opened, Err(BusError::Refused(..) | BusError::Post(..))) {
            self.taken.open.set(false);
        }
        opened
    }

    /// What was offered.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.taken.offer
    }

    const fn bus(&self) -> &Rc<Vmbus<H>> {
        &self.taken.bus
    }

    /// Whether the host has taken the offer back: nothing more will be answered.
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        self.bus().is_rescinded(self.offer().relid)
    }

    /// Whether the host signalled since this was last asked.
    #[must_use]
    pub fn take_event(&self) -> bool {
        self.bus().hv.synic.take_event(self.offer().relid)
    }

    /// Notified when the host signals.
    #[must_use]
    pub fn events(&self) -> Rc<Signal> {
        self.bus().hv.synic.signal(self.offer().relid)
    }

    /// Has the host's signals notify `signal` from now on: whoever waits for
    /// several channels waits once.
    pub fn share_events(&self, signal: Rc<Signal>) {
        self.bus().hv.synic.share(self.offer().relid, signal);
    }

    /// Tells the host that there is something on the ring, or room again.
    ///
    /// # Errors
    /// What the host said.
    pub fn signal(&self) -> Result<(), Status> {
        let relid = self.offer().relid as usize;
        if !self.offer().dedicated || self.monitor.is_some() {
            let word = OUTGOING_HALF + relid / 32 * 4;
            let word = self.bus().interrupt_page().atomic_u32(word);
            word.fetch_or(1 << (relid % 32), AcqRel);
        }
        if let Some(bit) = self.monitor {
            self.bus().set_monitor(bit);
            return Ok(());
        }
        self.bus().hv.signal(self.offer().connection)
    }

    /// Closes the channel and takes its memory back.
    ///
    /// # Errors
    /// [`BusError`]: the memory is given up, as the host may still write it.
    pub async fn close(self) -> Result<(), BusError> {
        let (bus, relid) = (self.bus().clone(), self.offer().relid);
        let until = bus.reply_deadline();
        let torn_down = async {
            self.taken.close(until).await?;
            bus.tear_down_gpadl(relid, self.gpadl, until).await
        };
        let torn_down = torn_down.await;
        bus.hv.synic.forget(relid);
        if torn_down.is_ok() {
            bus.hv.hal.free_shared(self.memory);
        }
        torn_down
    }
}
