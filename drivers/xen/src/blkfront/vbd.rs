//! The control path: one `async` task per device.

use super::connect::ConnectError;
use super::features::{Features, Keys};
use super::front::Front;
use super::offence::Offence;
use crate::Xen;
use crate::hal::Hal;
use crate::store::{Store, StoreError, Watch};
use crate::trace::Source;
use crate::wire::DomId;
use crate::wire::xenbus::XenbusState;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::cell::{Cell, RefCell};
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::{DiskId, DiskInfo, Stats};
use firn_task::{Signal, race, sleep_until, timeout_at};

/// How long to wait before asking a lost xenstore connection again.
const STORE_PATIENCE: Duration = Duration::from_millis(10);

/// What the frontend may use, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbdConfig {
    /// Largest ring, as a power of two of pages.
    pub max_ring_order: u32,
    /// Most segments of one request.
    pub max_segments: usize,
    /// Whether to offer persistent grants.
    pub persistent: bool,
    /// How long each step of the backend may take.
    pub deadline: Duration,
}

impl Default for VbdConfig {
    fn default() -> Self {
        Self {
            max_ring_order: super::MAX_RING_ORDER,
            max_segments: usize::MAX,
            persistent: true,
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
    watch: Watch<H>,
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
    error: RefCell<Option<ConnectError>>,
    removed: Cell<bool>,
    ended: Cell<bool>,
    /// Notified when anything that a person or the bus would see changes.
    changed: Rc<Signal>,
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
            stats: front.stats,
        }
    }

    /// The device's life, from handshake to removal.
    pub async fn run(self: Rc<Self>) {
        if let Err(error) = self.live_on().await {
            log::error!("{}: {error}", self.id);
            self.xen.record(Source::Vbd(self.number), "failed", 0);
            *self.error.borrow_mut() = Some(error);
            self.disconnect(firn_block::IoError::Gone);
            self.step(Lifecycle::Failed);
            // Lets the backend and the toolstack clean up.
            self.try_switch(XenbusState::CLOSING).await;
            self.try_switch(XenbusState::CLOSED).await;
        }
        self.buffers_came_back().await;
        self.ended.set(true);
        self.changed.notify();
    }

    /// Waits until nobody has a buffer of this disk any more: giving them back
    /// takes its queue.
    async fn buffers_came_back(&self) {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if !self.front.borrow().has_lent_buffers() {
                return;
            }
            attention.changed(seen).await;
        }
    }

    async fn live_on(&self) -> Result<(), ConnectError> {
        let mut other = self.find_backend().await?;
        loop {
            self.connect(&mut other).await?;
            let end = self.follow(&mut other).await?;
            self.close(&mut other, end).await;
            if self.front.borrow().state() == Lifecycle::Failed || !self.revived(&mut other).await {
                return Ok(());
            }
            self.step(Lifecycle::Connecting);
        }
    }

    /// Runs a step again when the xenstore connection was reset in the middle
    /// of it: nothing in the store is lost by that, and the bus mends the
    /// connection. Every step can be repeated.
    pub(super) async fn through_resets<T>(
        &self,
        step: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let give_up = self.xen.hal.now() + self.config.deadline;
        loop {
            match step().await {
                Err(error) if error.is_lost_connection() && self.xen.hal.now() < give_up => {
                    let again = self.xen.hal.now() + STORE_PATIENCE;
                    sleep_until(self.xen.clone(), again).await;
                }
                result => return result,
            }
        }
    }

    /// Reads who the backend is, and watches its state.
    async fn find_backend(&self) -> Result<OtherEnd<H>, ConnectError> {
        let path = self.own("backend").await?;
        let domain = self.own("backend-id").await?;
        let domain = domain
            .parse()
            .map_err(|_| ConnectError::NoBackend { key: "backend-id" })?;
        let state = format!("{path}/state");
        let watch = self.through_resets(async || self.store.watch(&state).await);
        let watch = watch.await?;
        Ok(OtherEnd {
            path,
            domain: DomId(domain),
            watch,
        })
    }

    async fn own(&self, key: &'static str) -> Result<String, ConnectError> {
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

    /// Watches a live connection until something ends it.
    async fn follow(&self, other: &mut OtherEnd<H>) -> Result<End, ConnectError> {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if self.front.borrow().offence().is_some() {
                return Ok(End::Offence);
            }
            match self.state_of(other).await? {
                XenbusState::CONNECTED => self.look_for_resize(other).await?,
                XenbusState::CLOSING => return Ok(End::BackendCloses),
                // It forgot us: whatever was in flight is lost with it.
                XenbusState::UNKNOWN
                | XenbusState::INITIALISING
                | XenbusState::INIT_WAIT
                | XenbusState::CLOSED => return Ok(End::BackendGone),
                XenbusState::RECONFIGURING | XenbusState::RECONFIGURED => {}
                state => {
                    let step = "stay connected";
                    return Err(ConnectError::OutOfOrder { step, state });
                }
            }
            race(other.watch.changed(), attention.changed(seen)).await;
        }
    }

    /// A backend announces a new size by writing its state once more.
    async fn look_for_resize(&self, other: &OtherEnd<H>) -> Result<(), ConnectError> {
        let (logical_block, old) = {
            let front = self.front.borrow();
            (front.info.logical_block, front.info.capacity)
        };
        let keys = self.keys(other).await?;
        let capacity = keys.capacity(logical_block)?;
        if capacity != old {
            log::info!("{}: {old} sectors are now {capacity}", self.id);
            self.xen
                .record(Source::Vbd(self.number), "resized", capacity);
            self.front.borrow_mut().resize(capacity);
            self.changed.notify();
        }
        Ok(())
    }

    /// After a close: whether the backend starts over before the device is
    /// removed.
    async fn revived(&self, other: &mut OtherEnd<H>) -> bool {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if self.removed.get() {
                return false;
            }
            match self.state_of(other).await {
                Ok(XenbusState::INIT_WAIT) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
            race(other.watch.changed(), attention.changed(seen)).await;
        }
    }

    /// What the backend says about itself now.
    pub(super) async fn keys(&self, other: &OtherEnd<H>) -> Result<Keys, ConnectError> {
        let read = async || Keys::read(&self.store, &other.path).await;
        Ok(self.through_resets(read).await?)
    }

    /// The backend's state.
    async fn state_of(&self, other: &OtherEnd<H>) -> Result<XenbusState, ConnectError> {
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

    /// Waits for the backend's state within the deadline.
    pub(super) async fn wait_for(
        &self,
        other: &mut OtherEnd<H>,
        step: &'static str,
        there: impl Fn(XenbusState) -> bool,
    ) -> Result<(), ConnectError> {
        let at = self.xen.hal.now() + self.config.deadline;
        loop {
            let state = self.state_of(other).await?;
            if there(state) {
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
    pub(super) async fn switch(&self, state: XenbusState) -> Result<(), ConnectError> {
        self.xen
            .record(Source::Vbd(self.number), "state", state.0.into());
        let (key, value) = (self.key("state"), state.0.to_string());
        let write = async || self.store.write(&key, &value).await;
        Ok(self.through_resets(write).await?)
    }

    /// The same, where nothing can be done about a failure: the directory may
    /// be gone already.
    pub(super) async fn try_switch(&self, state: XenbusState) {
        if self.removed.get() {
            // Writing would bring the directory back.
            return;
        }
        if let Err(error) = self.switch(state).await {
            log::debug!("{}: {error}", self.id);
        }
    }

    /// A step of the lifecycle; one that the table does not have is not taken.
    pub(super) fn step(&self, to: Lifecycle) {
        if self.front.borrow_mut().gate.step(to).is_ok() {
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
