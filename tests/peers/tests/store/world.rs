//! A guest with a store, and the main loop that drives both ends.

use firn_peers::{FakeMachine, Peer, XenStored};
use firn_task::Executor;
use firn_xen::store::{Store, StoreError};
use firn_xen::wire::hvm::PARAM_STORE_PFN;
use firn_xen::wire::{Gfn, event_channel::Port};
use firn_xen::{Hal, Xen};
use std::cell::RefCell;
use std::rc::Rc;

/// Rounds after which a test is stuck.
const ROUNDS: usize = 200_000;

pub(crate) type TestStore = Store<FakeMachine>;

/// A guest and something that stands for the daemon.
pub(crate) struct World<P> {
    pub(crate) machine: FakeMachine,
    pub(crate) peer: RefCell<P>,
    pub(crate) xen: Rc<Xen<FakeMachine>>,
    pub(crate) store: TestStore,
    pub(crate) executor: Executor,
}

/// A world with a friendly daemon.
pub(crate) fn friendly() -> World<XenStored> {
    World::new(XenStored::new)
}

impl World<XenStored> {
    pub(crate) fn daemon(&self) -> XenStored {
        self.peer.borrow().clone()
    }
}

impl<P: Peer> World<P> {
    pub(crate) fn new(peer: impl FnOnce(&FakeMachine) -> P) -> Self {
        Self::try_new(peer).unwrap_or_else(|error| panic!("no store: {error}"))
    }

    pub(crate) fn try_new(peer: impl FnOnce(&FakeMachine) -> P) -> Result<Self, StoreError> {
        let machine = FakeMachine::new();
        let peer = RefCell::new(peer(&machine));
        let xen = Xen::new(machine.clone()).expect("a fresh machine has the hypervisor's pages");
        let store = Store::attach(&xen)?;
        Ok(Self {
            machine,
            peer,
            xen,
            store,
            executor: Executor::new(),
        })
    }

    /// One round of the guest's main loop, as the kernel has it: nothing is
    /// looked at unless there is an interrupt, a deadline or a woken task.
    fn guest(&self) -> bool {
        let deadline = self.xen.next_deadline();
        let due = deadline.is_some_and(|at| at <= self.machine.now());
        if !(self.machine.take_upcall() || due || self.executor.has_ready()) {
            return false;
        }
        self.xen.poll();
        while self.store.poll() {}
        self.executor.poll_ready();
        true
    }

    /// Runs both ends until neither has anything to do.
    pub(crate) fn settle(&self) {
        for _ in 0..ROUNDS {
            let guest = self.guest();
            let peer = self.peer.borrow_mut().step();
            if !guest && !peer {
                return;
            }
        }
        panic!("the store and its daemon never come to rest");
    }

    /// Runs a task to its end; time passes only when nothing else happens.
    pub(crate) fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        let result = self.spawn(task);
        for _ in 0..ROUNDS {
            let guest = self.guest();
            let peer = self.peer.borrow_mut().step();
            if let Some(value) = result.take() {
                return value;
            }
            if !guest && !peer {
                let next = self.xen.next_deadline();
                let next = next.expect("the task waits for something that has a deadline");
                self.machine.advance(next.since(self.machine.now()));
            }
        }
        panic!("the task never ends");
    }

    /// Starts a task; its result appears in the cell.
    pub(crate) fn spawn<T: 'static>(
        &self,
        task: impl Future<Output = T> + 'static,
    ) -> Rc<RefCell<Option<T>>> {
        let result = Rc::new(RefCell::new(None));
        let cell = result.clone();
        self.executor.spawn(async move {
            let value = task.await;
            *cell.borrow_mut() = Some(value);
        });
        result
    }

    /// The same for a task that needs the store.
    pub(crate) fn with<T: 'static>(&self, task: impl AsyncFnOnce(TestStore) -> T + 'static) -> T {
        let store = self.store.clone();
        self.run(async move { task(store).await })
    }
}

/// The ring page and the guest's port, for who plays the daemon by hand.
pub(crate) fn store_page(machine: &FakeMachine) -> firn_block::shm::Region {
    let frame = machine.param(PARAM_STORE_PFN).expect("the page");
    machine.map_frames(Gfn(frame), 1).expect("the page")
}

/// The port as a number, for messages.
pub(crate) fn is_masked(world: &World<impl Peer>) -> bool {
    let port: Port = world.store.port();
    world.xen.events.is_masked(port)
}
