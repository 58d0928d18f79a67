//! A controller: how it is connected and disconnected.

use super::disks::Unit;
use super::error::ConnectError;
use super::link::Link;
use super::offence::Offence;
use super::packet;
use super::subchannels::{MOST_SUBCHANNELS, Shortfall};
use super::wire::Wire;
use crate::hal::Hal;
use crate::vmbus::{BusError, Channel, ChannelConfig, Offer, Vmbus};
use crate::wire::Guid;
use crate::wire::vmbus::class;
use crate::wire::vstor::{Operation, Status, Version};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{DiskId, PAGE};
use firn_task::{Instant, Signal};

/// What a controller may use, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// Pages of each ring of the first channel, the control page included.
    pub ring_pages: usize,
    /// Most further channels: [`MOST_SUBCHANNELS`] at most. Each has two rings of up
    /// to 16 pages.
    pub subchannels: u16,
    /// How long the host may take to offer them; those that come later are not used.
    pub subchannel_deadline: Duration,
    /// Most packets in flight.
    pub depth: u32,
    /// Most bytes of one packet.
    pub max_transfer: u32,
    /// The newest version that is tried.
    pub max_version: Version,
    /// Whether the host is to send interrupts; without them the ring is polled.
    pub interrupts: bool,
    /// How long each step of the handshake may take: hosts can be very slow.
    pub deadline: Duration,
    /// After so long without an answer the bus is reset.
    pub reset_after: Duration,
    /// After so long the controller fails.
    pub give_up_after: Duration,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            ring_pages: 32,
            subchannels: MOST_SUBCHANNELS,
            subchannel_deadline: Duration::from_secs(10),
            depth: 128,
            max_transfer: 512 << 10,
            max_version: Version::V6_2,
            interrupts: true,
            deadline: Duration::from_secs(180),
            reset_after: Duration::from_secs(60),
            give_up_after: Duration::from_secs(180),
        }
    }
}

/// One SCSI controller. Shared by [`Rc`] on one vCPU.
pub struct Controller<H: Hal> {
    pub(super) bus: Rc<Vmbus<H>>,
    pub(super) config: ControllerConfig,
    pub(super) instance: Guid,
    pub(super) wire: Rc<Wire<H>>,
    pub(super) units: RefCell<Vec<Rc<Unit<H>>>>,
    /// For data of the controller's own commands.
    pub(super) page: RefCell<Option<Region>>,
    /// A connect or disconnect is under way.
    pub(super) changing: Cell<bool>,
    /// The handshake has come to its end, and the link was not closed since.
    pub(super) ready: Cell<bool>,
    /// Disks connect with their gates shut.
    pub(super) shut: Cell<bool>,
    /// The name of the next new disk; all controllers' together.
    pub(super) next_id: Rc<Cell<u32>>,
    /// Why it is not connected.
    pub(super) error: Cell<Option<ConnectError>>,
    /// Disks that cannot be used, and why.
    pub(super) unusable: RefCell<Vec<(u8, ConnectError)>>,
    /// Most bytes of a request on the present connection.
    pub(super) most: Cell<u32>,
    /// Why there are fewer channels than the host said that there may be.
    pub(super) shortfall: Cell<Option<Shortfall>>,
    pub(super) reset_sent: Cell<bool>,
    /// Notified when a disk came, went or changed its state.
    pub(super) changed: Rc<Signal>,
}

/// A change that is under way; it ends even if its future is dropped.
pub(super) struct Change<'a>(&'a Cell<bool>);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<H: Hal> Controller<H> {
    /// A controller without a connection. New disks take their names from
    /// `next_id`; `changed` is notified of everything that happens to it.
    #[must_use]
    pub fn new(
        bus: &Rc<Vmbus<H>>,
        instance: Guid,
        config: ControllerConfig,
        next_id: &Rc<Cell<u32>>,
        changed: &Rc<Signal>,
    ) -> Rc<Self> {
        let attention = Rc::new(Signal::new());
        Rc::new(Self {
            bus: bus.clone(),
            config,
            instance,
            wire: Rc::new(Wire {
                hv: bus.hv.clone(),
                link: RefCell::new(None),
                offence: Cell::new(None),
                attention,
            }),
            units: RefCell::default(),
            page: RefCell::new(None),
            changing: Cell::new(false),
            ready: Cell::new(false),
            shut: Cell::new(false),
            next_id: next_id.clone(),
            error: Cell::new(None),
            unusable: RefCell::default(),
            most: Cell::new(0),
            shortfall: Cell::new(None),
            reset_sent: Cell::new(false),
            changed: changed.clone(),
        })
    }

    /// Which controller it is.
    #[must_use]
    pub const fn instance(&self) -> Guid {
        self.instance
    }

    /// Its disks, by the order in which they came.
    #[must_use]
    pub fn units(&self) -> Vec<Rc<Unit<H>>> {
        self.units.borrow().clone()
    }

    /// Calls `visit` for each disk, without allocating.
    pub fn for_each(&self, visit: &mut dyn FnMut(&Unit<H>)) {
        for unit in self.units.borrow().iter() {
            visit(unit);
        }
    }

    /// Its disk of that name, if possible one that has not failed. Does not
    /// allocate.
    #[must_use]
    pub fn find(&self, id: DiskId) -> Option<Rc<Unit<H>>> {
        let units = self.units.borrow();
        let named = || units.iter().filter(|unit| unit.id() == id);
        let found = named().find(|unit| unit.state() != Lifecycle::Failed);
        found.or_else(|| named().next()).cloned()
    }

    /// Whether it is connected, or it is known why not.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.ready.get() || self.error.get().is_some()
    }

    /// Whether the host offers it, and nobody has it connected.
    #[must_use]
    pub fn can_connect(&self) -> bool {
        !self.ready.get() && self.wire.offence.get().is_none() && self.offer().is_ok()
    }

    /// What keeps its disks from being known.
    pub(super) fn unseen(&self) -> Option<&'static str> {
        if !self.ready.get() {
            let offered = self.offer().is_ok();
            return offered.then_some("a SCSI controller is offered, and not connected");
        }
        let all = self.unusable.borrow().is_empty();
        (!all).then_some("a unit of a SCSI controller cannot be used")
    }

    /// Whether a disk uses its channel.
    pub(super) fn is_used(&self) -> bool {
        let connected = |unit: &Rc<Unit<H>>| unit.front.borrow().inbox.is_some();
        self.units.borrow().iter().any(connected)
    }

    /// Units that cannot be used, and why.
    #[must_use]
    pub fn unusable(&self) -> Vec<(u8, ConnectError)> {
        self.unusable.borrow().clone()
    }

    /// Why it is not connected, or was disconnected.
    #[must_use]
    pub const fn error(&self) -> Option<ConnectError> {
        self.error.get()
    }

    /// The rule that the host broke, if it broke one.
    #[must_use]
    pub fn offence(&self) -> Option<Offence> {
        self.wire.offence.get()
    }

    /// The version of the present connection.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.wire.link.borrow().as_ref()?.version
    }

    /// Channels of the present connection; zero without one.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.wire.link.borrow().as_ref().map_or(0, Link::channels)
    }

    /// Why it has fewer channels than the host said that it may have.
    #[must_use]
    pub const fn shortfall(&self) -> Option<Shortfall> {
        self.shortfall.get()
    }

    /// Notified when a disk came, went or changed its state.
    #[must_use]
    pub const fn changed(&self) -> &Rc<Signal> {
        &self.changed
    }

    /// Whether disks that connect from now on keep their gates shut.
    pub fn keep_shut(&self, shut: bool) {
        self.shut.set(shut);
    }

    pub(super) fn now(&self) -> Instant {
        self.wire.hv.hal.now()
    }

    pub(super) fn offer(&self) -> Result<Offer, ConnectError> {
        let ours = |offer: &Offer| {
            offer.class == class::SCSI && offer.instance == self.instance && offer.subchannel == 0
        };
        let found = self.bus.offers().into_iter().find(ours);
        found.ok_or(ConnectError::NotOffered(self.instance))
    }

    /// Opens the channel, shakes hands, and finds the disks. Those that were
    /// there before, by name or by number, go on where they were.
    ///
    /// # Errors
    /// [`ConnectError`]; the channel is closed again.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        if self.ready.get() {
            return Err(ConnectError::Busy);
        }
        let change = self.change().ok_or(ConnectError::Busy)?;
        // Of an attempt that was dropped half-way.
        self.drop_link().await;
        let connected = self.open_and_scan().await;
        if connected.is_err() {
            self.drop_link().await;
        }
        self.error.set(connected.err());
        self.ready.set(connected.is_ok());
        drop(change);
        self.wire.attention.notify();
        self.changed.notify();
        connected
    }

    /// Nobody else connects or disconnects for as long as the result lives.
    pub(super) fn change(&self) -> Option<Change<'_>> {
        let free = !self.changing.replace(true);
        free.then_some(Change(&self.changing))
    }

    /// The first channel, the handshake on it, further channels, disks.
    async fn open_and_scan(&self) -> Result<(), ConnectError> {
        let relid = self.offer()?.relid;
        let hal = &self.wire.hv.hal;
        let lists = hal.alloc_shared(Link::<H>::list_pages(self.config.depth));
        let lists = lists.ok_or(ConnectError::NoMemory)?;
        let page = hal.alloc_shared(1);
        let opened = match &page {
            Some(_) => {
                let opened = self.open_channel(relid, self.config.ring_pages).await;
                opened.map_err(ConnectError::from)
            }
            None => Err(ConnectError::NoMemory),
        };
        let channel = match opened {
            Ok(channel) => channel,
            Err(error) => {
                page.into_iter().for_each(|page| hal.free_shared(page));
                hal.free_shared(lists);
                return Err(error);
            }
        };
        *self.page.borrow_mut() = page;
        let (depth, interrupts) = (self.config.depth, self.config.interrupts);
        let link = Link::new(&self.wire.hv, channel, depth, lists, interrupts);
        self.wire.offence.set(None);
        self.reset_sent.set(false);
        *self.wire.link.borrow_mut() = Some(link);
        let subchannels = self.shake_hands().await?;
        self.add_channels(subchannels).await?;
        self.scan().await
    }

    pub(super) async fn open_channel(
        &self,
        relid: u32,
        ring_pages: usize,
    ) -> Result<Channel<H>, BusError> {
        let config = ChannelConfig {
            longest: super::LONGEST_PACKET,
            ring_pages,
            interrupts: self.config.interrupts,
        };
        Channel::open(&self.bus, relid, config).await
    }

    /// The handshake: begin, a version, limits, end. How many further channels the
    /// host says that there may be.
    async fn shake_hands(&self) -> Result<u16, ConnectError> {
        let begin = Operation::BEGIN_INITIALIZATION;
        self.ask_plain(begin, &packet::plain(begin)).await?;
        self.agree().await?;
        let query = Operation::QUERY_PROPERTIES;
        let properties = self.ask_plain(query, &packet::plain(query)).await?;
        self.most.set(self.most_bytes(properties.max_transfer)?);
        let end = Operation::END_INITIALIZATION;
        self.ask_plain(end, &packet::plain(end)).await?;
        Ok(properties.subchannels)
    }

    /// Tries the versions, the newest first.
    async fn agree(&self) -> Result<(), ConnectError> {
        let mut oldest = self.config.max_version;
        for version in Version::ALL {
            if version > self.config.max_version {
                continue;
            }
            oldest = version;
            let until = self.now() + self.config.deadline;
            let answer = self.ask(&packet::propose(version), until).await?;
            if answer.status == Status::SUCCESS {
                if let Some(link) = self.wire.link.borrow_mut().as_mut() {
                    link.version = Some(version);
                }
                log::info!("storvsc {version}");
                return Ok(());
            }
            if answer.status != Status::REVISION_MISMATCH {
                let asked = Operation::QUERY_PROTOCOL_VERSION;
                return Err(ConnectError::Refused(asked, answer.status));
            }
        }
        Err(ConnectError::NoVersion { oldest })
    }

    /// Most bytes of a packet: what both ends can, so that a packet's list of
    /// frames takes a part of the ring only.
    fn most_bytes(&self, host: u32) -> Result<u32, ConnectError> {
        let ring = (self.subchannel_pages().max(2) - 1) * PAGE;
        let by_ring = (ring / 4 / 8).saturating_sub(16) * PAGE;
        let by_ring = u32::try_from(by_ring).unwrap_or(u32::MAX);
        let most = host.min(self.config.max_transfer).min(by_ring);
        let most = most - most % PAGE as u32;
        if most == 0 {
            return Err(ConnectError::NoTransfer(host));
        }
        Ok(most)
    }

    /// Closes the channels, whatever became of them. What the host may still write
    /// is given up.
    pub(super) async fn drop_link(&self) {
        let _ = self.close_link().await;
    }

    /// Closes the further channels, then the first one; the first error, if one
    /// fails.
    pub(super) async fn close_link(&self) -> Result<(), ConnectError> {
        self.ready.set(false);
        for unit in self.units.borrow().iter() {
            unit.front.borrow_mut().spare = None;
        }
        let link = self.wire.link.borrow_mut().take();
        let page = self.page.borrow_mut().take();
        self.close_left_open().await;
        let Some(link) = link else { return Ok(()) };
        let (channels, lists) = link.into_parts();
        let mut closed = Ok(());
        for channel in channels.into_iter().rev() {
            closed = closed.and(channel.close().await);
        }
        closed?;
        let hal = &self.wire.hv.hal;
        hal.free_shared(lists);
        page.into_iter().for_each(|page| hal.free_shared(page));
        Ok(())
    }
}
