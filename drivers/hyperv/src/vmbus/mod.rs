//! VMBus: contact with the host, what it offers, memory shared with it, and
//! channels.
//!
//! [`Vmbus::poll`] takes the host's messages, one copy each; everything that
//! waits for one is an `async fn` with a deadline. [`Vmbus::run`] is a task that
//! gives rescinded channels back.

mod channel;
mod contact;
mod error;
mod gpadl;
mod message;
mod offence;
mod offers;
mod wait;

pub use channel::{Channel, ChannelConfig};
pub use error::BusError;
pub use offence::Offence;
pub use offers::Offer;

use crate::hal::Hal;
use crate::machine::HyperV;
use crate::wire::vmbus::{Header, Kind, ModifyChannel, RelidOnly, Version};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;
use firn_block::shm::Region;
use firn_task::{Instant, Signal, timeout_at};
use message::Incoming;
use offers::Offers;
use wait::{Key, Reply, Waiting};
use zerocopy::IntoBytes;

/// The first number that is given to a GPADL; not zero, so that a reply with a
/// zeroed field is not one of ours.
const FIRST_GPADL: u32 = 0xf1a0;
/// Most messages taken in one poll.
const MESSAGES_PER_POLL: usize = 64;

/// How long the bus waits, and what it offers to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmbusConfig {
    /// The newest version that is tried.
    pub max_version: Version,
    /// Whether hosts are signalled by the monitor pages where they give a channel a
    /// bit there. That costs no hypercall, but is heard some time later: 100 µs on
    /// Hyper-V.
    pub monitored: bool,
    /// How long an ordinary reply may take.
    pub reply: Duration,
    /// How long all offers may take.
    pub offers: Duration,
    /// How long an unload may take: hosts write their caches back first.
    pub unload: Duration,
}

impl Default for VmbusConfig {
    fn default() -> Self {
        Self {
            max_version: Version::V6_0,
            monitored: false,
            reply: Duration::from_secs(10),
            offers: Duration::from_secs(60),
            unload: Duration::from_secs(120),
        }
    }
}

/// Where the bus is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusState {
    /// Nobody was contacted, or the host was told to forget us.
    Disconnected,
    /// Contact, or its end, is under way.
    Changing,
    /// Connected at a version.
    Connected(Version),
    /// The host broke a rule.
    Failed,
}

/// The bus. Shared by [`Rc`] on one vCPU.
pub struct Vmbus<H: Hal> {
    pub(crate) hv: Rc<HyperV<H>>,
    config: VmbusConfig,
    state: Cell<BusState>,
    /// Where messages go.
    connection: Cell<u32>,
    /// Interrupt page and both monitor pages.
    pages: Region,
    waiting: Waiting,
    offers: RefCell<Offers>,
    next_gpadl: Cell<u32>,
    /// Shared memories that the host knows, or may know.
    gpadls: Cell<usize>,
    /// The host has told everything that it offers.
    complete: Cell<bool>,
    offence: Cell<Option<Offence>>,
    /// A host that was unloaded and is too old to be contacted again.
    spent: Cell<Option<Version>>,
    changed: Rc<Signal>,
}

impl<H: Hal> Vmbus<H> {
    /// A bus without a connection.
    ///
    /// # Errors
    /// [`BusError::NoMemory`].
    pub fn new(hv: &Rc<HyperV<H>>, config: VmbusConfig) -> Result<Rc<Self>, BusError> {
        let pages = hv.hal.alloc_shared(3).ok_or(BusError::NoMemory)?;
        Ok(Rc::new(Self {
            hv: hv.clone(),
            config,
            state: Cell::new(BusState::Disconnected),
            connection: Cell::new(0),
            pages,
            waiting: Waiting::default(),
            offers: RefCell::default(),
            next_gpadl: Cell::new(FIRST_GPADL),
            gpadls: Cell::new(0),
            complete: Cell::new(false),
            offence: Cell::new(None),
            spent: Cell::new(None),
            changed: Rc::new(Signal::new()),
        }))
    }

    /// Where the bus is in its life.
    #[must_use]
    pub const fn state(&self) -> BusState {
        self.state.get()
    }

    /// The version that was agreed on.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match self.state.get() {
            BusState::Connected(version) => Some(version),
            _ => None,
        }
    }

    /// The rule that the host broke, if it broke one.
    #[must_use]
    pub const fn offence(&self) -> Option<Offence> {
        self.offence.get()
    }

    /// Notified when a message came.
    #[must_use]
    pub const fn changed(&self) -> &Rc<Signal> {
        &self.changed
    }

    /// Everything that is offered and not taken back, by number.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        self.offers.borrow().standing()
    }

    /// Whether the host has told everything that it offered when contact was
    /// made.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// How many pieces of memory the host knows by channels, or may know.
    #[must_use]
    pub const fn gpadls(&self) -> usize {
        self.gpadls.get()
    }

    /// How many channels somebody uses.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.offers.borrow().in_use()
    }

    /// Whether the host has taken an offer back.
    #[must_use]
    pub fn is_rescinded(&self, relid: u32) -> bool {
        self.offers.borrow().is_rescinded(relid)
    }

    /// Takes the messages that are there, up to a number; whether there were any.
    pub fn poll(&self) -> bool {
        let mut any = false;
        for _ in 0..MESSAGES_PER_POLL {
            let Some(message) = self.hv.synic.take_message(&self.hv.hal) else {
                break;
            };
            any = true;
            if matches!(self.state.get(), BusState::Disconnected | BusState::Failed) {
                // Of an earlier connection, or of a host that is not believed.
                continue;
            }
            let taken = Incoming::parse(&message).and_then(|message| self.take(&message));
            if let Err(offence) = taken {
                self.fail(offence);
            }
        }
        if any {
            self.changed.notify();
        }
        any
    }

    fn take(&self, message: &Incoming) -> Result<(), Offence> {
        let status = |key, status| self.waiting.answer(key, Reply::Status(status));
        match message {
            Incoming::Offer(offer) => self.offers.borrow_mut().add(offer),
            Incoming::Rescind(relid) => self.offers.borrow_mut().rescind(*relid),
            Incoming::AllOffersDelivered => status(Key::AllOffers, 0),
            Incoming::Version(reply) => self.waiting.answer(Key::Version, Reply::Version(*reply)),
            Incoming::OpenResult(result) if result.open_id != result.relid => {
                Err(Offence::Foreign(Kind::OPEN_RESULT))
            }
            Incoming::OpenResult(result) => status(Key::Open(result.relid), result.status),
            Incoming::GpadlCreated(created) => status(Key::Created(created.gpadl), created.status),
            Incoming::GpadlTorndown(gpadl) => status(Key::Torndown(*gpadl), 0),
            Incoming::Modified(modified) => status(Key::Modified(modified.relid), modified.status),
            Incoming::Unloaded => status(Key::Unloaded, 0),
        }
    }

    /// Ends the bus because the host broke a rule: whoever waits is told so.
    fn fail(&self, offence: Offence) {
        log::error!("VMBus: the host broke the protocol: {offence}");
        self.offence.set(Some(offence));
        self.state.set(BusState::Failed);
        self.changed.notify();
    }

    /// Gives rescinded channels back, for as long as the bus works.
    pub async fn run(self: Rc<Self>) {
        loop {
            let seen = self.changed.seen();
            loop {
                let next = self.offers.borrow_mut().next_release();
                let Some(relid) = next else { break };
                let message = relid_only(Kind::RELID_RELEASED, relid);
                let until = self.hv.hal.now() + self.config.reply;
                // Before it is sent: the host may answer it with an offer.
                self.offers.borrow_mut().released(relid);
                self.hv.synic.forget(relid);
                let sent = self.send(Kind::RELID_RELEASED, message.as_bytes(), until);
                if let Err(error) = sent.await {
                    log::warn!("relid {relid}: {error}");
                }
            }
            self.changed.changed(seen).await;
        }
    }

    /// When an ordinary reply is late.
    fn reply_deadline(&self) -> Instant {
        self.hv.hal.now() + self.config.reply
    }

    /// Sends a message on the connection.
    async fn send(&self, kind: Kind, message: &[u8], until: Instant) -> Result<(), BusError> {
        self.check()?;
        let posted = self.hv.post(self.connection.get(), message, until).await;
        posted.map_err(|error| BusError::Post(kind, error))
    }

    /// Whether the bus can be used at all.
    pub(crate) fn check(&self) -> Result<(), BusError> {
        match (self.state.get(), self.offence.get()) {
            (BusState::Failed, Some(offence)) => Err(BusError::Offence(offence)),
            (BusState::Disconnected | BusState::Failed, _) => Err(BusError::NotConnected),
            (BusState::Changing | BusState::Connected(_), _) => Ok(()),
        }
    }

    /// Waits for a reply. With `relid`, a rescind of that channel ends the wait.
    async fn reply(
        &self,
        expected: &wait::Expected<'_>,
        key: Key,
        relid: Option<u32>,
        until: Instant,
    ) -> Result<Reply, BusError> {
        loop {
            let seen = self.changed.seen();
            if let Some(reply) = expected.reply() {
                return Ok(reply);
            }
            self.check()?;
            if relid.is_some_and(|relid| self.is_rescinded(relid)) {
                return Err(BusError::Rescinded);
            }
            let changed = timeout_at(&*self.hv, until, self.changed.changed(seen));
            if changed.await.is_err() {
                return Err(BusError::Deadline(key.kind()));
            }
        }
    }

    /// Sends a message and waits for its reply.
    async fn ask(
        &self,
        kind: Kind,
        message: &[u8],
        key: Key,
        relid: Option<u32>,
        until: Instant,
    ) -> Result<Reply, BusError> {
        let expected = self.waiting.expect(key);
        if let Err(error) = self.send(kind, message, until).await {
            expected.cancel();
            return Err(error);
        }
        self.reply(&expected, key, relid, until).await
    }

    /// Has a channel's interrupts sent to another processor.
    ///
    /// # Errors
    /// [`BusError`]; [`BusError::NotInVersion`] before 4.1. Before 5.3 the host
    /// does not say whether it did.
    pub async fn modify_channel(&self, relid: u32, target_vp: u32) -> Result<(), BusError> {
        let kind = Kind::MODIFY_CHANNEL;
        let version = self.version().ok_or(BusError::NotConnected)?;
        if version < Version::V4_1 {
            return Err(BusError::NotInVersion(kind, version));
        }
        let message = ModifyChannel {
            header: Header::new(kind),
            relid,
            target_vp,
        };
        let (message, until) = (message.as_bytes(), self.reply_deadline());
        if version < Version::V5_3 {
            return self.send(kind, message, until).await;
        }
        let key = Key::Modified(relid);
        let reply = self.ask(kind, message, key, Some(relid), until).await?;
        succeeded(key, reply)
    }
}

/// A reply that is a status: whether it is success.
fn succeeded(key: Key, reply: Reply) -> Result<(), BusError> {
    match reply {
        Reply::Status(crate::wire::vmbus::SUCCESS) => Ok(()),
        Reply::Status(status) => Err(BusError::Refused(key.kind(), status)),
        Reply::Version(_) => Err(BusError::Offence(Offence::Foreign(key.kind()))),
    }
}

fn relid_only(kind: Kind, relid: u32) -> RelidOnly {
    RelidOnly {
        header: Header::new(kind),
        relid,
    }
}
