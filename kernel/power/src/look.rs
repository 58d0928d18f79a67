//! Looking at disks: is there an image, what are they?

use crate::run::Run;
use crate::{Disk, Fault, Host, Step, Trouble};
use alloc::vec::Vec;
use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_image::{Area, DiskIdentity, PresentDisk, SavedDisk, Slots, Store, Verdict};

/// A disk that may hold an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) disk: DiskId,
    pub(crate) area: Area,
    pub(crate) slots: Slots,
}

impl Place {
    /// Whether this boot has to decide something before anything is written.
    pub(crate) fn asks(&self) -> bool {
        matches!(
            self.slots.verdict(),
            Verdict::Valid(..) | Verdict::Damaged(_) | Verdict::Version(_)
        )
    }
}

/// Whether a disk answers, its gate open or shut.
pub(crate) fn is_connected(disk: &Disk) -> bool {
    let connected = matches!(disk.state, Lifecycle::Live | Lifecycle::Freezing);
    connected && disk.info.is_some()
}

impl<H: Host> Run<'_, H> {
    /// Reads the headers of one disk; `None` where there is no place for any.
    pub(crate) async fn look(&self, step: Step, disk: DiskId) -> Result<Option<Place>, Trouble> {
        let look = async |store: &mut Store<H::Device>| look_at(disk, store).await;
        self.store(step, disk, look).await
    }

    /// The same for a boot, which believes what it reads: that an image was
    /// ended may so far stand in the disk's cache only, and must not be
    /// forgotten once something else was written.
    async fn look_for_good(&self, disk: DiskId) -> Result<Option<Place>, Trouble> {
        let look = async |store: &mut Store<H::Device>| {
            let found = look_at(disk, store).await?;
            if found.is_some_and(|place| matches!(place.slots.verdict(), Verdict::Ended(..))) {
                store.flush().await?;
            }
            Ok(found)
        };
        self.store(Step::Look, disk, look).await
    }

    /// Reads the headers of all disks. Those that cannot be read come beside, and
    /// those that are offered and not connected: a machine that went on without
    /// looking at them would leave them an image of an older state of the others.
    pub(crate) async fn look_at_all(&self) -> (Vec<Place>, Vec<Trouble>) {
        let (mut places, mut unread) = (Vec::new(), self.unseen());
        for disk in self.host.disks().iter().filter(|disk| is_connected(disk)) {
            match self.look_for_good(disk.id).await {
                Ok(place) => places.extend(place),
                Err(trouble) => unread.push(trouble),
            }
        }
        (places, unread)
    }

    /// What may hold an image and cannot be looked at.
    fn unseen(&self) -> Vec<Trouble> {
        let step = Step::Look;
        let trouble = |disk, what| Trouble {
            step,
            disk,
            fault: Fault::Unseen(what),
        };
        let mut unseen = Vec::new();
        unseen.extend(self.host.unseen().map(|what| trouble(None, what)));
        for disk in self.host.disks() {
            // Who is closed was taken away.
            if !is_connected(&disk) && disk.state != Lifecycle::Closed {
                unseen.push(trouble(Some(disk.id), "it is offered, and not connected"));
            }
        }
        unseen
    }

    /// What a disk is known by.
    pub(crate) async fn identify(&self, disk: &Disk) -> Result<SavedDisk, Trouble> {
        let step = Step::Identify;
        let id = disk.id;
        let info = disk.info.as_ref().ok_or(Trouble {
            step,
            disk: Some(id),
            fault: Fault::Gone,
        })?;
        let identify = async |store: &mut Store<H::Device>| store.identify(info.capacity).await;
        let identity = self.store(step, id, identify).await?;
        Ok(SavedDisk {
            id: disk.name,
            capacity: info.capacity,
            logical_block: info.logical_block,
            read_only: info.read_only,
            identity,
        })
    }

    /// What this boot's disks are known by, beside each of the saved ones. A
    /// disk that cannot be read is none of them.
    pub(crate) async fn present(&self, saved: &[SavedDisk]) -> Vec<PresentDisk> {
        let mut present = Vec::new();
        for disk in self.host.disks().iter().filter(|disk| is_connected(disk)) {
            let Some(info) = &disk.info else {
                continue;
            };
            self.host.enter(Step::Compare, Some(disk.id));
            let mut one = PresentDisk {
                id: disk.id,
                capacity: info.capacity,
                logical_block: info.logical_block,
                read_only: info.read_only,
                guid: None,
                prints: Vec::new(),
            };
            if let Ok(mut store) = self.open(disk.id) {
                compare(&mut store, saved, &mut one).await;
                self.close(disk.id, store);
            }
            present.push(one);
        }
        present
    }
}

async fn look_at<D: firn_image::Device>(
    disk: DiskId,
    store: &mut Store<D>,
) -> Result<Option<Place>, firn_image::Error> {
    let Some(area) = store.area().await? else {
        return Ok(None);
    };
    let slots = store.look(area).await?;
    Ok(Some(Place { disk, area, slots }))
}

async fn compare<D: firn_image::Device>(
    store: &mut Store<D>,
    saved: &[SavedDisk],
    one: &mut PresentDisk,
) {
    for disk in saved {
        // A smaller disk is compared by what it has: a disk that shrank is to
        // be called so, not missing.
        let capacity = disk.capacity.min(one.capacity);
        let print = match store.identify(capacity).await {
            Ok(DiskIdentity::Guid(guid)) => {
                one.guid = Some(guid);
                None
            }
            Ok(DiskIdentity::Print(print)) => Some(print).filter(|_| disk.capacity <= one.capacity),
            Err(_) => None,
        };
        one.prints.push(print);
    }
}
