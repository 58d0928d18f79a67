//! The store daemon: the whole wire protocol over the guest's ring page.

mod offence;
mod ring;
mod server;
#[cfg(test)]
mod tests;
mod transaction;
mod tree;

pub use offence::StoreOffence;
pub use tree::Perms;

use crate::Peer;
use crate::machine::{FakeMachine, GUEST, HOST};
use firn_xen::wire::hvm::PARAM_STORE_EVTCHN;
use ring::Ring;
use server::{DirectoryTrick, Fired, Server};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;

struct Daemon {
    server: Server,
    ring: Ring,
    offences: Vec<StoreOffence>,
    /// The host's reset is announced and not yet carried out.
    resetting: bool,
    /// An event came while it was deaf: looked into when it is no more.
    missed: bool,
    requests: u64,
}

/// A handle to the daemon; clones are the same daemon.
///
/// The host's own calls (`write`, `read`, …) work on the same tree as the
/// guest's requests, as domain 0, at once.
#[derive(Clone)]
pub struct XenStored(Rc<RefCell<Daemon>>);

/// A watch of the host's; dropping it removes it.
pub struct HostWatch(Rc<Fired>);

impl HostWatch {
    /// Paths that changed since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        self.0.borrow_mut().drain(..).collect()
    }
}

impl XenStored {
    /// A daemon that listens on the machine's store ring, with the nodes that
    /// the toolstack makes for a guest without devices.
    ///
    /// # Panics
    /// When the machine has one already.
    #[must_use]
    pub fn new(machine: &FakeMachine) -> Self {
        let (page, channel) = machine.take_store();
        let daemon = Daemon {
            server: Server::new(),
            ring: Ring::new(page, channel),
            offences: Vec::new(),
            resetting: false,
            missed: false,
            requests: 0,
        };
        let store = Self(Rc::new(RefCell::new(daemon)));
        store.make_domain();
        store
    }

    /// Becomes the daemon of the machine's new host: nothing is known of the
    /// guest but what the toolstack writes anew.
    ///
    /// # Panics
    /// When the machine has one already.
    pub fn new_host(&self, machine: &FakeMachine) {
        let (page, channel) = machine.take_store();
        {
            let mut daemon = self.daemon();
            daemon.server = Server::new();
            daemon.ring = Ring::new(page, channel);
            daemon.resetting = false;
            daemon.missed = false;
        }
        self.make_domain();
    }

    /// The daemon starts again and listens at another port of the same guest,
    /// which has to look for it.
    pub fn move_port(&self, machine: &FakeMachine) {
        let (port, channel) = machine.toolstack_channel(HOST);
        machine.set_param_by_toolstack(PARAM_STORE_EVTCHN, u64::from(port.0));
        let mut daemon = self.daemon();
        daemon.ring.listen(channel);
        daemon.server.forget_guest();
    }

    fn make_domain(&self) {
        let home = format!("/local/domain/{}", GUEST.0);
        let shared = Perms::readable_by(HOST.0, GUEST.0);
        let own = Perms::readable_by(GUEST.0, HOST.0);
        self.write_as(&home, "", &shared);
        self.write_as(&format!("{home}/name"), "guest", &shared);
        self.write_as(&format!("{home}/domid"), "1", &shared);
        self.write_as(&format!("{home}/device"), "", &shared);
        self.write_as(&format!("{home}/data"), "", &own);
        self.write_as(&format!("{home}/control"), "", &shared);
        self.write_as(&format!("{home}/control/shutdown"), "", &own);
        let feature = format!("{home}/control/platform-feature-xs_reset_watches");
        self.write_as(&feature, "1", &shared);
    }

    fn daemon(&self) -> RefMut<'_, Daemon> {
        self.0.borrow_mut()
    }

    /// Writes a value as the host and fires watches.
    ///
    /// # Panics
    /// When the path is no path.
    pub fn write(&self, path: &str, value: &str) {
        self.write_bytes(path, value.as_bytes());
    }

    /// The same for a value that need not be text.
    ///
    /// # Panics
    /// When the path is no path.
    pub fn write_bytes(&self, path: &str, value: &[u8]) {
        let result = self.daemon().server.host_write(path, value);
        result.unwrap_or_else(|errno| panic!("the host cannot write {path}: {errno}"));
    }

    /// Writes a value and sets who may read it.
    ///
    /// # Panics
    /// As [`XenStored::write`].
    pub fn write_as(&self, path: &str, value: &str, perms: &Perms) {
        self.write(path, value);
        if let Some(node) = self.daemon().server.tree.get_mut(path) {
            node.perms = perms.clone();
        }
    }

    /// A value as the host reads it.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        let daemon = self.0.borrow();
        let node = daemon.server.tree.get(path)?;
        Some(String::from_utf8_lossy(&node.value).into_owned())
    }

    /// Names of the children.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let daemon = self.0.borrow();
        let children = daemon.server.tree.children(path);
        children.into_iter().map(str::to_owned).collect()
    }

    /// Removes a node and what is below.
    pub fn remove(&self, path: &str) {
        self.daemon().server.host_remove(path);
    }

    /// Watches a path as the host; it fires once at once.
    #[must_use]
    pub fn watch(&self, path: &str) -> HostWatch {
        let fired = Rc::new(Fired::default());
        self.daemon().server.host_watch(path, Rc::downgrade(&fired));
        HostWatch(fired)
    }

    /// How many watches the guest has.
    #[must_use]
    pub fn guest_watches(&self) -> usize {
        self.0.borrow().server.watch_count()
    }

    /// How many requests the guest made.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.borrow().requests
    }

    /// Resets the guest's connection, as after a crash of the daemon: it is
    /// announced now and done in the next step. Watches, transactions and
    /// whatever is under way are lost.
    pub fn reset(&self) {
        let mut daemon = self.daemon();
        daemon.resetting = true;
        daemon.ring.announce_reset();
    }

    /// Misbehaves; see each [`StoreOffence`] for when and how long.
    pub fn offend(&self, offence: StoreOffence) {
        let mut daemon = self.daemon();
        match offence {
            StoreOffence::CommitNeverSucceeds => daemon.server.commits_fail = true,
            StoreOffence::DirectoryNeverEnds => {
                daemon.server.directory = DirectoryTrick::NeverEnds;
            }
            StoreOffence::DirectoryKeepsChanging => {
                daemon.server.directory = DirectoryTrick::KeepsChanging;
            }
            StoreOffence::OneBytePerStep => daemon.ring.pace = 1,
            _ => {}
        }
        daemon.offences.push(offence);
    }

    /// Ends everything that [`XenStored::offend`] started.
    pub fn behave(&self) {
        let mut daemon = self.daemon();
        daemon.offences.clear();
        daemon.server.commits_fail = false;
        daemon.server.directory = DirectoryTrick::None;
        daemon.ring.pace = usize::MAX;
    }
}

impl Daemon {
    fn is(&self, offence: StoreOffence) -> bool {
        self.offences.contains(&offence)
    }

    fn step(&mut self) -> bool {
        if self.is(StoreOffence::EventStorm) {
            self.ring.notify();
        }
        let ring = &mut self.ring;
        let mut any = false;
        self.offences.retain(|offence| {
            let done = ring.offend_now(*offence);
            any |= done;
            !done
        });
        if any {
            // Before a later word puts it right.
            return true;
        }
        let deaf = self.is(StoreOffence::Deaf);
        let woken = self.ring.is_woken() || self.missed;
        self.missed = woken && deaf;
        let asked = woken && self.ring.wants_reconnect();
        if (self.resetting || asked) && !self.is(StoreOffence::NeverReconnects) {
            self.resetting = false;
            self.server.forget_guest();
            self.ring.reconnect();
            return true;
        }
        if self.ring.wants_reconnect() {
            return any;
        }
        if woken && !deaf {
            any |= self.receive();
        }
        any | self.send()
    }

    fn receive(&mut self) -> bool {
        let any = self.ring.receive();
        while let Some(request) = self.ring.next_request() {
            self.requests += 1;
            if !self.is(StoreOffence::Silence) {
                self.server.handle(&request);
            }
        }
        if any {
            self.ring.notify();
        }
        any
    }

    fn send(&mut self) -> bool {
        while let Some(message) = self.server.out.pop_front() {
            let offence = self.offences.iter().position(|offence| !offence.lasts());
            let chosen = offence.map(|index| self.offences[index]);
            if let (true, Some(index)) = (self.ring.queue(&message, chosen), offence) {
                self.offences.remove(index);
            }
        }
        let any = self.ring.send();
        if any {
            self.ring.notify();
        }
        any
    }
}

impl Peer for XenStored {
    fn step(&mut self) -> bool {
        self.daemon().step()
    }
}
