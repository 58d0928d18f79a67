//! The disks of a machine in a freeze and a restore: that half of
//! [`firn_power::Host`] that goes through blkfront, whatever is below it. The
//! bare kernel uses it, and so does whoever simulates a machine.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DataPath, DiskId, Queue};
use firn_power::{Disk, Fault, Limits, Link, Step};
use firn_task::Instant;
use firn_xen::blkfront::{StepError, Terms, Vbd, WhyNot};
use firn_xen::bus::Bus;
use firn_xen::{Hal, Xen};

use super::device::VbdDevice;
use super::scratch::Scratch;
use crate::exec::{Names, Registry};

/// All disks of one machine, as the sequences of `firn-power` see them. The
/// methods are those of [`firn_power::Host`]; what is said there is not said
/// again here.
pub struct Disks<H: Hal> {
    pub(super) xen: Rc<Xen<H>>,
    pub(super) bus: Rc<Bus<H>>,
    scratch: Scratch<H>,
    /// Disks that are connected for the image.
    image_links: RefCell<Vec<DiskId>>,
    /// A sequence is at work: there is one at a time.
    pub(super) working: Cell<bool>,
    /// Of the present sequence.
    pub limits: Cell<Limits>,
}

#[expect(
    clippy::missing_errors_doc,
    reason = "they are said where the trait has them"
)]
impl<H: Hal + 'static> Disks<H> {
    /// The disks of `bus`.
    #[must_use]
    pub fn new(xen: &Rc<Xen<H>>, bus: &Rc<Bus<H>>) -> Self {
        Self {
            xen: xen.clone(),
            bus: bus.clone(),
            scratch: Scratch::new(xen),
            image_links: RefCell::default(),
            working: Cell::default(),
            limits: Cell::default(),
        }
    }

    pub(super) fn vbd(&self, disk: DiskId) -> Result<Rc<Vbd<H>>, Fault> {
        self.bus.find(disk).ok_or(Fault::Gone)
    }

    /// When a step that begins now should be given up: a little before the
    /// sequence does, so that the disk itself says what it waited for.
    fn until(&self, step: Step) -> Instant {
        let limits = self.limits.get();
        let limit = match step {
            Step::Drain => limits.drain,
            _ => limits.step,
        };
        self.xen.hal.now() + limit * 9 / 10
    }

    fn is_image_link(&self, disk: DiskId) -> bool {
        self.image_links.borrow().contains(&disk)
    }

    fn note_link(&self, disk: DiskId, link: Link) {
        let mut links = self.image_links.borrow_mut();
        links.retain(|link| *link != disk);
        if link == Link::Image {
            links.push(disk);
        }
    }

    /// Every disk in order; `in_use` is asked by the name that jobs know.
    #[must_use]
    pub fn list(&self, names: &Names, in_use: impl Fn(DiskId) -> bool) -> Vec<Disk> {
        let disk = |vbd: &Rc<Vbd<H>>| {
            let (id, state) = (vbd.id(), vbd.state());
            let name = names.to_job(id);
            let connected = matches!(state, Lifecycle::Live | Lifecycle::Freezing);
            Disk {
                id,
                name,
                state,
                info: connected.then(|| vbd.front.borrow().info().clone()),
                in_use: in_use(name),
            }
        };
        let mut disks: Vec<_> = self.bus.vbds().iter().map(disk).collect();
        disks.sort_by_key(|disk| disk.id);
        disks
    }

    /// [`firn_power::Host::device`].
    pub fn device(&self, disk: DiskId) -> Result<VbdDevice<H>, Fault> {
        let vbd = self.vbd(disk)?;
        if !matches!(vbd.state(), Lifecycle::Live | Lifecycle::Freezing) {
            return Err(Fault::Gone);
        }
        // Of an earlier handle's requests nobody waits for any more, none may
        // be under way: their memory is about to be lent again.
        if vbd.front.borrow_mut().private().unanswered() > 0 {
            return Err(Fault::Timeout);
        }
        Ok(VbdDevice::new(&self.xen, vbd))
    }

    /// [`firn_power::Host::can_freeze`].
    pub fn can_freeze(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.ask().map_err(fault)
    }

    /// [`firn_power::Host::reserve`].
    pub fn reserve(&self) -> Result<(), Fault> {
        // What is not there now is there once the data disks are disconnected.
        match self.scratch.reserve() {
            Err(_) if self.bus.vbds().len() > 1 => Ok(()),
            result => result,
        }
    }

    /// [`firn_power::Host::shut`].
    pub fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.shut().map_err(fault)
    }

    /// [`firn_power::Host::open`].
    pub fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.open().map_err(fault)
    }

    /// [`firn_power::Host::drain`].
    pub async fn drain(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        // What a job submitted and did not show the host before it was parked.
        vbd.front.borrow_mut().kick();
        vbd.drain(self.until(Step::Drain)).await.map_err(fault)
    }

    /// [`firn_power::Host::flush`].
    pub async fn flush(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        vbd.flush(self.until(Step::Flush)).await.map_err(fault)
    }

    /// [`firn_power::Host::idle`].
    pub fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.check_idle().map_err(fault)
    }

    /// [`firn_power::Host::disconnect`].
    pub async fn disconnect(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        if vbd.state() == Lifecycle::Frozen {
            return Ok(());
        }
        let until = self.until(Step::Disconnect);
        vbd.disconnect(until).await.map_err(fault)?;
        self.image_links.borrow_mut().retain(|link| *link != disk);
        self.scratch.disconnected(disk);
        Ok(())
    }

    /// [`firn_power::Host::connect`].
    pub async fn connect(&self, disk: DiskId, link: Link) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        let terms = match link {
            Link::Ordinary => Terms::Ordinary,
            Link::Image => Terms::Image,
        };
        self.note_link(disk, link);
        if link == Link::Image {
            // Before the ring: that can be small, this cannot.
            self.scratch.reserve()?;
        }
        let until = self.until(Step::Reconnect);
        vbd.connect(terms, until).await.map_err(fault)
    }

    /// [`firn_power::Host::scratch`].
    pub fn scratch(&self, disk: DiskId) -> Result<Region, Fault> {
        match self.is_image_link(disk) {
            true => self.scratch.for_image(disk),
            false => self.scratch.for_look(disk),
        }
    }

    /// [`firn_power::Host::scratch_back`].
    pub fn scratch_back(&self, disk: DiskId, free: bool) {
        self.scratch.give_back(disk, free);
    }

    /// Whether the image code has memory that it did not give back.
    #[must_use]
    pub fn is_scratch_lent(&self) -> bool {
        self.scratch.is_lent()
    }

    /// The part of [`firn_power::Host::bind`] that is the disks': the buffers
    /// that restored jobs hold become buffers of their disks.
    pub fn bind(&self, buffers: &Registry, disks: &[(DiskId, DiskId)]) -> Result<(), Fault> {
        for (saved, present) in disks {
            let vbd = self.vbd(*present)?;
            let mut adopted = Vec::new();
            let mut queue = None;
            buffers.for_each(|r| {
                if r.disk == *saved {
                    queue = Some(r.queue);
                    adopted.push(Adopted {
                        index: r.index,
                        region: r.memory.alias(),
                        parked: false,
                    });
                }
            });
            let Some(queue) = queue else { continue };
            let result = vbd.front.borrow_mut().adopt(queue, 0, adopted);
            result.map_err(|error| Fault::Other(format!("{present}: {error}")))?;
        }
        Ok(())
    }
}

fn fault(error: StepError) -> Fault {
    log::warn!("{error}");
    match error.why {
        WhyNot::Deadline { .. } => Fault::Timeout,
        WhyNot::Io(error) => error.into(),
        WhyNot::NoFlush => Fault::Cannot(
            "its backend offers no flush: what was written is not known to be durable",
        ),
        WhyNot::Removed => Fault::Gone,
        why => Fault::Other(format!("{why}")),
    }
}
