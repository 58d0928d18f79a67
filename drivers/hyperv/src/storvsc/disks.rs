//! A controller's disks: who they are, and how they come and go.

use super::controller::Controller;
use super::front::Front;
use super::link::Link;
use crate::hal::Hal;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use firn_block::gate::Lifecycle;
use firn_block::{DiskId, DiskInfo, IoError, PAGE};
use firn_scsi::vpd::Designator;

/// One disk.
pub struct Unit<H: Hal> {
    /// The data path. Never borrowed across a wait.
    pub front: RefCell<Front<H>>,
    id: DiskId,
    number: Cell<u8>,
    /// A connection of its controller is to be one of this disk as well.
    pub(super) wanted: Cell<bool>,
    /// It connects with its gate shut.
    pub(super) stays_shut: Cell<bool>,
    /// The last look at the controller found it.
    pub(super) found: Cell<bool>,
    /// What tells it from others wherever it is plugged in.
    name: RefCell<Name>,
}

/// What a disk is called by those who made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) designator: Option<Designator>,
    pub(super) serial: Option<String>,
    pub(super) product: String,
}

impl Name {
    /// Whether two names are of one disk for certain.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.designator, &other.designator) {
            (Some(one), Some(other)) => one == other,
            _ => self.serial.is_some() && self.serial == other.serial,
        }
    }

    /// Whether two names are of two disks for certain.
    fn is_other(&self, other: &Self) -> bool {
        match (&self.designator, &other.designator) {
            (Some(one), Some(other)) => one != other,
            _ => false,
        }
    }
}

/// A disk as a scan finds it.
pub(super) struct Found {
    pub(super) number: u8,
    pub(super) name: Name,
    /// But for its id.
    pub(super) info: DiskInfo,
    pub(super) unmap_sectors: u64,
    pub(super) write_same: bool,
}

impl<H: Hal> Unit<H> {
    /// Which disk it is.
    #[must_use]
    pub const fn id(&self) -> DiskId {
        self.id
    }

    /// Its number on the controller.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number.get()
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> Lifecycle {
        self.front.borrow().state()
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> DiskInfo {
        self.front.borrow().info.clone()
    }

    /// The best of its names that vital product data have.
    #[must_use]
    pub fn designator(&self) -> Option<Designator> {
        self.name.borrow().designator.clone()
    }

    /// Its serial number.
    #[must_use]
    pub fn serial(&self) -> Option<String> {
        self.name.borrow().serial.clone()
    }

    /// What its maker calls it.
    #[must_use]
    pub fn product(&self) -> String {
        self.name.borrow().product.clone()
    }
}

impl<H: Hal> Front<H> {
    /// Takes up a connection: room for everything that can be in flight is made
    /// now.
    pub(super) fn attach(&mut self, link: &mut Link<H>) {
        let depth = self.info.queue_depth;
        let pages = self.info.max_transfer as usize / PAGE + 1;
        let spare = self.spare.take();
        self.inbox = Some(spare.unwrap_or_else(|| link.add_inbox(depth, pages)));
        self.accepted.resize(depth as usize);
        self.again = VecDeque::with_capacity(depth as usize);
        self.paused = VecDeque::with_capacity(depth as usize);
    }

    /// Takes over what the disk is now.
    fn update(&mut self, found: &Found) {
        self.info = DiskInfo {
            id: self.info.id,
            ..found.info.clone()
        };
        self.unit = found.number;
        self.unmap_sectors = found.unmap_sectors;
        self.write_same = found.write_same;
        self.changed = false;
    }

    /// The host has it no more: what is in flight ends.
    pub(super) fn lose(&mut self) {
        let (from, gone) = (self.state(), IoError::Gone);
        self.abort_all(gone, false);
        // A disk that is frozen or has failed stays what it is.
        if matches!(from, Lifecycle::Live | Lifecycle::Freezing) {
            let _ = self.step(Lifecycle::Closed);
        }
    }
}

impl<H: Hal> Controller<H> {
    /// Binds what a scan found to the disks that are known: by name where both
    /// have one, else by number. Others are new; known ones that were not found
    /// are gone.
    pub(super) fn bind(&self, found: &[Found]) {
        let mut known = self.units.borrow().clone();
        known.retain(|unit| unit.state() != Lifecycle::Failed);
        for found in found {
            let at = position(&known, found);
            let unit = at.map_or_else(|| self.new_unit(found), |at| known.swap_remove(at));
            self.take_up(&unit, found);
        }
        for unit in known {
            if unit.state() != Lifecycle::Closed {
                log::warn!("{}: the host has no such disk", unit.id());
            }
            unit.found.set(false);
            unit.front.borrow_mut().lose();
        }
        self.changed.notify();
    }

    fn new_unit(&self, found: &Found) -> Rc<Unit<H>> {
        let id = DiskId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let unit = Rc::new(Unit {
            front: RefCell::new(Front::new(&self.wire, found.number, id)),
            id,
            number: Cell::new(found.number),
            wanted: Cell::new(true),
            stays_shut: Cell::new(false),
            found: Cell::new(true),
            name: RefCell::default(),
        });
        self.units.borrow_mut().push(unit.clone());
        unit
    }

    fn take_up(&self, unit: &Unit<H>, found: &Found) {
        unit.number.set(found.number);
        unit.found.set(true);
        *unit.name.borrow_mut() = found.name.clone();
        let mut front = unit.front.borrow_mut();
        front.update(found);
        let stays_away = front.state() == Lifecycle::Frozen && !unit.wanted.get();
        if front.inbox.is_some() || stays_away {
            // It is connected, or nobody wants it yet: it was looked at again.
            return;
        }
        if let Some(link) = self.wire.link.borrow_mut().as_mut() {
            front.attach(link);
        }
        let first = match front.state() {
            Lifecycle::Frozen => Some(Lifecycle::Thawing),
            Lifecycle::Closed => Some(Lifecycle::Connecting),
            _ => None,
        };
        if let Some(first) = first {
            let _ = front.step(first);
        }
        let shut = self.shut.get() || unit.stays_shut.get();
        let live = front.state() == Lifecycle::Connecting && !shut;
        let to = if live {
            Lifecycle::Live
        } else {
            Lifecycle::Freezing
        };
        let _ = front.step(to);
    }
}

/// Which known disk it is that was found.
fn position<H: Hal>(known: &[Rc<Unit<H>>], found: &Found) -> Option<usize> {
    let named = |unit: &Rc<Unit<H>>| unit.name.borrow().is_same(&found.name);
    let numbered = |unit: &Rc<Unit<H>>| {
        unit.number() == found.number && !unit.name.borrow().is_other(&found.name)
    };
    let by_name = known.iter().position(named);
    by_name.or_else(|| known.iter().position(numbered))
}
