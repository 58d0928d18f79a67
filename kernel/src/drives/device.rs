//! One disk as the image code sees it.

use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;

use firn_block::{Armed, Queue};
use firn_image::{Device, Gone};
use firn_task::{Instant, Signal, timeout, yield_now};

use super::{Drive, Drives};

/// Looks in vain before the machine is allowed to halt for the disk's event.
const LOOKS: u32 = 4;
/// Longest halt: the image code has deadlines to look at.
const NAP: Duration = Duration::from_millis(20);

/// A disk, and how long nothing came from it.
pub struct DriveDevice<D: Drives> {
    drives: D,
    drive: D::Drive,
    looks: Cell<u32>,
    answered: Cell<u64>,
}

impl<D: Drives> DriveDevice<D> {
    pub(crate) fn new(drives: &D, drive: D::Drive) -> Self {
        Self {
            drives: drives.clone(),
            drive,
            looks: Cell::new(0),
            answered: Cell::new(0),
        }
    }

    /// Whether the disk answered something since this was last asked, be it a part
    /// of a request.
    fn moved(&self) -> bool {
        let answered = self.drive.answers();
        self.answered.replace(answered) != answered
    }

    /// Asks for the disk's event; `None` if there is something to take by now,
    /// else what will be notified and how often it was so far.
    fn arm(&self) -> Option<(Rc<Signal>, u64)> {
        let signal = self.drive.events()?;
        let seen = signal.seen();
        let armed = self.drive.with_private(|queue| queue.arm())?;
        (armed == Armed::Sleep).then_some((signal, seen))
    }

    /// Waits for the disk's event, unless there is something to take by now.
    async fn nap(&self) {
        let Some((signal, seen)) = self.arm() else {
            return yield_now().await;
        };
        let event = signal.changed(seen);
        // Late or not: the caller looks again.
        let _ = timeout(self.drives.clone(), NAP, event).await;
    }
}

impl<D: Drives> Device for DriveDevice<D> {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        self.drive.with_private(work).ok_or(Gone)
    }

    fn now(&self) -> Instant {
        self.drives.now()
    }

    async fn breathe(&self) {
        if self.moved() {
            self.looks.set(0);
        }
        self.looks.set(self.looks.get().saturating_add(1));
        match self.looks.get() <= LOOKS {
            true => yield_now().await,
            false => self.nap().await,
        }
    }
}
