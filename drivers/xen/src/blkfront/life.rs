//! A device's life: one `async` task that goes wherever the backend, the kernel
//! and the host take it.

use super::connect::ConnectError;
use super::step::WhyNot;
use super::vbd::{End, OtherEnd, STORE_PATIENCE, Vbd, Wish};
use crate::hal::Hal;
use crate::trace::Source;
use crate::wire::DomId;
use crate::wire::xenbus::XenbusState;
use alloc::format;
use alloc::rc::Rc;
use firn_block::IoError;
use firn_block::gate::Lifecycle;
use firn_task::{Either, race, sleep_until, timeout};

impl<H: Hal> Vbd<H> {
    /// The device's life, from handshake to removal.
    pub async fn run(self: Rc<Self>) {
        if let Err(error) = self.live_on().await {
            log::error!("{}: {error}", self.id);
            *self.error.borrow_mut() = Some(error);
            self.cut(IoError::Gone);
            self.step(Lifecycle::Failed);
            // Lets the backend and the toolstack clean up.
            self.say_closed().await;
        }
        // A backend that closed late was left its grants for when it came back.
        self.cut(IoError::Gone);
        self.backend_lets_go().await;
        self.buffers_came_back().await;
        self.ended.set(true);
        self.changed.notify();
    }

    /// Waits for the backend to close, if there is something that it was told of.
    /// One that does not do so keeps it.
    async fn backend_lets_go(&self) {
        if self.told.borrow().is_empty() {
            return;
        }
        let until = self.step_deadline();
        let closed = match self.find_backend().await {
            Ok(mut other) => self.wait_until_closed(&mut other, until).await,
            // It was removed, and this end with it.
            Err(ConnectError::NoBackend { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        match closed {
            Ok(()) => self.free_what_was_told(),
            Err(error) => log::warn!("{}: {error}", self.id),
        }
    }

    /// Waits until nobody has a buffer of this disk any more: giving them back
    /// takes its queue.
    async fn buffers_came_back(&self) {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if !self.front.borrow().has_lent_buffers() {
                return;
            }
            attention.changed(seen).await;
        }
    }

    /// Lives on one host after the other.
    async fn live_on(&self) -> Result<(), ConnectError> {
        loop {
            let generation = self.xen.generation();
            match self.live_on_this_host().await {
                Err(_) if self.xen.generation() != generation => {
                    if self.state() == Lifecycle::Suspended {
                        self.step(Lifecycle::Reissuing);
                    }
                }
                result => return result,
            }
        }
    }

    async fn live_on_this_host(&self) -> Result<(), ConnectError> {
        let mut other = self.find_backend().await?;
        loop {
            match self.state() {
                Lifecycle::Connecting | Lifecycle::Reissuing => {
                    self.shake_hands(&mut other).await?
                }
                Lifecycle::Live | Lifecycle::Freezing | Lifecycle::Suspended => {
                    let end = self.follow(&mut other).await?;
                    self.close(&mut other, end).await?;
                }
                Lifecycle::Frozen => {
                    if !self.is_called_back(&mut other).await {
                        self.step(Lifecycle::Closed);
                        return Ok(());
                    }
                    self.step(Lifecycle::Thawing);
                }
                Lifecycle::Thawing => self.try_thaw(&mut other).await?,
                Lifecycle::Closing | Lifecycle::Closed => {
                    if !self.revived(&mut other).await? {
                        return Ok(());
                    }
                    self.step(Lifecycle::Connecting);
                }
                Lifecycle::Failed => return Ok(()),
            }
        }
    }

    /// Reads who the backend is, and watches its state.
    async fn find_backend(&self) -> Result<OtherEnd<H>, ConnectError> {
        let generation = self.xen.generation();
        let path = self.own("backend").await?;
        let domain = self.own("backend-id").await?;
        let domain = domain
            .parse()
            .map_err(|_| ConnectError::NoBackend { key: "backend-id" })?;
        let state = format!("{path}/state");
        let watch = self.through_resets(async || self.store.watch(&state).await);
        let watch = watch.await?;
        Ok(OtherEnd {
            path,
            domain: DomId(domain),
            watch,
            generation,
        })
    }

    /// Watches a live connection until something ends it.
    async fn follow(&self, other: &mut OtherEnd<H>) -> Result<End, ConnectError> {
        let attention = self.front.borrow().attention.clone();
        let mut changed = true;
        loop {
            let seen = attention.seen();
            self.check_host(other)?;
            if self.front.borrow().offence().is_some() {
                return Ok(End::Offence);
            }
            if self.wish.get() == Wish::Frozen && self.state() == Lifecycle::Freezing {
                return Ok(End::Freeze);
            }
            let late = match changed {
                true => match self.look_at_backend(other).await {
                    Ok(Some(end)) => return Ok(end),
                    Ok(None) => false,
                    // The ring works without the store: there is time to ask again.
                    Err(error) if error.is_late() => true,
                    Err(error) => return Err(error),
                },
                false => false,
            };
            let news = race(other.watch.changed(), attention.changed(seen));
            changed = match late {
                true => {
                    let _ = timeout(self.xen.clone(), STORE_PATIENCE, news).await;
                    true
                }
                // Looking costs round trips, which a freeze has to wait for.
                false => matches!(news.await, Either::First(_)) || self.removed.get(),
            };
        }
    }

    /// What a look at a connected backend shows: the end of the connection, or
    /// that it goes on.
    async fn look_at_backend(&self, other: &OtherEnd<H>) -> Result<Option<End>, ConnectError> {
        let step = "stay connected";
        match self.state_of(other).await? {
            XenbusState::CONNECTED => self.look_for_resize(other).await.map(|()| None),
            XenbusState::CLOSING => Ok(Some(End::BackendCloses)),
            // It forgot us: whatever was in flight is lost with it.
            XenbusState::UNKNOWN
            | XenbusState::INITIALISING
            | XenbusState::INIT_WAIT
            | XenbusState::CLOSED => Ok(Some(End::BackendGone)),
            XenbusState::RECONFIGURING | XenbusState::RECONFIGURED => Ok(None),
            state => Err(ConnectError::OutOfOrder { step, state }),
        }
    }

    /// A backend announces a new size by writing its state once more.
    async fn look_for_resize(&self, other: &OtherEnd<H>) -> Result<(), ConnectError> {
        let (logical_block, old) = {
            let front = self.front.borrow();
            (front.info.logical_block, front.info.capacity)
        };
        let keys = self.keys(other).await?;
        let capacity = keys.capacity(logical_block)?;
        if capacity != old {
            log::info!("{}: {old} sectors are now {capacity}", self.id);
            self.xen
                .record(Source::Vbd(self.number), "resized", capacity);
            self.front.borrow_mut().resize(capacity);
            self.changed.notify();
        }
        Ok(())
    }

    /// After a close: whether the backend starts over before the device is
    /// removed. Where it was late to close for a freeze, that it has closed is
    /// enough.
    async fn revived(&self, other: &mut OtherEnd<H>) -> Result<bool, ConnectError> {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if self.removed.get() {
                return Ok(false);
            }
            match self.state_of(other).await {
                Ok(XenbusState::INIT_WAIT) => break,
                Ok(XenbusState::CLOSED) if self.comes_back.get() => break,
                Ok(XenbusState::CLOSED) => self.free_what_was_told(),
                Ok(_) => {}
                Err(error) if error.is_late() => {
                    let again = self.xen.hal.now() + STORE_PATIENCE;
                    sleep_until(self.xen.clone(), again).await;
                    continue;
                }
                Err(_) => {
                    self.check_host(other)?;
                    return Ok(false);
                }
            }
            race(other.watch.changed(), attention.changed(seen)).await;
        }
        self.comes_back.set(false);
        self.free_what_was_told();
        Ok(true)
    }

    /// While frozen: whether the kernel wants the disk again before the device
    /// is removed. What the backend says meanwhile is of interest only if it has yet
    /// to let go: the next connection begins with a look at who it is.
    async fn is_called_back(&self, other: &mut OtherEnd<H>) -> bool {
        let attention = self.front.borrow().attention.clone();
        loop {
            let seen = attention.seen();
            if self.removed.get() {
                return false;
            }
            if self.wish.get() != Wish::Frozen {
                return true;
            }
            if self.told.borrow().is_empty() {
                attention.changed(seen).await;
            } else if let Ok(XenbusState::CLOSED) = self.state_of(other).await {
                self.free_what_was_told();
            } else {
                race(other.watch.changed(), attention.changed(seen)).await;
            }
        }
    }

    /// Connects again after a freeze, to whatever backend there is now. One that
    /// fails leaves the disk frozen, and may be tried again.
    async fn try_thaw(&self, other: &mut OtherEnd<H>) -> Result<(), ConnectError> {
        let wish = self.wish.get();
        let connected = async {
            *other = self.find_backend().await?;
            self.shake_hands(other).await
        };
        let Err(error) = connected.await else {
            return Ok(());
        };
        self.check_host(other)?;
        log::warn!("{}: {error}", self.id);
        // Who has asked for something else meanwhile gets a try of his own.
        if self.wish.get() == wish {
            *self.failure.borrow_mut() = Some(WhyNot::Connect(error));
            self.wish.set(Wish::Frozen);
        }
        self.try_switch(other, XenbusState::CLOSED).await;
        self.step(Lifecycle::Frozen);
        Ok(())
    }
}
