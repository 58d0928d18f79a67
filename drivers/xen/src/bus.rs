//! The bus: finds devices below `device/`, and gives each its task.

use crate::Xen;
use crate::blkfront::{ConnectError, StepError, Vbd, VbdConfig};
use crate::hal::Hal;
use crate::store::{Store, StoreError};
use crate::trace::Source;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_task::{Either, Executor, Few, Signal, race};

const VBDS: &str = "device/vbd";

/// All devices of this domain.
pub struct Bus<H: Hal> {
    xen: Rc<Xen<H>>,
    store: Store<H>,
    config: VbdConfig,
    executor: Rc<Executor>,
    vbds: RefCell<Few<u32, Rc<Vbd<H>>>>,
    unusable: RefCell<Few<u32, ConnectError>>,
    changed: Rc<Signal>,
    scanned: Cell<bool>,
    /// Why the list of devices is not known now, though it may be soon.
    late: RefCell<Option<StoreError>>,
    /// Devices that come now have to wait.
    held: Cell<bool>,
    /// Devices that come connect with their gates shut.
    shut: Cell<bool>,
}

impl<H: Hal + 'static> Bus<H> {
    /// A bus without devices yet; [`Bus::run`] finds them. Device tasks are
    /// spawned on `executor`.
    #[must_use]
    pub fn new(
        xen: &Rc<Xen<H>>,
        store: &Store<H>,
        executor: &Rc<Executor>,
        config: VbdConfig,
    ) -> Rc<Self> {
        Rc::new(Self {
            xen: xen.clone(),
            store: store.clone(),
            config,
            executor: executor.clone(),
            vbds: RefCell::new(Few::new()),
            unusable: RefCell::new(Few::new()),
            changed: Rc::new(Signal::new()),
            scanned: Cell::new(false),
            late: RefCell::new(None),
            held: Cell::new(false),
            shut: Cell::new(false),
        })
    }

    /// Takes up no more devices until [`Bus::thaw`]: a freeze goes by the list
    /// that it began with. Devices that go are still told so, and their steps
    /// end with an error.
    pub fn freeze(&self) {
        self.held.set(true);
    }

    /// Takes up whatever came meanwhile. Does nothing if it was not frozen.
    pub fn thaw(&self) {
        if self.held.replace(false) {
            self.changed.notify();
        }
    }

    /// Whether devices that come from now on connect with their gates shut,
    /// until [`Vbd::open`]: while an image waits for a decision, no job writes
    /// to any disk.
    pub fn keep_shut(&self, shut: bool) {
        self.shut.set(shut);
    }

    /// Gets every device ready for the host to take the memory, or none of them.
    ///
    /// # Errors
    /// Which disk is in the middle of a freeze.
    pub fn suspend(&self) -> Result<(), StepError> {
        let vbds = self.vbds();
        let refused = vbds.iter().find_map(|vbd| vbd.suspend().err());
        if let Some(error) = refused {
            self.cancel_suspend();
            return Err(error);
        }
        Ok(())
    }

    /// Goes on as if nothing had been.
    pub fn cancel_suspend(&self) {
        self.for_each(Vbd::cancel_suspend);
    }

    /// Tells every device that the host is another one: after
    /// [`Xen::resume`](crate::Xen::resume) and [`Store::resume`]. Devices that
    /// came or went with the change are found by the watch, which fires.
    pub fn resume(&self) {
        self.for_each(Vbd::resume);
    }

    /// Notified when a device came, went or changed its state.
    #[must_use]
    pub const fn changed(&self) -> &Rc<Signal> {
        &self.changed
    }

    /// The block devices, by number.
    #[must_use]
    pub fn vbds(&self) -> Vec<Rc<Vbd<H>>> {
        self.vbds.borrow().values().cloned().collect()
    }

    /// Calls `visit` for each block device, without allocating.
    pub fn for_each(&self, mut visit: impl FnMut(&Vbd<H>)) {
        for vbd in self.vbds.borrow().values() {
            visit(vbd);
        }
    }

    /// The disk of that name.
    #[must_use]
    pub fn find(&self, id: DiskId) -> Option<Rc<Vbd<H>>> {
        let vbds = self.vbds.borrow();
        vbds.values().find(|vbd| vbd.id() == id).cloned()
    }

    /// Whether the devices that were there at boot are known.
    #[must_use]
    pub const fn is_scanned(&self) -> bool {
        self.scanned.get()
    }

    /// Whether the devices that were there at boot are known, and each is
    /// connected or has failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let connecting = |vbd: &Rc<Vbd<H>>| vbd.state() == Lifecycle::Connecting;
        self.scanned.get() && !self.vbds.borrow().values().any(connecting)
    }

    /// Devices whose number names no disk.
    #[must_use]
    pub fn unusable(&self) -> Vec<ConnectError> {
        self.unusable.borrow().values().cloned().collect()
    }

    /// Follows the list of devices for as long as xenstore works.
    ///
    /// # Errors
    /// What made xenstore unusable.
    pub async fn run(self: Rc<Self>) -> Result<(), StoreError> {
        let mut watch = self.insist(async || self.store.watch(VBDS).await).await?;
        let (mut numbers, mut outdated) = (Vec::new(), true);
        loop {
            let seen = self.changed.seen();
            if outdated {
                numbers = self.insist(async || self.list().await).await?;
                self.scanned.set(true);
            }
            outdated = self.sweep(&numbers);
            if outdated {
                // While it was there, its keys were no news of the list: it may
                // have been made again.
                continue;
            }
            self.take_up(&numbers);
            outdated = match race(watch.changed(), self.changed.changed(seen)).await {
                Either::First(path) => self.concerns_list(&path),
                Either::Second(()) => false,
            };
        }
    }

    /// The numbers of the devices that the toolstack made.
    async fn list(&self) -> Result<Vec<u32>, StoreError> {
        match self.store.directory(VBDS).await {
            Ok(names) => Ok(names.iter().filter_map(|n| n.parse().ok()).collect()),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What keeps devices from coming and going now: xenstore does not answer,
    /// and is asked again until it does.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.late.borrow().clone()
    }

    /// Asks xenstore again where the connection was lost, which is mended, or
    /// the answer is late, for as long as it is: a store that was stopped for a
    /// while is no reason never to see a device again.
    async fn insist<T>(
        &self,
        ask: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            let generation = self.xen.generation();
            let result = ask().await;
            match &result {
                // Watches come back with the connection, and fire.
                Err(error) if error.is_lost_connection() => self.mend(error, generation).await?,
                Err(error) if error.is_late() => {
                    if self.late.replace(Some(error.clone())).is_none() {
                        log::warn!("{error}; asking again until there is one");
                    }
                }
                _ => {
                    if self.late.take().is_some() {
                        log::info!("xenstore answers again");
                    }
                    return result;
                }
            }
        }
    }

    /// Whether a change may be of the list of devices: most are of a key of a
    /// device that is known, such as our own state.
    fn concerns_list(&self, path: &str) -> bool {
        let below = path.strip_prefix(VBDS).and_then(|p| p.strip_prefix('/'));
        let device = below.and_then(|below| below.split_once('/'));
        let number = device.and_then(|(name, _)| name.parse().ok());
        !number.is_some_and(|number: u32| self.vbds.borrow().contains_key(&number))
    }

    /// Connects to xenstore again. A reset in the middle of that is followed
    /// by another try: each takes an act of the host's.
    async fn mend(&self, error: &StoreError, generation: u32) -> Result<(), StoreError> {
        if self.xen.generation() != generation {
            // Lost with the old host, and up again on the new one.
            return Ok(());
        }
        log::warn!("xenstore: {error}; connecting again");
        match self.store.reconnect().await {
            Err(StoreError::Reset) => Ok(()),
            result => result,
        }
    }

    /// Tells devices that are gone so, and drops those that have ended: returns
    /// whether there were any.
    fn sweep(&self, numbers: &[u32]) -> bool {
        let mut any = false;
        for vbd in self.vbds() {
            if !numbers.contains(&vbd.number()) {
                vbd.remove();
            }
            // One that came back meanwhile is taken up again.
            if vbd.is_removed() && vbd.has_ended() {
                self.vbds.borrow_mut().remove(&vbd.number());
                self.changed.notify();
                any = true;
            }
        }
        self.unusable
            .borrow_mut()
            .retain(|number, _| numbers.contains(number));
        any
    }

    /// Gives each new device its task.
    fn take_up(&self, numbers: &[u32]) {
        if self.held.get() {
            return;
        }
        for &number in numbers {
            let is_new = !self.vbds.borrow().contains_key(&number)
                && !self.unusable.borrow().contains_key(&number);
            if is_new {
                self.add(number);
            }
        }
    }

    fn add(&self, number: u32) {
        self.xen.record(Source::Bus, "new vbd", number.into());
        match Vbd::new(&self.xen, &self.store, self.config, number, &self.changed) {
            Ok(vbd) => {
                if self.shut.get() {
                    vbd.keep_shut();
                }
                self.executor.spawn(vbd.clone().run());
                self.vbds.borrow_mut().insert(number, vbd);
            }
            Err(error) => {
                log::error!("device/vbd/{number}: {error}");
                self.unusable.borrow_mut().insert(number, error);
            }
        }
        self.changed.notify();
    }
}
