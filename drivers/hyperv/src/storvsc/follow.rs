//! What the host does with a connected controller, and what is done about it.

use super::controller::Controller;
use super::disks::Unit;
use super::error::ConnectError;
use super::offence::Offence;
use crate::hal::Hal;
use crate::vmbus::BusError;
use alloc::rc::Rc;
use core::time::Duration;
use firn_task::{race, timeout_at};

/// How long a disk is left alone that is too busy.
const PAUSE: Duration = Duration::from_millis(100);

impl<H: Hal> Controller<H> {
    /// Connects whenever the host offers the controller, and follows the
    /// connection for as long as it does. Ends when the controller cannot be
    /// used, or the host breaks a rule; the reason is in [`Controller::error`].
    pub async fn run(self: Rc<Self>) {
        loop {
            self.wait_for_offer().await;
            let connected = self.connect().await;
            let end = match connected {
                Ok(()) => self.follow().await,
                Err(error) => error,
            };
            log::error!("controller {}: {end}", self.instance);
            self.error.set(Some(end));
            self.lose_disks();
            self.drop_link().await;
            self.changed.notify();
            if end != ConnectError::Bus(BusError::Rescinded) {
                return;
            }
        }
    }

    async fn wait_for_offer(&self) {
        loop {
            let seen = self.bus.changed().seen();
            if self.offer().is_ok() {
                return;
            }
            self.bus.changed().changed(seen).await;
        }
    }

    /// Follows a connection; why it ended.
    async fn follow(&self) -> ConnectError {
        loop {
            let seen = self.wire.attention.seen();
            let changed = self.bus.changed().seen();
            if !self.changing.get()
                && let Err(error) = self.look().await
            {
                return error;
            }
            let news = race(
                self.wire.attention.changed(seen),
                race(self.bus.changed().changed(changed), self.watch()),
            );
            // Whether something is in flight for too long is looked at now and
            // then.
            let units = self.units();
            let paused = |unit: &Rc<Unit<H>>| !unit.front.borrow().paused.is_empty();
            if units.iter().any(paused) {
                let until = self.now() + PAUSE;
                let _ = timeout_at(&*self.wire.hv, until, news).await;
                for unit in units {
                    unit.front.borrow_mut().end_pause();
                }
                continue;
            }
            let until = self.now() + self.config.reset_after / 4;
            let _ = timeout_at(&*self.wire.hv, until, news).await;
        }
    }

    /// Waits for news on a ring that no disk polls, as there is none.
    async fn watch(&self) {
        let alone = self.units().is_empty() && !self.changing.get();
        let events = self.wire.with(|link| Ok(link.events()));
        let Some(events) = events.filter(|_| alone) else {
            return core::future::pending().await;
        };
        let fired = events.seen();
        self.wire.with(|link| link.reap(usize::MAX));
        events.changed(fired).await;
        self.wire.with(|link| link.reap(usize::MAX));
    }

    /// One look at everything that may have happened.
    async fn look(&self) -> Result<(), ConnectError> {
        if !self.ready.get() {
            // Disconnected on purpose.
            return Ok(());
        }
        self.check()?;
        self.drop_lost_channels().await;
        if let Some(offence) = self.bus.offence() {
            return Err(BusError::Offence(offence).into());
        }
        self.look_at_time()?;
        let news = self.wire.with(|link| {
            if link.outstanding() == 0 {
                link.reap(usize::MAX)?;
            }
            Ok(core::mem::take(&mut link.look_again))
        });
        let units = self.units();
        let changed = |unit: &Rc<Unit<H>>| unit.front.borrow().changed;
        if news == Some(true) || units.iter().any(changed) {
            for unit in &units {
                unit.front.borrow_mut().changed = false;
            }
            self.scan().await?;
        }
        Ok(())
    }

    /// Resets the bus when an answer is late, and gives up when that does not
    /// help.
    fn look_at_time(&self) -> Result<(), ConnectError> {
        let late = self.wire.with(|link| Ok(link.late()));
        let Some(Some((since, outstanding))) = late else {
            self.reset_sent.set(false);
            return Ok(());
        };
        let late = self.now().since(since);
        if late >= self.config.give_up_after {
            self.wire.fail(Offence::NoAnswer { outstanding });
            return self.check();
        }
        if late < self.config.reset_after {
            self.reset_sent.set(false);
        } else if !self.reset_sent.replace(true) {
            log::warn!(
                "controller {}: {outstanding} requests without an answer for {} s: reset",
                self.instance,
                late.as_secs()
            );
            self.send_reset();
        }
        Ok(())
    }

    /// Ends what the disks have in flight.
    fn lose_disks(&self) {
        for unit in self.units() {
            let mut front = unit.front.borrow_mut();
            front.notice_failure();
            front.lose();
        }
    }
}
