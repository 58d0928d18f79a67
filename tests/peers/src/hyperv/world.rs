//! A Hyper-V host and a guest in one place, with the main loop of the kernel.

use super::bus::VmbusHost;
use super::config::HostConfig;
use super::machine::HvMachine;
use super::storvsp::{Lun, Storvsp, StorvspConfig};
use crate::Peer;
use crate::blkback::Disk;
use crate::io::completions;
use firn_block::gate::Lifecycle;
use firn_block::{
    Armed, Buffer, Completion, DiskId, IoError, Op, Queue, Refused, Request, Token, Unregistered,
    Why,
};
use firn_hyperv::ic::Services;
use firn_hyperv::storvsc::{Controller, ControllerConfig, ScsiBus, Unit};
use firn_hyperv::vmbus::{BusError, Vmbus, VmbusConfig};
use firn_hyperv::wire::vmbus::Version;
use firn_hyperv::{Hal, HyperV};
use firn_task::{Executor, Instant, Time};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// So many rounds without rest are no progress but a loop.
const MOST_TURNS: usize = 200_000;

/// The guest's drivers and its main loop.
pub struct HvGuest {
    /// The hypervisor's pages.
    pub hv: Rc<HyperV<HvMachine>>,
    /// The bus.
    pub bus: Rc<Vmbus<HvMachine>>,
    /// What became of the first contact, once it has ended.
    pub contact: Rc<Cell<Option<Result<Version, BusError>>>>,
    /// Controllers.
    pub scsi: Rc<ScsiBus<HvMachine>>,
    /// Integration services.
    pub services: Rc<Services<HvMachine>>,
    /// Tasks.
    pub executor: Rc<Executor>,
    /// While this is there, the main loop takes completions, and puts them here.
    pub deliver: Option<Rc<RefCell<Vec<Completion>>>>,
    machine: HvMachine,
}

impl HvGuest {
    /// Asks every disk for an event, as the kernel does before it halts. Whether
    /// none has completed something meanwhile.
    fn arm_disks(&self) -> bool {
        let mut quiet = true;
        self.scsi.for_each(|unit| {
            let mut front = unit.front.borrow_mut();
            if front.in_flight() > 0 {
                quiet &= front.arm() == Armed::Sleep;
            }
        });
        quiet
    }

    fn has_reason(&self) -> bool {
        let due = self.hv.timers.next_deadline();
        self.machine.take_interrupt()
            || self.executor.has_ready()
            || due.is_some_and(|at| at <= self.hv.now())
    }

    /// One pass of the main loop, if there is a reason for one.
    pub fn pass(&mut self) -> bool {
        if !self.has_reason() && (self.deliver.is_none() || self.arm_disks()) {
            return false;
        }
        self.hv.poll();
        self.bus.poll();
        let deliver = &self.deliver;
        self.scsi.for_each(|unit| {
            let mut front = unit.front.borrow_mut();
            front.take_event();
            if let Some(done) = deliver {
                front.poll(usize::MAX, &mut |end| done.borrow_mut().push(end));
            }
        });
        self.executor.poll_ready();
        true
    }
}

impl Drop for HvGuest {
    fn drop(&mut self) {
        self.executor.clear();
    }
}

/// A host with one guest.
pub struct HvWorld {
    /// The machine.
    pub machine: HvMachine,
    /// The VMBus host.
    pub host: VmbusHost,
    /// Every controller that was plugged.
    pub storvsps: Vec<Storvsp>,
    /// The guest, once it was started.
    pub guest: Option<HvGuest>,
}

impl HvWorld {
    /// A machine without devices.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        let machine = HvMachine::new();
        let host = VmbusHost::new(&machine, config);
        Self {
            machine,
            host,
            storvsps: Vec::new(),
            guest: None,
        }
    }

    /// A started guest with one controller and one disk of `sectors` sectors.
    #[must_use]
    pub fn with_disk(host: HostConfig, config: StorvspConfig, sectors: u64) -> Self {
        let mut world = Self::new(host);
        world.plug(config).plug(0, Lun::new(Disk::new(sectors)));
        world.start(VmbusConfig::default(), ControllerConfig::default());
        world.settle();
        world
    }

    /// Plugs a controller.
    pub fn plug(&mut self, config: StorvspConfig) -> Storvsp {
        let storvsp = Storvsp::new(config);
        self.host.plug(&storvsp);
        self.storvsps.push(storvsp.clone());
        storvsp
    }

    /// Starts the guest: contact, and every controller that is plugged.
    ///
    /// # Panics
    /// When the machine is none that the drivers know.
    pub fn start(&mut self, bus: VmbusConfig, config: ControllerConfig) {
        let hv = HyperV::new(self.machine.clone()).unwrap_or_else(|e| panic!("{e}"));
        let bus = Vmbus::new(&hv, bus).unwrap_or_else(|e| panic!("{e}"));
        let executor = Rc::new(Executor::new());
        let scsi = ScsiBus::new(&bus, &executor, config);
        executor.spawn(bus.clone().run());
        executor.spawn(scsi.clone().run());
        let services = Services::new(&bus);
        executor.spawn(services.clone().run());
        let contact = Rc::new(Cell::new(None));
        let (slot, contacting) = (contact.clone(), bus.clone());
        executor.spawn(async move { slot.set(Some(contacting.connect().await)) });
        self.guest = Some(HvGuest {
            hv,
            bus,
            contact,
            scsi,
            services,
            executor,
            deliver: None,
            machine: self.machine.clone(),
        });
    }

    /// The guest.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn guest(&self) -> &HvGuest {
        let Some(guest) = &self.guest else {
            panic!("the guest was not started");
        };
        guest
    }

    /// One round: the guest if it has a reason to run, then the host. Whether
    /// anything happened.
    pub fn turn(&mut self) -> bool {
        let any = self.guest.as_mut().is_some_and(HvGuest::pass);
        self.host.step() || any
    }

    /// A round of the host's alone.
    pub fn host_turn(&mut self) -> bool {
        self.host.step()
    }

    /// The disk behind a unit of a controller.
    #[must_use]
    pub fn disk(&self, controller: usize, unit: u8) -> Disk {
        self.storvsps[controller].disk(unit)
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

    /// Settles, then lets time jump to whatever the guest waits for, for as long
    /// as `limit`.
    pub fn run_for(&mut self, limit: Duration) {
        let end = self.machine.now() + limit;
        loop {
            self.settle();
            let next = self.next_event();
            match next.filter(|at| *at < end) {
                Some(at) => self.machine.advance(at.since(self.machine.now())),
                None => break,
            }
        }
        self.machine.advance(end.since(self.machine.now()));
        self.settle();
    }

    /// When the guest or the host has something to do next.
    fn next_event(&self) -> Option<Instant> {
        let guest = self.guest().hv.timers.next_deadline();
        [guest, self.host.next_event()].into_iter().flatten().min()
    }

    /// Runs something of the guest's to its end, as the kernel's main loop does.
    /// What it was worth, and the completions.
    ///
    /// # Panics
    /// When it waits for something that has no deadline.
    pub fn finish<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
    ) -> (T, Vec<Completion>) {
        let (result, done) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::default()));
        let slot = result.clone();
        let Some(guest) = &mut self.guest else {
            panic!("the guest was not started");
        };
        guest.deliver = Some(Rc::clone(&done));
        let task = guest.executor.spawn(async move {
            *slot.borrow_mut() = Some(work.await);
        });
        for _ in 0..MOST_TURNS {
            if !self.guest().executor.is_alive(task) {
                break;
            }
            if !self.turn() {
                let at = self.next_event();
                let at = at.unwrap_or_else(|| panic!("the guest waits without a deadline"));
                self.machine.advance(at.since(self.machine.now()));
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

    /// The controller of that number.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn controller(&self, index: usize) -> Rc<Controller<HvMachine>> {
        self.guest().scsi.controllers()[index].clone()
    }

    /// The disk of that name, the newest if there were several.
    ///
    /// # Panics
    /// When the guest has none.
    #[must_use]
    pub fn unit(&self, index: u32) -> Rc<Unit<HvMachine>> {
        let found = self.guest().scsi.find(DiskId::scsi(index));
        found.unwrap_or_else(|| panic!("the guest has no disk {}", DiskId::scsi(index)))
    }

    /// Whether a disk takes requests.
    #[must_use]
    pub fn is_live(&self, index: u32) -> bool {
        let found = self.guest().scsi.find(DiskId::scsi(index));
        found.is_some_and(|unit| unit.state() == Lifecycle::Live)
    }

    /// Why the bus failed, or a controller.
    #[must_use]
    pub fn failure(&self) -> String {
        let guest = self.guest();
        let bus = guest.bus.offence().map(BusError::Offence);
        let controllers = guest.scsi.controllers();
        let mut errors = controllers.iter().filter_map(|c| c.error());
        let error = errors.next().map(|error| error.to_string());
        let bus = bus.map(|error| error.to_string());
        bus.or(error).unwrap_or_else(|| "none".to_owned())
    }

    /// Registered memory of so many pages.
    ///
    /// # Panics
    /// When there is no memory.
    #[must_use]
    pub fn buffer(&self, index: u32, pages: usize) -> Buffer {
        let region = self.machine.alloc_shared(pages);
        let region = region.unwrap_or_else(|| panic!("no memory"));
        let registered = self.unit(index).front.borrow_mut().register(region);
        registered.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Submits a request and tells the host.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    pub fn submit(&self, index: u32, request: Request) -> Result<Token, Refused> {
        let unit = self.unit(index);
        let mut front = unit.front.borrow_mut();
        let token = front.submit(request)?;
        front.kick();
        Ok(token)
    }

    /// Waits by events until nothing is in flight, or nothing can happen any more;
    /// what ended meanwhile.
    ///
    /// # Panics
    /// When the two ends never come to rest.
    pub fn drain(&mut self, index: u32) -> Vec<Completion> {
        let unit = self.unit(index);
        let mut done = Vec::new();
        for _ in 0..MOST_TURNS {
            let armed = {
                let mut front = unit.front.borrow_mut();
                done.extend(completions(&mut *front));
                if front.in_flight() == 0 {
                    return done;
                }
                front.arm()
            };
            let any = self.turn();
            if armed == Armed::Sleep && !any {
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
        assert!(token.settle(&completion).is_ok(), "another request ended");
        Ok(completion)
    }

    /// Writes bytes from a sector on.
    ///
    /// # Errors
    /// How the request ended.
    ///
    /// # Panics
    /// When it is refused.
    pub fn write(&mut self, index: u32, sector: u64, data: &[u8]) -> Result<(), IoError> {
        let buffer = self.buffer(index, data.len().div_ceil(4096));
        buffer.region().copy_in(0, data);
        let request = Request::data(Op::Write, sector, buffer, data.len());
        self.run(index, request).map(drop)
    }

    /// Reads bytes from a sector on.
    ///
    /// # Errors
    /// How the request ended.
    ///
    /// # Panics
    /// When it is refused.
    pub fn read(&mut self, index: u32, sector: u64, bytes: usize) -> Result<Vec<u8>, IoError> {
        let buffer = self.buffer(index, bytes.div_ceil(4096));
        self.run(index, Request::data(Op::Read, sector, buffer, bytes))
    }

    fn run(&mut self, index: u32, request: Request) -> Result<Vec<u8>, IoError> {
        let done = self.io(index, request);
        let done = done.unwrap_or_else(|refused| panic!("refused: {}", refused.why));
        let mut data = Vec::new();
        if let Some(buffer) = done.request.buffer {
            data.resize(usize::try_from(done.request.sectors).unwrap_or(0) * 512, 0);
            buffer.region().copy_out(0, &mut data);
            let freed = self.unit(index).front.borrow_mut().unregister(buffer);
            if let Unregistered::Free(region) = freed {
                self.machine.free_shared(region);
            }
        }
        done.result.map(|()| data)
    }

    /// Flushes.
    ///
    /// # Errors
    /// Why the request was refused; inside, how it ended.
    pub fn flush(&mut self, index: u32) -> Result<Result<(), IoError>, Why> {
        let done = self.io(index, Request::flush());
        done.map(|done| done.result).map_err(|refused| refused.why)
    }

    /// Asserts that neither end broke a rule.
    ///
    /// # Panics
    /// When one did.
    pub fn assert_clean(&self) {
        assert_eq!(self.machine.violations(), []);
        assert_eq!(self.host.complaints(), Vec::<String>::new());
    }
}
