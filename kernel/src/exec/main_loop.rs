//! The loop that runs everything on the first vCPU.

use core::cell::{Cell, RefCell};
use core::time::Duration;

use firn_block::{Completion, DiskId, Op};
use firn_task::{Executor, Instant, Time, sleep_until};
use spin::Once;

use super::job_state::JobState;
use super::machine::Input;
use super::{Alarm, Names, Rest};
use crate::arch::FirstCpu;
use crate::clock;
use crate::host::Platform;
use crate::mm::{self, Memory};
use crate::power::{self, Disks, PowerState};

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

/// Everything that runs on one vCPU: the host, its disks, the tasks.
pub struct MainLoop {
    pub(crate) platform: &'static Platform,
    pub(super) input: Input,
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
}

impl MainLoop {
    /// Makes the main loop: devices are looked for as soon as it runs. The first
    /// call counts.
    pub(crate) fn start(platform: &'static Platform) -> &'static Self {
        let main_loop = || {
            FirstCpu::new(Self {
                platform,
                power: PowerState::new(Disks::new(platform.drives())),
                input: Input::default(),
                jobs: Cell::new(JobState::create()),
                parked: Cell::new(false),
                awaits_read: Cell::new(false),
                job_clock: Cell::new(Duration::ZERO),
                names: RefCell::new(Names::new()),
                alarm: Alarm::new(),
                resting: Cell::new(None),
                halted: Cell::new(Duration::ZERO),
            })
        };
        MAIN_LOOP.call_once(main_loop)
    }

    /// The timer has to be set anew: it was another host's.
    pub(crate) fn forget_timer(&self) {
        self.alarm.fired();
    }

    /// Tasks of the kernel and its drivers: they live in boot memory.
    pub(crate) fn drivers(&self) -> &'static Executor {
        self.platform.executor()
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
            jobs.parked_at.set(self.job_time(self.platform.now()));
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
        let ahead = jobs.parked_at.get().since(self.platform.now());
        self.job_clock.set(ahead);
    }

    /// Runs until the disks that are there are connected or have failed, so
    /// that jobs find them, but no longer than `limit`.
    pub fn settle(&self, limit: Duration) {
        let until = self.platform.now() + limit;
        // Ends the wait: something is due then.
        self.drivers().spawn(sleep_until(self.platform, until));
        self.run_until(|| self.platform.is_settled() || self.platform.now() >= until);
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

    /// One look at everything. Returns whether there is more to do at once.
    fn pass(&self) -> bool {
        let look = self.platform.look();
        if let Some(since) = self.resting.take() {
            let halted = self.halted.get() + look.now.since(since);
            self.halted.set(halted);
        }
        if look.timer {
            self.alarm.fired();
        }
        self.input.look(self.platform);
        self.platform
            .reap(BUDGET, &mut |completion| self.deliver(completion));
        self.drivers().poll_ready();
        if !self.parked.get() {
            let _job = mm::enter(Memory::Job);
            let jobs = self.jobs();
            jobs.timers.fire(self.job_time(look.now));
            jobs.executor.poll_ready();
        }
        look.more || self.has_ready()
    }

    fn has_ready(&self) -> bool {
        let job_ready = || !self.parked.get() && self.jobs().executor.has_ready();
        self.drivers().has_ready() || job_ready()
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

    fn deliver(&self, completion: Completion) {
        if self.awaits_read.get() && completion.request.op == Op::Read {
            self.awaits_read.set(false);
            power::first_read(self.platform.now());
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
        let patience = self.platform.patience();
        let reads = patience.filter(|_| self.input.is_awaited());
        let longest = Some(now + reads.unwrap_or(LONGEST_REST));
        let deadlines = [self.platform.next_deadline(), self.job_deadline(), longest];
        let deadline = deadlines.into_iter().flatten().min();
        let rest = self.alarm.rest(now, deadline);
        if let Rest::SetTimerAndHalt(at) = rest
            && !self.platform.set_timer(at)
        {
            return; // without a timer, look again at once: correct, if wasteful
        }
        let quiet = self.platform.arm(|disk| !self.is_polled(disk));
        let work = !quiet || self.has_ready() || self.platform.has_news();
        if rest != Rest::No && !work {
            self.resting.set(Some(now));
            self.platform.wait();
        }
    }

    /// Whether the jobs of this boot's disk look for completions themselves.
    pub(crate) fn is_polled(&self, disk: DiskId) -> bool {
        let name = self.names.borrow().to_job(disk);
        !self.parked.get() && self.jobs().polled.borrow().contains_key(&name)
    }

    /// Chooses between looking and waiting for events, for the disk that jobs
    /// call `name`.
    pub(crate) fn set_polled(&self, name: DiskId, polled: bool) {
        {
            let _job = mm::enter(Memory::Job);
            let mut disks = self.jobs().polled.borrow_mut();
            if !polled {
                disks.remove(&name);
                return;
            }
            disks.insert(name, ());
        }
        self.platform.mask(self.names.borrow().to_boot(name));
    }
}
