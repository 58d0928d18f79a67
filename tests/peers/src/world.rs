//! A host and a guest in one place: the machine, the store, backends, and the
//! drivers with the main loop of the kernel.

use crate::Peer;
use crate::blkback::{BlkBack, Config, Disk};
use crate::io::completions;
use crate::machine::FakeMachine;
use crate::store::XenStored;
use firn_block::gate::Lifecycle;
use firn_block::{Armed, Buffer, Completion, DiskId, Queue, Refused, Request, Token};
use firn_task::{Executor, Time};
use firn_xen::blkfront::{Vbd, VbdConfig, VbdReport};
use firn_xen::bus::Bus;
use firn_xen::console::Console;
use firn_xen::store::{Store, StoreError};
use firn_xen::{Hal, Xen};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// So many rounds without rest are no progress but a loop.
const MOST_TURNS: usize = 1_000_000;

/// The guest's drivers and its main loop.
pub struct Guest {
    /// The hypervisor's pages.
    pub xen: Rc<Xen<FakeMachine>>,
    /// Xenstore.
    pub store: Store<FakeMachine>,
    /// The console, if the test has one.
    pub console: Option<Rc<Console<FakeMachine>>>,
    /// Devices.
    pub bus: Rc<Bus<FakeMachine>>,
    /// Tasks.
    pub executor: Rc<Executor>,
    /// Why the bus does not look for devices any more.
    pub bus_error: Rc<RefCell<Option<StoreError>>>,
    /// While this is there, the main loop takes completions as the kernel's
    /// does, and hands them out here; else the test polls the queues.
    pub deliver: Option<Box<dyn FnMut(Completion)>>,
    more: bool,
}

impl Guest {
    /// Starts the drivers.
    ///
    /// # Panics
    /// When the machine has no event channels, no grants or no store.
    #[must_use]
    pub fn new(machine: &FakeMachine, config: VbdConfig) -> Self {
        let xen = Xen::new(machine.clone()).unwrap_or_else(|e| panic!("{e}"));
        let store = Store::attach(&xen).unwrap_or_else(|e| panic!("{e}"));
        let executor = Rc::new(Executor::new());
        let bus = Bus::new(&xen, &store, &executor, config);
        let bus_error = Rc::new(RefCell::new(None));
        let (follow, slot) = (bus.clone().run(), bus_error.clone());
        executor.spawn(async move {
            if let Err(error) = follow.await {
                *slot.borrow_mut() = Some(error);
            }
        });
        Self {
            xen,
            store,
            console: None,
            bus,
            executor,
            bus_error,
            deliver: None,
            more: false,
        }
    }

    /// From now on the main loop takes completions, into this list.
    pub fn collect(&mut self) -> Rc<RefCell<Vec<Completion>>> {
        let done = Rc::new(RefCell::new(Vec::new()));
        let list = done.clone();
        self.deliver = Some(Box::new(move |completion| {
            list.borrow_mut().push(completion);
        }));
        done
    }

    /// Asks every disk for an event at its next completion, as the kernel does
    /// before it halts. Returns whether none has completed something meanwhile.
    fn arm_disks(&self) -> bool {
        let mut quiet = true;
        self.bus.for_each(|vbd| {
            let mut front = vbd.front.borrow_mut();
            if front.in_flight() > 0 {
                quiet &= front.arm() == Armed::Sleep;
            }
        });
        quiet
    }

    /// Whether a halted vCPU would wake up: an upcall, a task, a timer.
    fn has_reason(&self) -> bool {
        let due = self.xen.next_deadline();
        self.more
            || self.xen.events.upcall_pending()
            || self.executor.has_ready()
            || due.is_some_and(|at| at <= self.xen.now())
    }

    /// One pass of the main loop, if there is a reason for one; whether there
    /// was.
    pub fn pass(&mut self) -> bool {
        if !self.has_reason() && (self.deliver.is_none() || self.arm_disks()) {
            return false;
        }
        self.xen.poll();
        self.more = self.store.poll();
        let deliver = &mut self.deliver;
        self.bus.for_each(|vbd| {
            let mut front = vbd.front.borrow_mut();
            front.take_event();
            if let Some(deliver) = deliver {
                front.poll(usize::MAX, deliver);
            }
        });
        self.executor.poll_ready();
        true
    }
}

impl Drop for Guest {
    /// The bus and its tasks own each other; without this no machine would
    /// ever end.
    fn drop(&mut self) {
        self.executor.clear();
    }
}

/// A host with one guest.
pub struct World {
    /// The machine.
    pub machine: FakeMachine,
    /// The store daemon.
    pub store: XenStored,
    /// Every backend that was plugged.
    pub backends: Vec<BlkBack>,
    /// The guest, once it was started.
    pub guest: Option<Guest>,
}

impl World {
    /// A machine with a store and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let machine = FakeMachine::new();
        let store = XenStored::new(&machine);
        Self {
            machine,
            store,
            backends: Vec::new(),
            guest: None,
        }
    }

    /// A started guest with one disk of `sectors` sectors that is connected, or
    /// not if one of both ends will have it so.
    #[must_use]
    pub fn with_disk(config: Config, sectors: u64) -> Self {
        let mut world = Self::new();
        world.plug(config, sectors);
        world.start(VbdConfig::default());
        world.settle();
        world
    }

    /// Plugs a disk of zeros.
    pub fn plug(&mut self, config: Config, sectors: u64) -> BlkBack {
        self.plug_disk(config, Disk::new(sectors))
    }

    /// Plugs a disk that exists.
    pub fn plug_disk(&mut self, config: Config, disk: Disk) -> BlkBack {
        let back = BlkBack::plug(&self.machine, &self.store, config, disk);
        self.backends.push(back.clone());
        back
    }

    /// Starts the guest's drivers.
    pub fn start(&mut self, config: VbdConfig) {
        self.guest = Some(Guest::new(&self.machine, config));
    }

    /// The guest.
    ///
    /// # Panics
    /// When it was not started.
    pub fn guest(&self) -> &Guest {
        let Some(guest) = &self.guest else {
            panic!("the guest was not started");
        };
        guest
    }

    /// One round: the guest if it has a reason to run, then everything on the
    /// host. Returns whether anything happened.
    pub fn turn(&mut self) -> bool {
        let mut any = self.guest.as_mut().is_some_and(Guest::pass);
        any |= self.store.step();
        for back in &mut self.backends {
            any |= back.step();
        }
        any
    }

    /// Rounds until nobody has anything to do. Time stands still.
    ///
    /// # Panics
    /// When that does not come.
    pub fn settle(&mut self) {
        for _ in 0..MOST_TURNS {
            if !self.turn() {
                return;
            }
        }
        panic!("guest and host never come to rest");
    }

    /// Settles, then lets time jump to whatever the guest waits for, for as
    /// long as `limit`.
    pub fn run_for(&mut self, limit: Duration) {
        let end = self.machine.now() + limit;
        loop {
            self.settle();
            let now = self.machine.now();
            let next = self.guest().xen.next_deadline();
            match next.filter(|at| *at < end) {
                Some(at) => self.machine.advance(at.since(now)),
                None => break,
            }
        }
        self.machine.advance(end.since(self.machine.now()));
        self.settle();
    }

    /// Runs something of the guest's to its end, as the kernel's main loop does:
    /// completions are taken whenever there is a reason to run, and time goes on
    /// when nobody has one. What it was worth, and the completions.
    ///
    /// # Panics
    /// When it waits for something that has no deadline.
    pub fn finish<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
    ) -> (T, Vec<Completion>) {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        let Some(guest) = &mut self.guest else {
            panic!("the guest was not started");
        };
        let done = guest.collect();
        let task = guest.executor.spawn(async move {
            *slot.borrow_mut() = Some(work.await);
        });
        for _ in 0..MOST_TURNS {
            if !self.guest().executor.is_alive(task) {
                break;
            }
            if !self.turn() {
                self.skip();
            }
        }
        if let Some(guest) = &mut self.guest {
            guest.deliver = None;
        }
        match result.take() {
            Some(result) => (result, done.take()),
            None => panic!("the guest comes neither to an end nor to rest"),
        }
    }

    /// Lets time jump to whatever the guest waits for.
    fn skip(&self) {
        let Some(at) = self.guest().xen.next_deadline() else {
            panic!("the guest waits without a deadline");
        };
        self.machine.advance(at.since(self.machine.now()));
    }

    /// The device of that name.
    ///
    /// # Panics
    /// When the guest has none.
    #[must_use]
    pub fn vbd(&self, index: u32) -> Rc<Vbd<FakeMachine>> {
        let vbd = self.guest().bus.find(DiskId(index));
        vbd.unwrap_or_else(|| panic!("the guest has no disk {}", DiskId(index)))
    }

    /// What the guest has to say about a device.
    #[must_use]
    pub fn report(&self, index: u32) -> VbdReport {
        self.vbd(index).to_report()
    }

    /// Whether a device takes requests.
    #[must_use]
    pub fn is_live(&self, index: u32) -> bool {
        let vbd = self.guest().bus.find(DiskId(index));
        vbd.is_some_and(|vbd| vbd.to_report().state == Lifecycle::Live)
    }

    /// Registered memory of so many pages.
    ///
    /// # Panics
    /// When there is no memory, or no grant for it.
    #[must_use]
    pub fn buffer(&self, index: u32, pages: usize) -> Buffer {
        let region = self.machine.alloc_shared(pages);
        let region = region.unwrap_or_else(|| panic!("no memory"));
        let registered = self.vbd(index).front.borrow_mut().register(region);
        registered.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Submits a request and tells the host.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    pub fn submit(&self, index: u32, request: Request) -> Result<Token, Refused> {
        let vbd = self.vbd(index);
        let mut front = vbd.front.borrow_mut();
        let token = front.submit(request)?;
        front.kick();
        Ok(token)
    }

    /// Waits by events until nothing is in flight, or nothing can happen any
    /// more; what ended meanwhile.
    ///
    /// # Panics
    /// When the two ends never come to rest.
    pub fn drain(&mut self, index: u32) -> Vec<Completion> {
        let vbd = self.vbd(index);
        let mut done = Vec::new();
        for _ in 0..MOST_TURNS {
            let armed = {
                let mut front = vbd.front.borrow_mut();
                done.extend(completions(&mut *front));
                if front.in_flight() == 0 {
                    return done;
                }
                front.arm()
            };
            if armed == Armed::Sleep && !self.turn() {
                return done;
            }
        }
        panic!("requests neither end nor rest");
    }

    /// One request from submission to completion.
    ///
    /// # Errors
    /// [`Refused`] as by [`Queue::submit`].
    ///
    /// # Panics
    /// When it does not end, or something else does.
    pub fn io(&mut self, index: u32, request: Request) -> Result<Completion, Refused> {
        let token = self.submit(index, request)?;
        let mut done = self.drain(index);
        let completion = done.pop().filter(|_| done.is_empty());
        let Some(completion) = completion else {
            panic!("not exactly one request ended");
        };
        let settled = token.settle(&completion);
        assert!(settled.is_ok(), "another request ended");
        Ok(completion)
    }

    /// Asserts that the guest broke no rule of the machine and no backend had
    /// to refuse anything.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_clean(&self) {
        assert_eq!(self.machine.violations(), []);
        for back in &self.backends {
            assert_eq!(back.complaints(), Vec::<String>::new(), "{}", back.path());
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
