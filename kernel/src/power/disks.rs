//! The disks of a machine in a freeze and a restore: that half of
//! [`firn_power::Host`] that goes through a driver, whichever it is. The bare
//! kernel uses it, and so does whoever simulates a machine.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Adopted, DiskId};
use firn_power::{Disk, Fault, Limits, Link, Step};
use firn_task::{Instant, sort_few};

use super::scratch::Scratch;
use crate::drives::{Drive, DriveDevice, Drives};
use crate::exec::{Names, Registry};

/// All disks of one machine, as the sequences of `firn-power` see them. The
/// methods are those of [`firn_power::Host`]; what is said there is not said
/// again here.
pub struct Disks<D: Drives> {
    pub(super) drives: D,
    scratch: Scratch<D>,
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
impl<D: Drives> Disks<D> {
    /// These disks.
    #[must_use]
    pub fn new(drives: D) -> Self {
        Self {
            scratch: Scratch::new(drives.clone()),
            drives,
            image_links: RefCell::default(),
            working: Cell::default(),
            limits: Cell::default(),
        }
    }

    pub(super) fn drive(&self, disk: DiskId) -> Result<D::Drive, Fault> {
        self.drives.find(disk).ok_or(Fault::Gone)
    }

    /// When a step that begins now should be given up: a little before the
    /// sequence does, so that the disk itself says what it waited for.
    fn until(&self, step: Step) -> Instant {
        let limits = self.limits.get();
        let limit = match step {
            Step::Drain => limits.drain,
            _ => limits.step,
        };
        self.drives.now() + limit * 9 / 10
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
        let disk = |drive: &D::Drive| {
            let (id, state) = (drive.id(), drive.state());
            let name = names.to_job(id);
            let connected = matches!(state, Lifecycle::Live | Lifecycle::Freezing);
            Disk {
                id,
                name,
                state,
                info: connected.then(|| drive.info()),
                in_use: in_use(name),
            }
        };
        let mut disks: Vec<_> = self.drives.all().iter().map(disk).collect();
        sort_few(&mut disks, |disk| disk.id);
        disks
    }

    /// [`firn_power::Host::unseen`].
    #[must_use]
    pub fn unseen(&self) -> Option<&'static str> {
        self.drives.unseen()
    }

    /// [`firn_power::Host::device`].
    pub fn device(&self, disk: DiskId) -> Result<DriveDevice<D>, Fault> {
        let drive = self.drive(disk)?;
        if !matches!(drive.state(), Lifecycle::Live | Lifecycle::Freezing) {
            return Err(Fault::Gone);
        }
        // Of an earlier handle's requests nobody waits for any more, none may
        // be under way: their memory is about to be lent again.
        if drive.unanswered() > 0 {
            return Err(Fault::Timeout);
        }
        Ok(DriveDevice::new(&self.drives, drive))
    }

    /// [`firn_power::Host::can_freeze`].
    pub fn can_freeze(&self, disk: DiskId) -> Result<(), Fault> {
        self.drive(disk)?.ask()
    }

    /// [`firn_power::Host::reserve`].
    pub fn reserve(&self) -> Result<(), Fault> {
        // What is not there now is there once the data disks are disconnected.
        match self.scratch.reserve() {
            Err(_) if self.drives.all().len() > 1 => Ok(()),
            result => result,
        }
    }

    /// [`firn_power::Host::shut`].
    pub fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.drive(disk)?.shut()
    }

    /// [`firn_power::Host::open`].
    pub fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.drive(disk)?.open()
    }

    /// [`firn_power::Host::drain`].
    pub async fn drain(&self, disk: DiskId) -> Result<(), Fault> {
        let drive = self.drive(disk)?;
        // What a job submitted and did not show the host before it was parked.
        drive.kick();
        drive.drain(self.until(Step::Drain)).await
    }

    /// [`firn_power::Host::flush`].
    pub async fn flush(&self, disk: DiskId) -> Result<(), Fault> {
        let drive = self.drive(disk)?;
        drive.flush(self.until(Step::Flush)).await
    }

    /// [`firn_power::Host::idle`].
    pub fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.drive(disk)?.idle()
    }

    /// [`firn_power::Host::disconnect`].
    pub async fn disconnect(&self, disk: DiskId) -> Result<(), Fault> {
        let drive = self.drive(disk)?;
        if drive.state() == Lifecycle::Frozen {
            return Ok(());
        }
        drive.disconnect(self.until(Step::Disconnect)).await?;
        self.image_links.borrow_mut().retain(|link| *link != disk);
        self.scratch.disconnected(disk);
        Ok(())
    }

    /// [`firn_power::Host::connect`].
    pub async fn connect(&self, disk: DiskId, link: Link) -> Result<(), Fault> {
        let drive = self.drive(disk)?;
        self.note_link(disk, link);
        if link == Link::Image {
            // Before the ring: that can be small, this cannot.
            self.scratch.reserve()?;
        }
        drive.connect(link, self.until(Step::Reconnect)).await
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
            let drive = self.drive(*present)?;
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
            drive.adopt(queue, adopted)?;
        }
        Ok(())
    }
}
