//! A block backend: xenbus, the ring, a disk in memory, and every way to be
//! difficult.

mod config;
mod disk;
mod handshake;
mod offence;
mod ring;
mod serve;
mod work;

pub use config::{Config, DiscardConfig, Order, Publish};
pub use disk::{Backing, Disk, DiskOp, Later, Work};
pub use offence::BlkOffence;

use crate::Peer;
use crate::machine::FakeMachine;
use crate::store::{HostWatch, XenStored};
use firn_xen::wire::xenbus::XenbusState;
use handshake::Paths;
use ring::BackRing;
use serve::{Job, Persistent};
use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;

/// What lives from `Connected` to the end of the connection.
struct Connection {
    ring: BackRing,
    persistent: Option<Persistent>,
    jobs: Vec<Job>,
}

/// What a backend counted, over all its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests taken from the ring.
    pub requests: u64,
    /// Answers put on the ring.
    pub responses: u64,
    /// Events received from the guest.
    pub events_received: u64,
    /// Events sent to the guest.
    pub events_sent: u64,
    /// Events received that brought no request.
    pub empty_events: u64,
}

struct Back {
    machine: FakeMachine,
    store: XenStored,
    config: Config,
    paths: Paths,
    disk: Disk,
    state: XenbusState,
    front_watch: HostWatch,
    connection: Option<Connection>,
    /// Connections that should have been let go.
    kept: Vec<Connection>,
    /// Requests whose pages should have been let go.
    kept_jobs: Vec<Job>,
    unplugging: bool,
    gone: bool,
    /// Answers that may still be given; `None` is no limit.
    allowance: Option<usize>,
    clock: u64,
    random: u64,
    last_id: Option<u64>,
    counters: Counters,
    complaints: Vec<String>,
}

/// A handle to a backend; clones are the same backend.
#[derive(Clone)]
pub struct BlkBack(Rc<RefCell<Back>>);

impl BlkBack {
    /// Plugs a device: the toolstack's nodes are made, the backend reacts in
    /// its first step.
    #[must_use]
    pub fn plug(machine: &FakeMachine, store: &XenStored, config: Config, disk: Disk) -> Self {
        let paths = Paths::new(&config);
        paths.make(store, &config);
        let front_watch = store.watch(&format!("{}/state", paths.front));
        Self(Rc::new(RefCell::new(Back {
            machine: machine.clone(),
            store: store.clone(),
            random: config.seed | 1,
            config,
            paths,
            disk,
            state: XenbusState::INITIALISING,
            front_watch,
            connection: None,
            kept: Vec::new(),
            kept_jobs: Vec::new(),
            unplugging: false,
            gone: false,
            allowance: None,
            clock: 0,
            last_id: None,
            counters: Counters::default(),
            complaints: Vec::new(),
        })))
    }

    fn get(&self) -> Ref<'_, Back> {
        self.0.borrow()
    }

    fn get_mut(&self) -> RefMut<'_, Back> {
        self.0.borrow_mut()
    }

    /// The disk behind it.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.get().disk.clone()
    }

    /// Its state as it means it.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        self.get().state
    }

    /// Whether a ring is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.get().connection.is_some()
    }

    /// How many requests the connected ring holds.
    #[must_use]
    pub fn ring_size(&self) -> Option<u32> {
        self.get().connection.as_ref().map(|c| c.ring.size())
    }

    /// Grants kept mapped by agreement; `None` when there is no agreement.
    #[must_use]
    pub fn persistent_grants(&self) -> Option<usize> {
        let back = self.get();
        let persistent = back.connection.as_ref()?.persistent.as_ref()?;
        Some(persistent.len())
    }

    /// Requests taken and not answered.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        let back = self.get();
        back.connection.as_ref().map_or(0, |c| c.ring.outstanding())
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.get().counters
    }

    /// What the guest did that a backend refuses: none, for a correct guest.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.get().complaints.clone()
    }

    /// Path of the backend's nodes.
    #[must_use]
    pub fn path(&self) -> String {
        self.get().paths.back.clone()
    }

    /// Path of the frontend's nodes.
    #[must_use]
    pub fn front_path(&self) -> String {
        self.get().paths.front.clone()
    }

    /// Gives at most so many answers from now on; `None` ends the limit.
    pub fn allow(&self, answers: Option<usize>) {
        self.get_mut().allowance = answers;
    }

    /// Changes settings; what is in the store follows at the next connection.
    pub fn reconfigure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.get_mut().config);
    }

    /// Misbehaves; see each [`BlkOffence`] for when and how long.
    pub fn offend(&self, offence: BlkOffence) {
        self.get_mut().config.offences.push(offence);
    }

    /// Ends everything that [`BlkBack::offend`] started.
    pub fn behave(&self) {
        self.get_mut().config.offences.clear();
    }

    /// Grows or shrinks the disk while it is connected, as Linux' backend does.
    pub fn resize(&self, sectors: u64) {
        let back = self.get();
        back.disk.set_capacity(sectors);
        back.store.write(
            &format!("{}/sectors", back.paths.back),
            &sectors.to_string(),
        );
        let state = back.state.0.to_string();
        back.store
            .write(&format!("{}/state", back.paths.back), &state);
    }

    /// Asks the frontend to close, if it has not.
    pub fn close(&self) {
        let mut back = self.get_mut();
        if back.state != XenbusState::CLOSED {
            back.switch(XenbusState::CLOSING);
        }
    }

    /// Overwrites the `word`th word of the ring, if there is one, and sends an
    /// event.
    pub fn poke(&self, word: usize, value: u32) {
        if let Some(connection) = &self.get().connection {
            connection.ring.poke(word, value);
            connection.ring.channel().notify();
        }
    }

    /// Says what state it is in, and looks at the frontend again: after it did
    /// not do what it should have done.
    pub fn look_again(&self) {
        let back = self.get();
        if back.gone {
            return;
        }
        let paths = &back.paths;
        let state = back.state.0.to_string();
        back.store.write(&format!("{}/state", paths.back), &state);
        let front = format!("{}/state", paths.front);
        if let Some(state) = back.store.read(&front) {
            back.store.write(&front, &state);
        }
    }

    /// The toolstack has a device that was closed start anew.
    pub fn start_over(&self) {
        let back = self.get();
        if !back.gone && back.state == XenbusState::CLOSED {
            let state = XenbusState::INITIALISING.0.to_string();
            back.store
                .write(&format!("{}/state", back.paths.front), &state);
        }
    }

    /// Whether the device is not there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.get().gone
    }

    /// Says a state without meaning it.
    pub fn pretend(&self, state: &str) {
        let back = self.get();
        back.store
            .write(&format!("{}/state", back.paths.back), state);
    }

    /// The toolstack detaches the device: asks both ends to close, and removes
    /// the nodes when they have.
    pub fn unplug(&self) {
        let mut back = self.get_mut();
        back.unplugging = true;
        back.store
            .write(&format!("{}/online", back.paths.back), "0");
        back.switch(XenbusState::CLOSING);
    }

    /// The device is gone at once, without a word.
    pub fn vanish(&self) {
        let mut back = self.get_mut();
        back.disconnect();
        back.vanish();
    }

    /// The guest has left for another host. Of the requests under way, so many
    /// are still carried out; nobody is there to be told.
    pub fn lose_guest(&self, carried_out: usize) {
        let mut back = self.get_mut();
        let back = &mut *back;
        if let Some(connection) = back.connection.take() {
            for job in connection.jobs.iter().take(carried_out) {
                job.run(&back.disk);
            }
        }
        back.kept.clear();
        back.kept_jobs.clear();
        back.gone = true;
    }

    /// Lets go of what it kept mapped against the rules.
    pub fn release(&self) {
        let mut back = self.get_mut();
        back.kept.clear();
        back.kept_jobs.clear();
    }
}

impl Peer for BlkBack {
    fn step(&mut self) -> bool {
        self.get_mut().step()
    }
}
