//! The handshake: from `Initialising` to `Connected`.

use super::features::Features;
use super::front::{Indirect, Link};
use super::ring::FrontRing;
use super::shadow::shadow;
use super::vbd::{OtherEnd, Vbd, Wish};
use crate::event::EventError;
use crate::grant::{Access, GrantError, Reuse};
use crate::hal::Hal;
use crate::store::{StoreError, Transaction};
use crate::trace::Source;
use crate::wire::blkif::{MAX_SEGMENTS, PROTOCOL};
use crate::wire::event_channel::Port;
use crate::wire::grant_table::GrantRef;
use crate::wire::xenbus::XenbusState;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use firn_block::gate::Lifecycle;
use firn_block::{DiskInfo, PAGE};
use firn_task::join_all;

/// Why a device is not connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The device's directory names no backend, or names one badly.
    NoBackend {
        /// The key that is missing or wrong.
        key: &'static str,
    },
    /// The virtual device number is no whole disk.
    UnknownDevice(u32),
    /// The backend did not get where it should within the deadline.
    Deadline {
        /// What was waited for.
        step: &'static str,
        /// The backend's state at the deadline.
        state: XenbusState,
    },
    /// The backend went to a state that makes no sense at this point.
    OutOfOrder {
        /// What was waited for.
        step: &'static str,
        /// Where the backend went.
        state: XenbusState,
    },
    /// A backend key has a value that cannot be.
    BadValue {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// xenstore refused or failed.
    Store(StoreError),
    /// No event channel.
    Event(EventError),
    /// No grant.
    Grant(GrantError),
    /// No memory for the ring.
    NoMemory {
        /// Pages asked for.
        pages: usize,
    },
    /// The backend closed and keeps pages of registered memory mapped.
    StillMapped {
        /// One of the grants.
        first: GrantRef,
        /// How many grants.
        grants: usize,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBackend { key } => write!(f, "missing backend: no usable `{key}` key"),
            Self::UnknownDevice(number) => {
                write!(f, "virtual device number {number} is no whole disk")
            }
            Self::Deadline { step, state } => {
                write!(f, "deadline: backend is {state}, waited for {step}")
            }
            Self::OutOfOrder { step, state } => {
                write!(f, "backend went to {state} while it was to {step}")
            }
            Self::BadValue { key, value, why } => {
                write!(f, "backend key `{key}` = `{value}`: {why}")
            }
            Self::Store(error) => write!(f, "xenstore: {error}"),
            Self::Event(error) => write!(f, "event channel: {error}"),
            Self::Grant(error) => write!(f, "grant table: {error}"),
            Self::NoMemory { pages } => write!(f, "no memory for {pages} ring pages"),
            Self::StillMapped { first, grants } => write!(
                f,
                "the backend closed and keeps {grants} pages of buffers mapped, {first} among them"
            ),
        }
    }
}

impl core::error::Error for ConnectError {}

impl ConnectError {
    /// Whether xenstore may only be slow.
    pub(super) const fn is_late(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_late())
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<EventError> for ConnectError {
    fn from(error: EventError) -> Self {
        Self::Event(error)
    }
}

impl From<GrantError> for ConnectError {
    fn from(error: GrantError) -> Self {
        Self::Grant(error)
    }
}

impl<H: Hal> Vbd<H> {
    /// Shakes hands with the backend until the disk is connected.
    pub(super) async fn shake_hands(&self, other: &mut OtherEnd<H>) -> Result<(), ConnectError> {
        self.agreed.set(self.wanted());
        self.switch(other, XenbusState::INITIALISING).await?;
        // It may still be closed from an earlier connection.
        let until = self.step_deadline();
        self.wait_for(other, until, "offer its features (InitWait)", |state| {
            Ok(state == XenbusState::INIT_WAIT)
        })
        .await?;
        let keys = self.keys(other).await?;
        let order = keys.ring_order(self.terms().max_ring_order)?;
        let link = self.make_link(other, 1 << order)?;
        match self.publish_and_wait(other, &link).await {
            Ok(features) => self.go_live(other, link, &features).await,
            Err(error) => {
                self.unlink(link);
                Err(error)
            }
        }
    }

    /// Allocates, grants and binds what the connection needs.
    fn make_link(&self, other: &OtherEnd<H>, pages: usize) -> Result<Link, ConnectError> {
        let xen = &self.xen;
        let memory = xen.hal.alloc_shared(pages);
        let memory = memory.ok_or(ConnectError::NoMemory { pages })?;
        let mut ring_grants = Vec::with_capacity(pages);
        for page in 0..pages {
            match xen.grant_page(other.domain, &memory, page, Access::ReadWrite, "blk ring") {
                Ok(grant) => ring_grants.push(grant),
                Err(error) => {
                    xen.reclaim(memory, &ring_grants, Reuse::Now);
                    return Err(error.into());
                }
            }
        }
        let port = match xen.events.alloc_unbound(&xen.hal, other.domain) {
            Ok(port) => port,
            Err(error) => {
                xen.reclaim(memory, &ring_grants, Reuse::Now);
                return Err(error.into());
            }
        };
        let ring = FrontRing::new(memory);
        Ok(Link {
            backend: other.domain,
            port,
            shadow: shadow(ring.size(), 0),
            ring,
            ring_grants,
            indirect: None,
            segments: MAX_SEGMENTS,
            persistent: false,
            generation: xen.generation(),
        })
    }

    async fn publish_and_wait(
        &self,
        other: &mut OtherEnd<H>,
        link: &Link,
    ) -> Result<Features, ConnectError> {
        let publish = async || self.publish(link.port, &link.ring_grants).await;
        self.through_resets(publish).await?;
        self.switch(other, XenbusState::INITIALISED).await?;
        let step = "connect";
        // After a freeze, and on a new host, a late word of the old connection's
        // end may come once more.
        let returns = matches!(
            self.front.borrow().state(),
            Lifecycle::Thawing | Lifecycle::Reissuing
        );
        let connected = |state| match state {
            XenbusState::CONNECTED => Ok(true),
            XenbusState::CLOSED if returns => Ok(false),
            XenbusState::CLOSING | XenbusState::CLOSED => {
                Err(ConnectError::OutOfOrder { step, state })
            }
            _ => Ok(false),
        };
        let until = self.step_deadline();
        self.wait_for(other, until, step, connected).await?;
        // By these keys, so it will not come back to earlier ones.
        self.free_what_was_told();
        let keys = self.keys(other).await?;
        let agreed = self.terms();
        let mut features = keys.features(agreed.max_segments)?;
        features.persistent &= agreed.persistent;
        Ok(features)
    }

    /// Publishes the ring, all keys or none.
    async fn publish(&self, port: Port, grants: &[GrantRef]) -> Result<(), StoreError> {
        let mut keys = Vec::with_capacity(grants.len() + 5);
        // An earlier connection may have had a ring of another size, and a
        // backend that finds its keys takes that for the size of this one.
        let stale: &[&str];
        if let [single] = grants {
            stale = &["ring-page-order", "num-ring-pages"];
            keys.push(("ring-ref".to_string(), single.0.to_string()));
        } else {
            stale = &["ring-ref"];
            let order = grants.len().ilog2();
            keys.push(("ring-page-order".to_string(), order.to_string()));
            keys.push(("num-ring-pages".to_string(), grants.len().to_string()));
            for (page, grant) in grants.iter().enumerate() {
                keys.push((format!("ring-ref{page}"), grant.0.to_string()));
            }
        }
        keys.push(("event-channel".to_string(), port.0.to_string()));
        keys.push(("protocol".to_string(), PROTOCOL.to_string()));
        let persistent = u32::from(self.terms().persistent).to_string();
        keys.push(("feature-persistent".to_string(), persistent));

        let write_all = async |transaction: &Transaction<H>| {
            for key in stale {
                match transaction.rm(&self.key(key)).await {
                    Err(error) if !error.is_missing() => return Err(error),
                    _ => {}
                }
            }
            let write = async |(key, value): &(String, String)| {
                transaction.write(&self.key(key), value).await
            };
            join_all(keys.iter().map(write)).await.into_iter().collect()
        };
        self.store.transact(write_all).await
    }

    /// Makes room for what the features allow, and opens the gate.
    async fn go_live(
        &self,
        other: &OtherEnd<H>,
        mut link: Link,
        features: &Features,
    ) -> Result<(), ConnectError> {
        let xen = &self.xen;
        if features.segments > MAX_SEGMENTS {
            let entries = link.ring.size();
            // A backend that keeps grants mapped maps all of them writable,
            // whatever they are for.
            let access = if features.persistent {
                Access::ReadWrite
            } else {
                Access::Read
            };
            match Indirect::new(xen, link.backend, entries, features.segments, access) {
                Ok(Some(indirect)) => {
                    link.indirect = Some(indirect);
                    link.segments = features.segments;
                }
                // Direct requests do the same work, in more pieces.
                Ok(None) => log::warn!("no memory for indirect requests: going on without"),
                Err(error) => log::warn!("no grants for indirect requests: {error}"),
            }
        }
        let per_slot = if features.persistent {
            0
        } else {
            link.segments
        };
        link.shadow = shadow(link.ring.size(), per_slot);
        let info = self.describe(&link, features);
        let (port, pages) = (link.port, link.ring_grants.len());
        link.persistent = features.persistent;
        let (backend, persistent) = (link.backend, link.persistent);
        let granted = self.front.borrow_mut().grant_buffers(backend, persistent);
        if let Err(error) = granted {
            self.unlink(link);
            return Err(error.into());
        }
        self.front.borrow_mut().connect(link, info);
        if let Err(error) = self.switch(other, XenbusState::CONNECTED).await {
            // On a new host everything is still to be issued, not lost.
            if self.is_same_host(other) {
                self.cut(firn_block::IoError::Gone);
            }
            return Err(error);
        }
        xen.events.unmask(port);
        self.report(features, pages);
        self.step(match self.wish.get() {
            Wish::Open => Lifecycle::Live,
            Wish::Shut(_) | Wish::Frozen => Lifecycle::Freezing,
        });
        xen.record(Source::Vbd(self.number), "sectors", features.capacity);
        Ok(())
    }

    fn describe(&self, link: &Link, features: &Features) -> DiskInfo {
        DiskInfo {
            id: self.id,
            capacity: features.capacity,
            logical_block: features.logical_block,
            physical_block: features.physical_block,
            read_only: features.read_only,
            durability: features.durability,
            discard: features.discard,
            max_transfer: u32::try_from(link.segments * PAGE).unwrap_or(u32::MAX),
            queue_depth: link.ring.size(),
        }
    }
}
