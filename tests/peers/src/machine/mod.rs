//! A Xen machine with one guest, as the guest's drivers see it.

mod calls;
mod events;

mod grants;
mod log_dirty;
#[cfg(test)]
mod tests;

pub use calls::CallKind;
pub use events::Channel;
pub use grants::{GrantError, MAX_GRANT_FRAMES, Mapping};

use crate::frames::Frames;
use calls::Calls;
use events::Events;
use firn_block::PAGE;
use firn_block::shm::Region;
use firn_task::Instant;
use firn_xen::Hal;
use firn_xen::hal::{Fixed, FixedFrames};
use firn_xen::hypercall::Hypercall;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::event_channel::Port;
use firn_xen::wire::grant_table::GrantRef;
use firn_xen::wire::misc::ShutdownReason;
use firn_xen::wire::{DomId, Gfn, hvm};
use grants::GrantTable;
use log_dirty::LogDirty;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

/// The domain that the drivers run in.
pub const GUEST: DomId = DomId(1);
/// The domain of xenstored, of the toolstack and of most backends.
pub const HOST: DomId = DomId(0);

const FIXED_SHARED_INFO: Gfn = Gfn(0xf_0000);
const FIXED_GRANTS: Gfn = Gfn(0xf_1000);
const STORE_PAGE: Gfn = Gfn(0xf_effc);
const CONSOLE_PAGE: Gfn = Gfn(0xf_efff);

/// Something that a correct guest never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A page was freed while a peer had it mapped.
    FreedWhileMapped(GrantRef),
    /// A page was freed while the grant table still gave access to it.
    FreedWhileGranted(GrantRef),
    /// The entry of a mapped grant was changed.
    RevokedUnderMapping(GrantRef),
    /// A grant of a page that had been freed was mapped.
    GrantOfFreedPage(GrantRef),
    /// A page was written after it had been freed.
    WrittenAfterFree(Gfn),
    /// Memory was freed that was not allocated like this, or twice.
    WrongFree,
    /// One of Xen's pages was put at a frame not set aside for it.
    MappedElsewhere(u64),
}

/// What a host does while its guest is suspended.
type Meanwhile = Box<dyn FnOnce() -> u64>;

/// The machine's parts; reach them through [`FakeMachine`].
pub struct Parts {
    frames: RefCell<Frames>,
    shared_info: Region,
    events: RefCell<Events>,
    grants: RefCell<GrantTable>,
    log_dirty: RefCell<LogDirty>,
    calls: RefCell<Calls>,
    params: RefCell<BTreeMap<u32, u64>>,
    clock: Cell<u64>,
    timer: Cell<Option<u64>>,
    shutdown: Cell<Option<ShutdownReason>>,
    xen_console: RefCell<Vec<u8>>,
    violations: RefCell<Vec<Violation>>,
    /// What the host does while the guest is suspended; the answer to its call.
    at_suspend: RefCell<Option<Meanwhile>>,
    /// The shared info page is not where the guest looks for it.
    hides_info: Cell<bool>,
    /// Ends of the store's and the console's channels, until somebody listens.
    start_ends: RefCell<BTreeMap<u32, usize>>,
}

/// A handle to the machine; clones are the same machine.
#[derive(Clone)]
pub struct FakeMachine(Rc<Parts>);

impl Deref for FakeMachine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FakeMachine {
    /// A machine whose guest has just been started: the store's and the
    /// console's pages and ports are set, nothing listens at the other end yet.
    #[must_use]
    pub fn new() -> Self {
        let mut frames = Frames::new();
        let shared_info = frames.place(FIXED_SHARED_INFO.0, 1);
        let table = frames.place(FIXED_GRANTS.0, MAX_GRANT_FRAMES as usize);
        frames.place(STORE_PAGE.0, 1);
        frames.place(CONSOLE_PAGE.0, 1);
        let machine = Self(Rc::new(Parts {
            frames: RefCell::new(frames),
            shared_info,
            events: RefCell::new(Events::new()),
            grants: RefCell::new(GrantTable::new(table)),
            log_dirty: RefCell::default(),
            calls: RefCell::default(),
            params: RefCell::default(),
            // Not zero, as no guest ever starts at the birth of its host.
            clock: Cell::new(1_000_000_000),
            timer: Cell::new(None),
            shutdown: Cell::new(None),
            xen_console: RefCell::default(),
            violations: RefCell::default(),
            at_suspend: RefCell::default(),
            hides_info: Cell::new(false),
            start_ends: RefCell::default(),
        }));
        machine.start_info(hvm::PARAM_STORE_PFN, hvm::PARAM_STORE_EVTCHN, STORE_PAGE);
        machine.start_info(
            hvm::PARAM_CONSOLE_PFN,
            hvm::PARAM_CONSOLE_EVTCHN,
            CONSOLE_PAGE,
        );
        machine
    }

    /// Does `meanwhile` at the guest's next suspend. It returns what the guest's
    /// call returns: 1 is cancelled; 0 is a new host, which it has to make.
    pub fn at_suspend(&self, meanwhile: impl FnOnce() -> u64 + 'static) {
        *self.at_suspend.borrow_mut() = Some(Box::new(meanwhile));
    }

    /// Moves the guest to a new host, as a restore does: its memory is what it
    /// was, everything that Xen kept of it is gone. The pages of the store and
    /// the console are empty, and their ports others than before.
    pub fn new_host(&self) {
        self.events.borrow_mut().forget();
        self.grants.borrow_mut().forget();
        self.params.borrow_mut().clear();
        self.start_ends.borrow_mut().clear();
        self.timer.set(None);
        self.shutdown.set(None);
        self.hides_info.set(true);
        for at in (0..PAGE).step_by(8) {
            let word = self.shared_info.atomic_u64(at);
            word.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        }
        for (pfn, evtchn, page) in [
            (
                hvm::PARAM_CONSOLE_PFN,
                hvm::PARAM_CONSOLE_EVTCHN,
                CONSOLE_PAGE,
            ),
            (hvm::PARAM_STORE_PFN, hvm::PARAM_STORE_EVTCHN, STORE_PAGE),
        ] {
            if let Some(page) = self.map_frames(page, 1) {
                page.zero(0, PAGE);
            }
            self.start_info(pfn, evtchn, page);
        }
    }

    fn start_info(&self, pfn: u32, evtchn: u32, page: Gfn) {
        let (port, end) = self.toolstack_end(HOST);
        self.start_ends.borrow_mut().insert(evtchn, end);
        self.set_param_by_toolstack(pfn, page.0);
        self.set_param_by_toolstack(evtchn, u64::from(port.0));
    }

    /// Sets an HVM parameter as the toolstack may.
    pub fn set_param_by_toolstack(&self, index: u32, value: u64) {
        self.params.borrow_mut().insert(index, value);
    }

    /// What the guest (or the toolstack) set an HVM parameter to.
    #[must_use]
    pub fn param(&self, index: u32) -> Option<u64> {
        self.params.borrow().get(&index).copied()
    }

    /// The store's page and the host's end of its channel, once.
    ///
    /// # Panics
    /// When they were taken before.
    #[must_use]
    pub fn take_store(&self) -> (Region, Channel) {
        self.take_start(hvm::PARAM_STORE_EVTCHN, STORE_PAGE)
    }

    /// The console's page and the host's end of its channel, once.
    ///
    /// # Panics
    /// When they were taken before.
    #[must_use]
    pub fn take_console(&self) -> (Region, Channel) {
        self.take_start(hvm::PARAM_CONSOLE_EVTCHN, CONSOLE_PAGE)
    }

    fn take_start(&self, evtchn: u32, page: Gfn) -> (Region, Channel) {
        let end = self.start_ends.borrow_mut().remove(&evtchn);
        let page = self.map_frames(page, 1);
        end.and_then(|end| Some((page?, self.channel(end))))
            .unwrap_or_else(|| panic!("this channel was taken before"))
    }

    /// Lets time pass and fires the guest's timer if it is due.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock.set(self.clock.get().saturating_add(nanos));
        self.fire_timer();
    }

    /// When the guest's timer fires.
    #[must_use]
    pub fn timer(&self) -> Option<Instant> {
        self.timer.get().map(Instant::from_nanos)
    }

    /// Whether an upcall was due since the last call: the interrupt.
    #[must_use]
    pub fn take_upcall(&self) -> bool {
        std::mem::take(&mut self.events.borrow_mut().upcall)
    }

    /// The ports that the guest waited for last.
    #[must_use]
    pub fn polled(&self) -> Vec<u32> {
        self.events.borrow().polled.clone()
    }

    /// How many upcalls there were.
    #[must_use]
    pub fn upcalls(&self) -> u64 {
        self.events.borrow().upcalls
    }

    /// The guest's ports that are not free.
    #[must_use]
    pub fn open_ports(&self) -> Vec<Port> {
        self.events.borrow().open_ports()
    }

    /// Why the guest shut down, if it did.
    #[must_use]
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        self.shutdown.get()
    }

    /// What the guest wrote to the hypervisor's console.
    #[must_use]
    pub fn xen_console(&self) -> String {
        String::from_utf8_lossy(&self.xen_console.borrow()).into_owned()
    }

    /// Makes memory that somebody else made, and keeps, memory of the guest.
    pub fn lend_memory(&self, region: &Region) {
        self.frames.borrow_mut().lend(region);
    }

    /// Lets [`Hal::alloc_shared`] fail once so many pages are in use on top of
    /// today's.
    pub fn limit_memory(&self, pages: usize) {
        self.frames.borrow_mut().budget = pages;
    }

    /// Lets the grant table grow to so many frames only.
    pub fn limit_grant_frames(&self, frames: u32) {
        self.grants.borrow_mut().max_frames = frames.clamp(1, MAX_GRANT_FRAMES);
    }

    /// Pages that the guest holds, including those of the machine itself.
    #[must_use]
    pub fn pages_in_use(&self) -> usize {
        self.frames.borrow().in_use()
    }

    /// What the guest did wrong so far.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut all = self.violations.borrow().clone();
        let spoiled = self.frames.borrow().spoiled();
        all.extend(spoiled.into_iter().map(Violation::WrittenAfterFree));
        all
    }

    fn note(&self, violation: Violation) {
        let mut violations = self.violations.borrow_mut();
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }
}

impl Default for FakeMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl Hal for FakeMachine {
    fn hypercall(&self, call: Hypercall<'_>) -> Result<u64, Errno> {
        self.answer(call)
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        self.frames.borrow_mut().allocate(pages)
    }

    fn free_shared(&self, region: Region) {
        let Some(frames) = self.frames.borrow_mut().free(&region) else {
            self.note(Violation::WrongFree);
            return;
        };
        let grants = self.grants.borrow();
        if let Some(gref) = grants.mapped_in(&frames) {
            self.note(Violation::FreedWhileMapped(gref));
        } else if let Some(gref) = grants.granted_in(&frames) {
            self.note(Violation::FreedWhileGranted(gref));
        }
    }

    fn gfn(&self, region: &Region, page: usize) -> Gfn {
        let gfn = self.frames.borrow().gfn(region.addr() + page * PAGE);
        gfn.unwrap_or_else(|| panic!("a region that this machine did not make"))
    }

    fn map_frames(&self, first: Gfn, count: usize) -> Option<Region> {
        self.frames.borrow().map(first, count)
    }

    fn fixed(&self, what: Fixed) -> FixedFrames {
        match what {
            Fixed::SharedInfo => FixedFrames {
                first: FIXED_SHARED_INFO,
                count: 1,
            },
            Fixed::GrantTable => FixedFrames {
                first: FIXED_GRANTS,
                count: MAX_GRANT_FRAMES,
            },
        }
    }

    fn note_changed(&self, memory: &Region) {
        memory.touch();
        self.see(memory);
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.get())
    }
}
