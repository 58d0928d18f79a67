//! The backend's half of xenbus: states, keys, connecting and letting go.

use super::config::{Config, Publish};
use super::offence::BlkOffence;
use super::ring::BackRing;
use super::{Back, Connection};
use crate::machine::{GUEST, Mapping};
use crate::store::{Perms, XenStored};
use firn_xen::wire::blkif::PROTOCOL;
use firn_xen::wire::event_channel::Port;
use firn_xen::wire::grant_table::GrantRef;
use firn_xen::wire::xenbus::XenbusState;
use std::fmt;

/// Where a device's nodes are.
pub(super) struct Paths {
    pub(super) front: String,
    pub(super) back: String,
}

impl Paths {
    pub(super) fn new(config: &Config) -> Self {
        let (guest, device) = (GUEST.0, config.device);
        let domain = config.domain.0;
        Self {
            front: format!("/local/domain/{guest}/device/vbd/{device}"),
            back: format!("/local/domain/{domain}/backend/vbd/{guest}/{device}"),
        }
    }

    /// Makes the nodes as the toolstack does; the frontend's state comes last.
    pub(super) fn make(&self, store: &XenStored, config: &Config) {
        let (guest, domain) = (GUEST.0, config.domain.0);
        let front = Perms::readable_by(guest, domain);
        let back = Perms::readable_by(domain, guest);
        let mode = if config.read_only { "r" } else { "w" };
        let put = |dir: &str, perms: &Perms, keys: &[(&str, &str)]| {
            store.write_as(dir, "", perms);
            for (key, value) in keys {
                store.write_as(&format!("{dir}/{key}"), value, perms);
            }
        };
        let (guest, domain) = (guest.to_string(), domain.to_string());
        let initialising = XenbusState::INITIALISING.0.to_string();
        put(
            &self.back,
            &back,
            &[
                ("frontend", &self.front),
                ("frontend-id", &guest),
                ("online", "1"),
                ("bootable", "1"),
                ("type", "phy"),
                ("mode", mode),
                ("device-type", "disk"),
                ("state", &initialising),
            ],
        );
        put(
            &self.front,
            &front,
            &[
                ("backend", &self.back),
                ("backend-id", &domain),
                ("virtual-device", &config.device.to_string()),
                ("device-type", "disk"),
                ("state", &initialising),
            ],
        );
    }
}

/// Keys that a backend has only if it has something to say.
const OPTIONAL: [&str; 9] = [
    "max-ring-page-order",
    "feature-flush-cache",
    "feature-barrier",
    "feature-max-indirect-segments",
    "physical-sector-size",
    "feature-discard",
    "discard-granularity",
    "discard-alignment",
    "discard-secure",
];

/// Why a backend could not connect; it says so in the store and closes.
#[derive(Debug)]
pub(super) struct Fatal(pub(super) String);

fn fatal(what: &str, why: impl fmt::Display) -> Fatal {
    Fatal(format!("{what}: {why}"))
}

impl Back {
    fn read_front(&self, key: &str) -> Option<String> {
        self.store.read(&format!("{}/{key}", self.paths.front))
    }

    fn write_key(&self, key: &str, value: &str) {
        self.store
            .write(&format!("{}/{key}", self.paths.back), value);
    }

    pub(super) fn switch(&mut self, state: XenbusState) {
        self.state = state;
        self.write_key("state", &state.0.to_string());
    }

    /// Writes keys, each as the settings say, if at all.
    fn publish(&self, keys: Vec<(&'static str, String)>) {
        for (key, value) in keys {
            match self.config.keys.get(key) {
                None => self.write_key(key, &value),
                Some(Some(other)) => self.write_key(key, other),
                Some(None) => self.store.remove(&format!("{}/{key}", self.paths.back)),
            }
        }
    }

    fn late_keys(&self) -> Vec<(&'static str, String)> {
        self.config.late_keys(self.disk.capacity())
    }

    fn publish_late(&self) {
        self.publish(self.late_keys());
        // Keys that only the settings know.
        let known = self.late_keys();
        for (key, value) in &self.config.keys {
            let fresh = !known.iter().any(|(name, _)| name == key) && *key != "max-ring-page-order";
            if let (true, Some(value)) = (fresh, value) {
                self.write_key(key, value);
            }
        }
    }

    /// Reacts to whatever changed in the store.
    pub(super) fn follow(&mut self) {
        let state = self.read_front("state");
        let state = state.and_then(|text| text.parse().ok()).map(XenbusState);
        match state {
            None => self.disconnect(),
            Some(XenbusState::INITIALISING) => self.prepare(),
            Some(_) if self.is(BlkOffence::Sleeps) => {}
            Some(XenbusState::INITIALISED | XenbusState::CONNECTED) => self.meet(),
            Some(XenbusState::CLOSING) => self.see_closing(),
            Some(XenbusState::CLOSED) => self.see_closed(),
            Some(_) => {}
        }
    }

    /// Nothing is connected: offer the features and wait for the ring.
    fn prepare(&mut self) {
        let fresh = matches!(self.state, XenbusState::INITIALISING | XenbusState::CLOSED);
        if !fresh || self.unplugging || self.is(BlkOffence::NeverInitWait) {
            return;
        }
        for key in OPTIONAL {
            self.store.remove(&format!("{}/{key}", self.paths.back));
        }
        self.publish(self.config.early_keys());
        if self.config.publish == Publish::Early {
            self.publish_late();
        }
        if self.is(BlkOffence::ConnectedTooEarly) {
            self.publish_late();
            return self.switch(XenbusState::CONNECTED);
        }
        self.switch(XenbusState::INIT_WAIT);
    }

    /// The frontend published its ring.
    fn meet(&mut self) {
        if self.connection.is_some() || self.state == XenbusState::CLOSING {
            return;
        }
        match self.connect() {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => {
                self.complaints.push(error.0);
                return self.switch(XenbusState::CLOSING);
            }
        }
        self.publish_late();
        if self.is(BlkOffence::NeverConnects) {
        } else if self.is(BlkOffence::ClosedInsteadOfConnected) {
            self.disconnect();
            self.switch(XenbusState::CLOSED);
        } else if self.is(BlkOffence::UnknownState) {
            self.switch(XenbusState(99));
        } else if self.is(BlkOffence::GarbledState) {
            self.write_key("state", "four");
        } else {
            self.switch(XenbusState::CONNECTED);
        }
    }

    fn connect(&self) -> Result<Connection, Fatal> {
        let protocol = self.read_front("protocol");
        if protocol.as_deref().is_some_and(|text| text != PROTOCOL) {
            return Err(fatal("protocol", protocol.unwrap_or_default()));
        }
        let ring = BackRing::new(self.map_ring()?, self.bind()?);
        let wish = self.read_front("feature-persistent");
        let persistent = self.config.persistent && wish.as_deref() == Some("1");
        Ok(Connection {
            ring,
            persistent: persistent.then(Default::default),
            jobs: Vec::new(),
        })
    }

    fn number(&self, key: &str) -> Result<u32, Fatal> {
        let text = self.read_front(key).ok_or_else(|| fatal(key, "missing"))?;
        text.parse().map_err(|_| fatal(key, text))
    }

    fn map_ring(&self) -> Result<Vec<Mapping>, Fatal> {
        let map = |key: &str| {
            let gref = GrantRef(self.number(key)?);
            let mapped = self.machine.map_grant(self.config.domain, gref, true);
            mapped.map_err(|error| fatal(key, error))
        };
        if self.read_front("ring-page-order").is_none() {
            return Ok(vec![map("ring-ref")?]);
        }
        let order = self.number("ring-page-order")?;
        if order > self.config.ring_order.unwrap_or(0) {
            return Err(fatal("ring-page-order", order));
        }
        if order == 0 && self.read_front("ring-ref").is_some() {
            return Ok(vec![map("ring-ref")?]);
        }
        let pages = 0..1 << order;
        pages.map(|page| map(&format!("ring-ref{page}"))).collect()
    }

    fn bind(&self) -> Result<crate::machine::Channel, Fatal> {
        let port = Port(self.number("event-channel")?);
        let bound = self.machine.bind_channel(self.config.domain, port);
        bound.map_err(|errno| fatal("event-channel", errno))
    }

    fn see_closing(&mut self) {
        if self.state == XenbusState::CONNECTED {
            self.switch(XenbusState::CLOSING);
        }
    }

    fn see_closed(&mut self) {
        if self.is(BlkOffence::NeverCloses) || self.state == XenbusState::CLOSED {
            return;
        }
        self.disconnect();
        self.switch(XenbusState::CLOSED);
        if self.unplugging {
            self.vanish();
        }
    }

    /// Finishes what is under way and lets go of everything.
    pub(super) fn disconnect(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        for job in std::mem::take(&mut connection.jobs) {
            job.run(&self.disk);
        }
        if self.is(BlkOffence::KeepsGrants) || self.is(BlkOffence::AnswersAfterClosed) {
            self.kept.push(connection);
        }
    }

    /// Removes the device from the store.
    pub(super) fn vanish(&mut self) {
        self.store.remove(&self.paths.front);
        self.store.remove(&self.paths.back);
        self.gone = true;
    }

    /// Features that differ at every look.
    pub(super) fn flip(&mut self) {
        if self.gone || !self.is(BlkOffence::FeaturesFlip) {
            return;
        }
        let odd = self.clock % 2 == 1;
        let pick = |a: &'static str, b: &'static str| if odd { a } else { b };
        self.write_key("sectors", pick("64", "1000000"));
        self.write_key("sector-size", pick("512", "4096"));
        self.write_key("feature-max-indirect-segments", pick("256", "0"));
        self.write_key("max-ring-page-order", pick("4", "0"));
        self.write_key("feature-persistent", pick("1", "0"));
    }
}
