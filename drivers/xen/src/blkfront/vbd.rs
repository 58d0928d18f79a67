//! A device: what it is, what there is to tell, and how it speaks to the other
//! end. What it does with that is in `life.rs`.

use super::connect::ConnectError;
use super::features::{Features, Keys};
use super::front::Front;
use super::offence::Offence;
use super::step::WhyNot;
use crate::Xen;
use crate::hal::Hal;
use crate::store::{Store, StoreError, Watch};
use crate::trace::Source;
use crate::wire::DomId;
use crate::wire::event_channel::Port;
use crate::wire::xenbus::XenbusState;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::{DiskId, DiskInfo, Stats};
use firn_task::{Instant, Signal, sleep_until, timeout_at};

/// How long to wait before asking a xenstore again that was lost or late.
pub(super) const STORE_PATIENCE: Duration = Duration::from_millis(10);
/// So many deadlines are one deadline after a change of the host, which has more
/// to do then than ever, while requests wait that would be lost by giving up.
const RESUME_PATIENCE: u32 = 4;

/// What the frontend may use, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbdConfig {
    /// Largest ring, as a power of two of pages.
    pub max_ring_order: u32,
    /// Most segments of one request.
    pub max_segments: usize,
    /// Whether to offer persistent grants.
    pub persistent: bool,
    /// Whether memory is short: a connection for an image takes less of it.
    pub frugal: bool,
    /// How long each step of the backend may take.
    pub deadline: Duration,
}

/// The image code has no more requests out than such a ring holds; a larger one
/// would cost a page of boot memory for every request more.
const IMAGE_RING_ORDER: u32 = 1;
/// Every page in flight needs a grant, and all that is remembered of them must
/// fit into a small guest: 64 requests of 448 KiB fit into 16 frames of the table.
const FRUGAL_SEGMENTS: usize = 112;

impl VbdConfig {
    /// What to negotiate for a purpose.
    pub(super) const fn on(self, terms: Terms) -> Self {
        match terms {
            Terms::Ordinary => self,
            Terms::Image => Self {
                max_ring_order: IMAGE_RING_ORDER,
                max_segments: match self.frugal {
                    true => FRUGAL_SEGMENTS,
                    false => usize::MAX,
                },
                persistent: self.persistent && !self.frugal,
                ..self
            },
        }
    }
}

impl Default for VbdConfig {
    fn default() -> Self {
        Self {
            max_ring_order: super::MAX_RING_ORDER,
            max_segments: usize::MAX,
            persistent: true,
            frugal: false,
            deadline: Duration::from_secs(5),
        }
    }
}

/// The backend, as long as it is followed.
pub(super) struct OtherEnd<H: Hal> {
    /// Its directory in xenstore.
    pub(super) path: String,
    pub(super) domain: DomId,
    /// On its `state` key.
    pub(super) watch: Watch<H>,
    /// [`Xen::generation`] when it was found: on which host.
    pub(super) generation: u32,
}

/// Why a live connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The backend asks to close.
    BackendCloses,
    /// The backend is not there any more, or started over.
    BackendGone,
    /// The backend broke a rule.
    Offence,
    /// The kernel wants the disk disconnected.
    Freeze,
}

/// Where the kernel wants a device to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Connected, open to jobs.
    Open,
    /// Connected, shut to jobs.
    Shut(Terms),
    /// Disconnected.
    Frozen,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// Jobs: whatever both ends offer, within the configuration.
    Ordinary,
    /// An image: requests are as large as the backend can take, or as
    /// a small guest can. That one grants nothing for good, so that any page of
    /// memory may be part of a request.
    Image,
}

/// A device as `disks` shows it: plain data.
#[derive(Clone, Debug)]
pub struct VbdReport {
    /// Number below `device/vbd`.
    pub number: u32,
    /// What the disk is.
    pub info: DiskInfo,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// What was negotiated, as the wire's keys say it.
    pub features: String,
    /// Why it is not live.
    pub error: Option<ConnectError>,
    /// The rule that the backend broke.
    pub offence: Option<Offence>,
    /// The counters.
    pub stats: Stats,
}

/// One virtual block device.
pub struct Vbd<H: Hal> {
    pub(super) xen: Rc<Xen<H>>,
    pub(super) store: Store<H>,
    pub(super) config: VbdConfig,
    pub(super) number: u32,
    pub(super) id: DiskId,
    /// The data path. Never borrowed across a wait.
    pub front: RefCell<Front<H>>,
    features: RefCell<String>,
    pub(super) error: RefCell<Option<ConnectError>>,
    pub(super) removed: Cell<bool>,
    pub(super) ended: Cell<bool>,
    /// Notified when anything that a person or the bus would see changes.
    pub(super) changed: Rc<Signal>,
    /// Where the kernel wants the device to be.
    pub(super) wish: Cell<Wish>,
    /// What the present connection negotiates.
    pub(super) agreed: Cell<Terms>,
    /// Until when the backend may take to close for a freeze.
    pub(super) freeze_until: Cell<Instant>,
    /// Why the last freeze or thaw failed, until its caller has looked.
    pub(super) failure: RefCell<Option<WhyNot>>,
    /// The connection was given up while the backend was late to close: it is
    /// made again when it has.
    pub(super) comes_back: Cell<bool>,
    /// Until when steps may take after the last change of the host.
    resume_until: Cell<Instant>,
    /// Ports of connections that were unlinked, and their generations: the backend
    /// may yet bind to them.
    pub(super) told: RefCell<Vec<(u32, Port)>>,
}

impl<H: Hal> Vbd<H> {
    /// A device that was found below `device/vbd`.
    ///
    /// # Errors
    /// [`ConnectError::UnknownDevice`] when the number names no whole disk.
    pub fn new(
        xen: &Rc<Xen<H>>,
        store: &Store<H>,
        config: VbdConfig,
        number: u32,
        changed: &Rc<Signal>,
    ) -> Result<Rc<Self>, ConnectError> {
        let id = disk_id(number).ok_or(ConnectError::UnknownDevice(number))?;
        Ok(Rc::new(Self {
            xen: xen.clone(),
            store: store.clone(),
            config,
            number,
            id,
            front: RefCell::new(Front::new(xen, number, id)),
            features: RefCell::new(String::new()),
            error: RefCell::new(None),
            removed: Cell::new(false),
            ended: Cell::new(false),
            changed: changed.clone(),
            wish: Cell::new(Wish::Open),
            agreed: Cell::new(Terms::Ordinary),
            freeze_until: Cell::new(Instant::default()),
            failure: RefCell::new(None),
            comes_back: Cell::new(false),
            resume_until: Cell::new(Instant::default()),
            told: RefCell::default(),
        }))
    }

    /// The disk's name.
    #[must_use]
    pub const fn id(&self) -> DiskId {
        self.id
    }

    /// Its number below `device/vbd`.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether the device is closed or failed for good, and nobody has a buffer
    /// of it any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the device's directory was removed.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Tells the device that its directory was removed.
    pub fn remove(&self) {
        if self.removed.replace(true) {
            return;
        }
        let attention = self.front.borrow().attention.clone();
        attention.notify();
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> Lifecycle {
        self.front.borrow().state()
    }

    /// What the next connection is to negotiate.
    pub(super) fn wanted(&self) -> Terms {
        match self.wish.get() {
            Wish::Shut(terms) => terms,
            Wish::Open | Wish::Frozen => Terms::Ordinary,
        }
    }

    /// What the present connection may use.
    pub(super) fn terms(&self) -> VbdConfig {
        self.config.on(self.agreed.get())
    }

    /// When a step that begins now must be done, by the backend and xenstore.
    pub(super) fn step_deadline(&self) -> Instant {
        let usual = self.xen.hal.now() + self.config.deadline;
        usual.max(self.resume_until.get())
    }

    /// From now on the host is another one.
    pub(super) fn be_patient(&self) {
        let patience = self.config.deadline * RESUME_PATIENCE;
        self.resume_until.set(self.xen.hal.now() + patience);
    }

    /// Whether the host is still the one that this backend was found on.
    pub(super) fn is_same_host(&self, other: &OtherEnd<H>) -> bool {
        other.generation == self.xen.generation()
    }

    /// The same as a result: whoever finds an error in the middle of a step
    /// begins again on the new host.
    pub(super) fn check_host(&self, other: &OtherEnd<H>) -> Result<(), ConnectError> {
        match self.is_same_host(other) {
            true => Ok(()),
            false => Err(ConnectError::Store(StoreError::Reset)),
        }
    }

    /// What there is to tell.
    #[must_use]
    pub fn to_report(&self) -> VbdReport {
        let front = self.front.borrow();
        VbdReport {
            number: self.number,
            info: front.info.clone(),
            state: front.state(),
            features: self.features.borrow().clone(),
            error: self.error.borrow().clone(),
            offence: front.offence(),
            stats: front.accepted.stats,
        }
    }

    /// Runs a step again, until its deadline, when the xenstore connection was
    /// reset in the middle of it: nothing in the store is lost by that, and the
    /// bus mends the connection. The same if the answer is late: it is the
    /// device's deadline that counts. Every step can be repeated.
    pub(super) async fn through_resets<T>(
        &self,
        step: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let give_up = self.step_deadline();
        let generation = self.xen.generation();
        let moved = || self.xen.generation() != generation;
        loop {
            let result = step().await;
            let lost = |error: &StoreError| error.is_lost_connection() || error.is_late();
            let again = result.as_ref().is_err_and(lost) && self.xen.hal.now() < give_up;
            if again && !moved() {
                let at = self.xen.hal.now() + STORE_PATIENCE;
                sleep_until(self.xen.clone(), at).await;
            }
            // What an old host said, or was told, means nothing on a new one.
            if moved() {
                return Err(StoreError::Reset);
            }
            if !again {
                return result;
            }
        }
    }

    pub(super) async fn own(&self, key: &'static str) -> Result<String, ConnectError> {
        let path = self.key(key);
        let read = self.through_resets(async || self.store.read(&path).await);
        match read.await {
            Ok(value) if !value.is_empty() => Ok(value),
            Ok(_) => Err(ConnectError::NoBackend { key }),
            Err(error) if error.is_missing() => Err(ConnectError::NoBackend { key }),
            Err(error) => Err(error.into()),
        }
    }

    /// The path of one of this device's own keys.
    pub(super) fn key(&self, key: &str) -> String {
        format!("device/vbd/{}/{key}", self.number)
    }

    /// What the backend says about itself now.
    pub(super) async fn keys(&self, other: &OtherEnd<H>) -> Result<Keys, ConnectError> {
        let read = async || Keys::read(&self.store, &other.path).await;
        Ok(self.through_resets(read).await?)
    }

    /// The backend's state.
    pub(super) async fn state_of(&self, other: &OtherEnd<H>) -> Result<XenbusState, ConnectError> {
        self.check_host(other)?;
        let path = format!("{}/state", other.path);
        let read = self.through_resets(async || self.store.read(&path).await);
        match read.await {
            Ok(text) => Ok(text
                .trim()
                .parse()
                .map_or(XenbusState::UNKNOWN, XenbusState)),
            Err(error) if error.is_hidden() => Ok(XenbusState::UNKNOWN),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the backend's state within the deadline. `there` says whether
    /// a state is the one, or that it makes all waiting vain.
    pub(super) async fn wait_for(
        &self,
        other: &mut OtherEnd<H>,
        at: Instant,
        step: &'static str,
        there: impl Fn(XenbusState) -> Result<bool, ConnectError>,
    ) -> Result<(), ConnectError> {
        loop {
            let state = self.state_of(other).await?;
            if there(state)? {
                return Ok(());
            }
            if state > XenbusState::RECONFIGURED {
                return Err(ConnectError::OutOfOrder { step, state });
            }
            let changed = timeout_at(self.xen.clone(), at, other.watch.changed());
            if changed.await.is_err() {
                return Err(ConnectError::Deadline { step, state });
            }
        }
    }

    /// Publishes this end's state.
    pub(super) async fn switch(
        &self,
        other: &OtherEnd<H>,
        state: XenbusState,
    ) -> Result<(), ConnectError> {
        self.check_host(other)?;
        self.publish_state(state).await
    }

    async fn publish_state(&self, state: XenbusState) -> Result<(), ConnectError> {
        self.xen
            .record(Source::Vbd(self.number), "state", state.0.into());
        let (key, value) = (self.key("state"), state.0.to_string());
        let write = async || self.store.write(&key, &value).await;
        Ok(self.through_resets(write).await?)
    }

    /// The same, where nothing can be done about a failure: the directory may
    /// be gone already.
    pub(super) async fn try_switch(&self, other: &OtherEnd<H>, state: XenbusState) {
        if self.is_same_host(other) {
            self.try_publish(state).await;
        }
    }

    async fn try_publish(&self, state: XenbusState) {
        if self.removed.get() {
            // Writing would bring the directory back.
            return;
        }
        if let Err(error) = self.publish_state(state).await {
            log::debug!("{}: {error}", self.id);
        }
    }

    /// Says that a device that failed is at its end, whoever listens.
    pub(super) async fn say_closed(&self) {
        self.try_publish(XenbusState::CLOSING).await;
        self.try_publish(XenbusState::CLOSED).await;
    }

    /// A step of the lifecycle; one that the table does not have is not taken.
    pub(super) fn step(&self, to: Lifecycle) {
        if self.front.borrow_mut().step(to).is_ok() {
            log::info!("{}: {to}", self.id);
        }
        self.changed.notify();
    }

    pub(super) fn report(&self, features: &Features, ring_pages: usize) {
        let flag = |on, text| if on { text } else { "" };
        let text = format!(
            "ring-pages={ring_pages} segments={}{}{}{}{}",
            features.segments,
            flag(features.persistent, " feature-persistent"),
            match features.durability {
                firn_block::Durability::Flush => " feature-flush-cache",
                firn_block::Durability::Barrier => " feature-barrier",
                firn_block::Durability::None => "",
            },
            flag(features.discard.is_some(), " feature-discard"),
            flag(
                features.discard.is_some_and(|discard| discard.secure),
                " discard-secure"
            ),
        );
        *self.features.borrow_mut() = text;
    }
}

/// The disk behind a virtual device number (`xen-vbd-interface(7)`): `xvd` in
/// the short and the extended form, and the `sd` and `hd` numbers that
/// toolstacks still use. Partitions are no disks.
fn disk_id(number: u32) -> Option<DiskId> {
    let (disk, part) = match (number >> 28, number >> 8) {
        (1, _) => ((number & 0x0fff_ffff) >> 8, number & 0xff),
        (0, 202 | 8) => ((number & 0xff) >> 4, number & 0xf),
        (0, 3) => ((number & 0xff) >> 6, number & 0x3f),
        _ => return None,
    };
    (part == 0).then_some(DiskId(disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_name_disks() {
        assert_eq!(disk_id(51712), Some(DiskId(0)));
        assert_eq!(disk_id(51728), Some(DiskId(1)));
        assert_eq!(disk_id(1 << 28 | 20 << 8), Some(DiskId(20)));
        assert_eq!(disk_id(8 << 8 | 1 << 4), Some(DiskId(1)));
        assert_eq!(disk_id(768 + 64), Some(DiskId(1)));
        assert_eq!(disk_id(51713), None, "a partition");
        assert_eq!(disk_id(5), None);
    }
}
