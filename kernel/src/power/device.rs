//! One disk as the image code sees it.

use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;

use firn_block::{Armed, Queue};
use firn_image::{Device, Gone};
use firn_task::{Instant, Signal, timeout, yield_now};
use firn_xen::blkfront::Vbd;
use firn_xen::{Hal, Xen};

/// Looks in vain before the machine is allowed to halt for the disk's event.
const LOOKS: u32 = 4;
/// Longest halt: the image code has deadlines to look at.
const NAP: Duration = Duration::from_millis(20);

/// A disk, and how long nothing came from it.
pub struct VbdDevice<H: Hal> {
    xen: Rc<Xen<H>>,
    vbd: Rc<Vbd<H>>,
    looks: Cell<u32>,
    answered: Cell<u64>,
}

impl<H: Hal> VbdDevice<H> {
    pub(super) fn new(xen: &Rc<Xen<H>>, vbd: Rc<Vbd<H>>) -> Self {
        Self {
            xen: xen.clone(),
            vbd,
            looks: Cell::new(0),
            answered: Cell::new(0),
        }
    }

    /// Whether the disk answered something since this was last asked, be it a part
    /// of a request.
    fn moved(&self) -> bool {
        let front = self.vbd.front.try_borrow();
        let answered = front.map_or(0, |front| front.stats().ring_responses);
        self.answered.replace(answered) != answered
    }

    /// Asks for the disk's event; `None` if there is something to take by now,
    /// else what will be notified and how often it was so far.
    fn arm(&self) -> Option<(Rc<Signal>, u64)> {
        let mut front = self.vbd.front.try_borrow_mut().ok()?;
        let signal = self.xen.events.signal(front.port()?);
        let seen = signal.seen();
        let asleep = front.private().arm() == Armed::Sleep;
        asleep.then_some((signal, seen))
    }

    /// Waits for the disk's event, unless there is something to take by now.
    async fn nap(&self) {
        let Some((signal, seen)) = self.arm() else {
            return yield_now().await;
        };
        let event = signal.changed(seen);
        // Late or not: the caller looks again.
        let _ = timeout(self.xen.clone(), NAP, event).await;
    }
}

impl<H: Hal> Device for VbdDevice<H> {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        let mut front = self.vbd.front.try_borrow_mut().map_err(|_| Gone)?;
        if front.port().is_none() {
            return Err(Gone);
        }
        Ok(work(&mut front.private()))
    }

    fn now(&self) -> Instant {
        self.xen.hal.now()
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
