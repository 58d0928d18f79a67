//! The loop that runs everything on the first vCPU.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use firn_block::{Armed, Completion, DiskId, Op, Queue};
use firn_task::{Executor, Instant, sleep_until};
use firn_xen::blkfront::VbdConfig;
use firn_xen::bus::Bus;
use firn_xen::console::Console;
use firn_xen::event::EventError;
use firn_xen::hypercall::Hypercall;
use firn_xen::store::Store;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::event_channel::{Port, VIRQ_TIMER};
use firn_xen::wire::misc::SetSingleshotTimer;
use firn_xen::{Hal, Xen};
use spin::Once;

use super::job_state::JobState;
use super::machine::Input;
use super::{Alarm, Names, Rest};
use crate::arch::FirstCpu;
use crate::clock;
use crate::host::xen::{self, XenHal};
use crate::mm::{self, Memory};
use crate::power::{self, Disks, PowerState};

const FIRST_VCPU: u32 = 0;
/// A wake-up that was lost below the hypervisor costs no more than this.
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Completions handed out by one disk in one pass.
const BUDGET: usize = 64;

static MAIN_LOOP: Once<FirstCpu<MainLoop>> = Once::new();

/// The main loop, once [`MainLoop::start`] has made it; before that nobody has
/// a [`super::KernelMachine`] to ask for it.
pub(crate) fn get() -> &'static MainLoop {
    match MAIN_LOOP.get() {
        Some(main_loop) => main_loop,
        None => panic!("a job ran before the main loop"),
    }
}

/// Everything that runs on one vCPU: the hypervisor, its buses, the tasks.
pub struct MainLoop {
    pub(crate) xen: Rc<Xen<XenHal>>,
    pub(crate) store: Store<XenHal>,
    pub(crate) bus: Rc<Bus<XenHal>>,
    pub(super) input: Input,
    /// Tasks of the kernel and its drivers: they live in boot memory.
    pub(crate) drivers: Rc<Executor>,
    /// Tasks of applications, and what they share: in job memory.
    jobs: Cell<&'static JobState>,
    /// No job runs, and nobody but the power code touches job memory.
    parked: Cell<bool>,
    /// After a restore: nothing was read yet.
    pub(crate) awaits_read: Cell<bool>,
    /// What the jobs' clock is ahead of this boot's.
    job_clock: Cell<Duration>,
    /// What jobs call the disks.
    pub(crate) names: RefCell<Names>,
    pub(crate) power: PowerState,
    alarm: Alarm,
    /// When the present wait began.
    resting: Cell<Option<Instant>>,
    halted: Cell<Duration>,
    /// The event channel of the hypervisor's timer.
    timer: Cell<Port>,
}

impl MainLoop {
    /// Makes the main loop: the bus looks for devices as soon as it runs.
    /// The first call counts.
    ///
    /// # Errors
    /// What Xen says if it gives no timer.
    pub fn start(
        xen: &Rc<Xen<XenHal>>,
        store: &Store<XenHal>,
        console: Option<Rc<Console<XenHal>>>,
        config: VbdConfig,
    ) -> Result<&'static Self, EventError> {
        let timer = Cell::new(bind_timer(xen)?);
        let drivers = Rc::new(Executor::new());
        let bus = Bus::new(xen, store, &drivers, config);
        let follow = bus.clone().run();
        drivers.spawn(async move {
            if let Err(error) = follow.await {
                log::error!("no devices can come or go any more: {error}");
            }
        });
        let main_loop = || {
            FirstCpu::new(Self {
                xen: xen.clone(),
                store: store.clone(),
                power: PowerState::new(Disks::new(xen, &bus)),
                bus,
                input: Input::new(console),
                drivers,
                jobs: Cell::new(JobState::create()),
                parked: Cell::new(false),
                awaits_read: Cell::new(false),
                job_clock: Cell::new(Duration::ZERO),
                names: RefCell::new(Names::new()),
                alarm: Alarm::new(),
                resting: Cell::new(None),
                halted: Cell::new(Duration::ZERO),
                timer,
            })
        };
        Ok(MAIN_LOOP.call_once(main_loop))
    }

    /// Takes up the main loop's own part on a new host.
    pub(crate) fn meet_new_host(&self) -> Result<(), &'static str> {
        let timer = bind_timer(&self.xen).map_err(|_| "Xen gives no timer")?;
        self.timer.set(timer);
        self.alarm.fired();
        xen::set_upcall(&self.xen).map_err(|_| "an upcall vector was refused")
    }

    /// The console, if there is one.
    pub(crate) fn console(&self) -> Option<&Console<XenHal>> {
        self.input.console()
    }

    /// Adds a task of an application; `make` runs in job memory.
    pub fn spawn_job<F: Future<Output = ()> + 'static>(&self, make: impl FnOnce() -> F) {
        let _job = mm::enter(Memory::Job);
        self.jobs().executor.spawn(make());
    }

    /// What the jobs share.
    pub(crate) fn jobs(&self) -> &'static JobState {
        self.jobs.get()
    }

    /// The jobs' clock when this boot's reads `now`.
    pub(crate) fn job_time(&self, now: Instant) -> Instant {
        now + self.job_clock.get()
    }

    /// Stops polling jobs. Their clock is noted in job memory.
    pub(crate) fn park(&self) {
        if !self.parked.replace(true) {
            self.input.forget_reader();
            let jobs = self.jobs();
            jobs.parked_at.set(self.job_time(self.xen.hal.now()));
        }
    }

    /// Lets jobs run again, and wakes them all: what they waited for may have
    /// come, or have been forgotten, while they stood still.
    pub(crate) fn unpark(&self) {
        if self.parked.replace(false) {
            self.jobs().executor.wake_all();
        }
    }

    /// Forgets all jobs, and everything else in job memory.
    pub(crate) fn empty_jobs(&self) {
        mm::empty_job_memory();
        self.replace_jobs(JobState::create());
    }

    /// Whether jobs stand still.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.get()
    }

    /// Takes another state of the jobs, such as one that was loaded; they are
    /// parked. Their clock goes on where it stopped, and never back.
    pub(crate) fn replace_jobs(&self, jobs: &'static JobState) {
        self.jobs.set(jobs);
        let ahead = jobs.parked_at.get().since(self.xen.hal.now());
        self.job_clock.set(ahead);
    }

    /// Runs until the disks that are there are connected or have failed, so
    /// that jobs find them, but no longer than `limit`.
    pub fn settle(&self, limit: Duration) {
        let until = self.xen.hal.now() + limit;
        // Ends the wait: something is due then.
        self.drivers.spawn(sleep_until(self.xen.clone(), until));
        self.run_until(|| self.bus.is_settled() || self.xen.hal.now() >= until);
    }

    /// Runs until all jobs have ended.
    pub fn run(&self) {
        self.run_until(|| !self.parked.get() && self.jobs().executor.is_empty());
    }

    pub(crate) fn run_until(&self, done: impl Fn() -> bool) {
        while !done() {
            if !self.pass() {
                self.rest();
            }
        }
    }

    /// One look at everything. Returns whether there is more to do at once. The
    /// clock is read once: where the hypervisor emulates the time stamp counter,
    /// a reading costs as much as a hypercall.
    fn pass(&self) -> bool {
        let now = self.xen.poll();
        if let Some(since) = self.resting.take() {
            let halted = self.halted.get() + now.since(since);
            self.halted.set(halted);
        }
        if self.xen.events.take(self.timer.get()) {
            self.alarm.fired();
        }
        self.input.look(&self.xen);
        let more = self.store.poll();
        self.reap_disks();
        self.drivers.poll_ready();
        if !self.parked.get() {
            let _job = mm::enter(Memory::Job);
            let jobs = self.jobs();
            jobs.timers.fire(self.job_time(now));
            jobs.executor.poll_ready();
        }
        more || self.has_ready()
    }

    fn has_ready(&self) -> bool {
        let job_ready = || !self.parked.get() && self.jobs().executor.has_ready();
        self.drivers.has_ready() || job_ready()
    }

    /// When the jobs want to be woken, by this boot's clock.
    fn job_deadline(&self) -> Option<Instant> {
        if self.parked.get() {
            return None;
        }
        let at = self.jobs().timers.next_deadline()?;
        let start = self.job_time(Instant::default());
        Some(Instant::default() + at.since(start))
    }

    /// How long the machine has been halted since it came up.
    pub(crate) fn halted(&self) -> Duration {
        self.halted.get()
    }

    /// Hands out what the disks have completed.
    fn reap_disks(&self) {
        self.bus.for_each(|vbd| {
            let Ok(mut front) = vbd.front.try_borrow_mut() else {
                return;
            };
            front.take_event();
            front.poll(BUDGET, &mut |completion| self.deliver(completion));
        });
    }

    fn deliver(&self, completion: Completion) {
        if self.awaits_read.get() && completion.request.op == Op::Read {
            self.awaits_read.set(false);
            power::first_read(self.xen.hal.now());
        }
        let _job = mm::enter(Memory::Job);
        if let Err(stray) = self.jobs().channels.deliver(completion) {
            log::error!("a completion that nobody waits for: {stray:?}");
        }
    }

    /// Waits for an event, unless there is work by now. The clock is not read
    /// again: a deadline that has just come makes the timer fire at once.
    fn rest(&self) {
        let now = Instant::from_nanos(clock::latest_ns());
        let longest = Some(now + LONGEST_REST);
        let deadlines = [self.xen.next_deadline(), self.job_deadline(), longest];
        let deadline = deadlines.into_iter().flatten().min();
        let rest = self.alarm.rest(now, deadline);
        if let Rest::SetTimerAndHalt(at) = rest
            && self.set_timer(at).is_err()
        {
            return; // without a timer, look again at once: correct, if wasteful
        }
        let work = !self.arm_disks() || self.has_ready() || self.xen.events.upcall_pending();
        if rest != Rest::No && !work {
            self.resting.set(Some(now));
            self.xen.events.wait(&self.xen.hal);
        }
    }

    /// Asks every disk for an event at its next completion. Returns whether
    /// none has completed something meanwhile.
    fn arm_disks(&self) -> bool {
        let mut quiet = true;
        self.bus.for_each(|vbd| {
            if let Ok(mut front) = vbd.front.try_borrow_mut()
                && front.in_flight() > 0
                && !self.is_polled(vbd.id())
            {
                quiet &= front.arm() == Armed::Sleep;
            }
        });
        quiet
    }

    /// Whether the jobs of this boot's disk look for completions themselves.
    pub(crate) fn is_polled(&self, disk: DiskId) -> bool {
        let name = self.names.borrow().to_job(disk);
        !self.parked.get() && self.jobs().polled.borrow().contains(&name)
    }

    /// Chooses between looking and waiting for events, for the disk that jobs
    /// call `name`. A port that is masked now is unmasked by the next
    /// [`Queue::arm`].
    pub(crate) fn set_polled(&self, name: DiskId, polled: bool) {
        {
            let _job = mm::enter(Memory::Job);
            let mut disks = self.jobs().polled.borrow_mut();
            if !polled {
                disks.remove(&name);
                return;
            }
            disks.insert(name);
        }
        let port = self
            .bus
            .find(self.names.borrow().to_boot(name))
            .and_then(|vbd| vbd.front.borrow().port());
        if let Some(port) = port {
            self.xen.events.mask(port);
        }
    }

    fn set_timer(&self, at: Instant) -> Result<(), Errno> {
        let timeout_abs_ns = clock::to_source(at.as_nanos());
        let timer = SetSingleshotTimer {
            timeout_abs_ns,
            flags: 0,
            pad: 0,
        };
        self.xen
            .hal
            .hypercall(Hypercall::SetTimer(FIRST_VCPU, &timer))
            .map(|_| ())
    }
}

/// Binds the timer of the first vCPU.
fn bind_timer(xen: &Xen<XenHal>) -> Result<Port, EventError> {
    // Xen ticks every new vCPU; where it does not, stopping fails, and nothing
    // is lost.
    let _ = xen.hal.hypercall(Hypercall::StopPeriodicTimer(FIRST_VCPU));
    let timer = xen.events.bind_virq(&xen.hal, VIRQ_TIMER)?;
    xen.events.unmask(timer);
    Ok(timer)
}
