//! Disks that were late: they came, or their backends answered again, when
//! nobody waited for them any more.

use alloc::vec::Vec;
use core::time::Duration;

use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_power::{Fault, Link};
use firn_task::{join_all, race, sleep_until};

use super::Disks;
use crate::drives::{Drive, Drives};

/// How long to wait between two tries to connect disks again: the first pause,
/// and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Somebody decides about the disks until this is dropped.
pub struct Working<'d, D: Drives>(&'d Disks<D>);

impl<D: Drives> Drop for Working<'_, D> {
    fn drop(&mut self) {
        self.0.working.set(false);
        // What came meanwhile was left alone, and says nothing again.
        self.0.drives.changed().notify();
    }
}

impl<D: Drives> Disks<D> {
    /// Begins a sequence: nobody else decides about any disk until its end.
    /// `None` while there is one.
    pub fn begin(&self) -> Option<Working<'_, D>> {
        (!self.working.replace(true)).then(|| Working(self))
    }

    /// Opens disks that connected, or connected again, while nobody could
    /// decide about them: they stay shut by themselves. Connects those again
    /// that a freeze or a restore could not bring back, until that succeeds.
    /// Not while there is [`Working`], nor while `may` says no. Never ends.
    pub async fn tend(&self, may: impl Fn() -> bool) {
        let may = || !self.working.get() && may();
        // In this order: who brings a disk back sees it before it is opened.
        race(self.bring_back(&may), self.open_late(&may)).await;
    }

    async fn open_late(&self, may: impl Fn() -> bool) {
        let changed = self.drives.changed();
        loop {
            let seen = changed.seen();
            if may() {
                for drive in self.drives.all() {
                    if drive.state() == Lifecycle::Freezing && !drive.is_away() {
                        // What fails is said by the disk itself.
                        let _ = drive.open();
                    }
                }
            }
            changed.changed(seen).await;
        }
    }

    async fn bring_back(&self, may: impl Fn() -> bool) {
        let changed = self.drives.changed();
        let mut pause = PAUSE;
        loop {
            let seen = changed.seen();
            let mut away = Vec::new();
            if may() {
                let drives = self.drives.all();
                away.extend(drives.iter().filter(|d| d.is_away()).map(Drive::id));
            }
            if away.is_empty() {
                pause = PAUSE;
                changed.changed(seen).await;
                continue;
            }
            // What fails is said by the disk itself.
            join_all(away.into_iter().map(|disk| self.connect_again(disk))).await;
            let then = self.drives.now() + pause;
            sleep_until(self.drives.clone(), then).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// In two steps, so that memory that the backend had is free afterwards.
    async fn connect_again(&self, disk: DiskId) -> Result<(), Fault> {
        if self.drive(disk)?.state() == Lifecycle::Freezing {
            self.disconnect(disk).await?;
        }
        self.connect(disk, Link::Ordinary).await
    }
}
