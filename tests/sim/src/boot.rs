//! One boot of a simulated machine: everything that is gone when it ends.

use crate::fault::Injected;
use crate::machine::{JobState, SimMachine};
use crate::memory::Arena;
use crate::side::{Hypervisor, Side, SimDrives};
use crate::witness::Witness;
use crate::writer;
use firn_block::gate::Lifecycle;
use firn_block::{Completion, DiskId, PAGE};
use firn_jobs::shell::Shell;
use firn_kernel::exec::Names;
use firn_kernel::power::Disks;
use firn_peers::{Disk, DiskOp};
use firn_power::Step;
use firn_task::{Executor, Instant};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Boot>>> = const { RefCell::new(None) };
}

/// The machine that runs on this thread.
pub fn current() -> Option<Rc<Boot>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The power failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// Nanoseconds that a pass of the main loop takes.
const PASS: u64 = 5_000;
/// Passes without any progress before time begins to leap.
const PATIENCE: u32 = 8;
/// The longest leap, in nanoseconds.
const LEAP: u64 = 250_000_000;
/// How long a kernel waits for its disks before it looks for an image.
const SETTLE: Duration = Duration::from_secs(10);
/// Nothing in here takes so many passes.
const MOST_PASSES: u64 = 1_000_000;

/// The parts of a machine that outlive its boots.
#[derive(Clone)]
pub struct Hardware {
    /// Job memory.
    pub arena: Rc<Arena>,
    /// Its disks.
    pub disks: Vec<(DiskId, Disk)>,
    /// Which of them the image goes to.
    pub image: DiskId,
    /// The time.
    pub clock: Rc<Cell<u64>>,
    /// On which hypervisor it boots.
    pub hypervisor: Cell<Hypervisor>,
    /// Which build boots.
    pub build: Cell<&'static str>,
    /// Who watches.
    pub witness: Rc<RefCell<Witness>>,
}

/// One boot.
pub struct Boot {
    /// Job memory.
    pub arena: Rc<Arena>,
    /// The machine, and the host under it.
    pub side: Side,
    /// The disks as a freeze sees them.
    pub disks: Disks<SimDrives>,
    /// What jobs call the disks.
    pub names: RefCell<Names>,
    /// The image disk, as the machine counts its disks.
    pub image: DiskId,
    /// Which build runs.
    pub build: &'static str,
    /// Who watches.
    pub witness: Rc<RefCell<Witness>>,
    /// Jobs stand still.
    pub parked: Cell<bool>,
    /// A boot did not decide yet: disks that come stay shut.
    pub undecided: Cell<bool>,
    /// What goes wrong.
    pub injected: Cell<Option<Injected>>,
    /// The step that is being taken.
    pub step: Cell<Option<Step>>,
    /// Every step that was taken.
    pub steps: RefCell<BTreeSet<Step>>,
    /// Random choices of this boot.
    pub rng: RefCell<SmallRng>,
    /// How many disks there are.
    count: usize,
    clock: Rc<Cell<u64>>,
    jobs: Cell<&'static JobState>,
    tasks: Rc<Executor>,
    fuse: Cell<Option<u64>>,
    idle: Cell<u32>,
}

impl Boot {
    /// Switches a machine on: empty job memory, every disk connected, every
    /// gate shut.
    ///
    /// # Panics
    /// When a disk does not connect.
    #[must_use]
    pub fn start(hardware: &Hardware, seed: u64) -> Rc<Self> {
        let boot = Self::begin(hardware, seed);
        boot.settle(Duration::MAX);
        let fronts = boot.side.fronts();
        let states: Vec<_> = fronts.iter().map(|f| (f.id, f.state)).collect();
        let connected = |(_, state): &(DiskId, Lifecycle)| *state == Lifecycle::Freezing;
        assert!(
            states.len() == boot.count && states.iter().all(connected),
            "{states:?}"
        );
        boot
    }

    /// The same, and not every disk need be connected before the time that a
    /// kernel waits is over: `hinder` is told before anything happens.
    #[must_use]
    pub fn start_with(hardware: &Hardware, seed: u64, hinder: impl FnOnce(&Side)) -> Rc<Self> {
        let boot = Self::begin(hardware, seed);
        hinder(&boot.side);
        boot.settle(SETTLE);
        boot
    }

    fn begin(hardware: &Hardware, seed: u64) -> Rc<Self> {
        hardware.witness.borrow_mut().boot();
        hardware.arena.empty();
        let mut rng = SmallRng::seed_from_u64(seed);
        let clock = hardware.clock.clone();
        for (id, disk) in &hardware.disks {
            observe(hardware, *id, disk);
        }
        let (memory, now) = (hardware.arena.region(), Instant::from_nanos(clock.get()));
        let hypervisor = hardware.hypervisor.get();
        let side = Side::new(hypervisor, &hardware.disks, &memory, now, &mut rng);
        side.keep_shut(true);
        let boot = Rc::new(Self {
            arena: hardware.arena.clone(),
            disks: Disks::new(side.drives()),
            tasks: side.tasks(),
            side,
            names: RefCell::default(),
            image: hardware.image,
            build: hardware.build.get(),
            witness: hardware.witness.clone(),
            parked: Cell::new(true),
            undecided: Cell::new(true),
            injected: Cell::new(None),
            step: Cell::new(None),
            steps: RefCell::default(),
            rng: RefCell::new(rng),
            count: hardware.disks.len(),
            clock,
            jobs: Cell::new(fresh_jobs(&hardware.arena)),
            fuse: Cell::new(None),
            idle: Cell::new(0),
        });
        CURRENT.set(Some(boot.clone()));
        boot
    }

    /// Runs until every disk is connected, or has failed, but no longer than
    /// `limit`; keeps an eye on those that come later.
    fn settle(&self, limit: Duration) {
        let begun = self.now();
        for _ in 0..MOST_PASSES {
            if self.side.is_settled() || self.now().since(begun) >= limit {
                break;
            }
            let _ = self.pass();
        }
        self.tasks.spawn(async {
            let Some(boot) = current() else { return };
            let may = || !boot.undecided.get() && !boot.parked.get();
            boot.disks.tend(may).await;
        });
    }

    /// Switches it off, wherever it is. What it had asked for, its disks may
    /// still do.
    pub fn end(self: Rc<Self>) {
        self.tasks.clear();
        let mut rng = self.rng.borrow_mut();
        self.side.lose_guest(&mut rng);
        CURRENT.set(None);
    }

    /// The jobs.
    pub fn jobs(&self) -> &'static JobState {
        self.jobs.get()
    }

    /// Takes other jobs.
    pub fn replace_jobs(&self, jobs: &'static JobState) {
        self.jobs.set(jobs);
    }

    /// Forgets all jobs and what they had.
    pub fn forget_jobs(&self) {
        self.arena.empty();
        self.jobs.set(fresh_jobs(&self.arena));
    }

    /// Starts the job that writes records to `disk`.
    pub fn start_writer(&self, disk: DiskId) {
        let disk = self.side.present(disk);
        let _in = self.arena.enter();
        let ack = |seq| with_witness(|witness| witness.ack(seq));
        let wrong = |what: String| with_witness(|witness| witness.offend("P1", what));
        let job = writer::write(SimMachine, disk, ack, wrong);
        self.jobs().executor.spawn(job);
    }

    /// Starts the real job that does so, as a person would. `recover`: it
    /// learns from the disk what an earlier one did.
    pub fn start_ledger(&self, disk: DiskId, recover: bool) {
        let disk = self.side.present(disk);
        let _in = self.arena.enter();
        let (size, id) = (writer::LEDGER_SECTORS / 2, writer::LEDGER);
        let line = format!("ledger disk={disk} size={size}K bs=512 qd=4 id={id} reads=20 every=0s");
        let line = match recover {
            true => line,
            false => line + " recover=no",
        };
        let job = async move {
            let shell = Shell::new(SimMachine);
            let _ = shell.run_line(&line).await;
        };
        self.jobs().executor.spawn(job);
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.side.now()
    }

    /// A hash over everything that an image holds.
    pub fn hash(&self) -> u64 {
        let free = self.arena.free_pages();
        let memory = self.arena.region();
        let mut hasher = DefaultHasher::new();
        let mut bytes = vec![0; PAGE];
        for page in 0..memory.page_count() {
            if !free.iter().any(|range| range.contains(&page)) {
                memory.copy_out(page * PAGE, &mut bytes);
                (page, &bytes).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Lets the power fail after so many passes; never, if `None`.
    pub fn set_fuse(&self, passes: Option<u64>) {
        self.fuse.set(passes);
    }

    /// Runs `work` to its end, and everything else meanwhile.
    ///
    /// # Errors
    /// [`Cut`] when the power failed first.
    pub fn run<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> Result<T, Cut> {
        let slot = Rc::new(Cell::new(None));
        let output = slot.clone();
        self.tasks
            .spawn(async move { output.set(Some(work.await)) });
        for _ in 0..MOST_PASSES {
            self.pass()?;
            if let Some(output) = slot.take() {
                return Ok(output);
            }
        }
        let step = self.step.get();
        with_witness(|witness| witness.offend("P5", format!("{step:?} never ends")));
        Err(Cut)
    }

    /// Runs everything for so many passes.
    ///
    /// # Errors
    /// [`Cut`] when the power failed meanwhile.
    pub fn run_for(&self, passes: u64) -> Result<(), Cut> {
        (0..passes).try_for_each(|_| self.pass())
    }

    /// Runs everything for so much of the machine's time.
    ///
    /// # Errors
    /// [`Cut`] when the power failed meanwhile.
    pub fn wait(&self, time: Duration) -> Result<(), Cut> {
        let until = self.now() + time;
        while self.now() < until {
            self.pass()?;
        }
        Ok(())
    }

    /// Runs until a job has a request on the way to a disk.
    ///
    /// # Errors
    /// [`Cut`] when the power failed, or no job ever has.
    pub fn until_busy(&self, disk: DiskId) -> Result<(), Cut> {
        let present = self.side.present(disk);
        let busy = || {
            let mut fronts = self.side.fronts().into_iter();
            fronts.any(|front| front.id == present && front.in_flight > 0)
        };
        for _ in 0..MOST_PASSES {
            if busy() {
                return Ok(());
            }
            self.pass()?;
        }
        Err(Cut)
    }

    /// A rule of the hypervisor that the drivers broke.
    pub fn offence(&self) -> Option<String> {
        self.side.offence()
    }

    fn pass(&self) -> Result<(), Cut> {
        if let Some(left) = self.fuse.get() {
            self.fuse.set(Some(left.checked_sub(1).ok_or(Cut)?));
        }
        let moved = self.side.turn();
        if !self.parked.get() {
            let _in = self.arena.enter();
            let jobs = self.jobs();
            jobs.timers.fire(self.now());
            jobs.executor.poll_ready();
        }
        self.let_time_pass(moved);
        Ok(())
    }

    /// Hands a completion to the job that waits for it.
    pub(crate) fn deliver(&self, completion: Completion) {
        let _in = self.arena.enter();
        if let Err(stray) = self.jobs().channels.deliver(completion) {
            let what = format!("a completion that nobody waits for: {stray:?}");
            with_witness(|witness| witness.offend("driver", what));
        }
    }

    /// Time leaps when nothing moves, to whatever somebody waits for.
    fn let_time_pass(&self, moved: bool) {
        let idle = if moved { 0 } else { self.idle.get() + 1 };
        self.idle.set(idle);
        let mut by = PASS;
        if idle > PATIENCE {
            by = (PASS << (idle - PATIENCE).min(24)).min(LEAP);
            let jobs = self.jobs().timers.next_deadline();
            let jobs = jobs.filter(|_| !self.parked.get());
            let next = [self.side.next_deadline(), jobs];
            let now = self.now();
            let wait = next.into_iter().flatten().min().map(|at| at.since(now));
            if let Some(wait) = wait {
                let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                by = by.min(wait.max(PASS));
            }
        }
        self.side.advance(Duration::from_nanos(by));
        self.clock.set(self.now().as_nanos());
    }

    /// A sequence has ended; unless `open`, gates stay shut. Nothing goes wrong
    /// any more.
    pub fn decided(&self, open: bool) {
        self.mend();
        if open {
            self.witness.borrow_mut().open();
        }
        self.side.keep_shut(!open);
        self.undecided.set(!open);
    }

    /// Whether a disk is there and connected.
    pub fn is_live(&self, disk: DiskId) -> bool {
        self.side.state(self.side.present(disk)) == Some(Lifecycle::Live)
    }
}

/// Has the witness see everything that a disk does.
fn observe(hardware: &Hardware, id: DiskId, disk: &Disk) {
    let (witness, is_data) = (hardware.witness.clone(), id != hardware.image);
    disk.observe(move |disk: &Disk, op: DiskOp| {
        let content = |sector, sectors| disk.content(sector, sectors);
        witness.borrow_mut().did(id, is_data, op, content);
    });
}

fn fresh_jobs(arena: &Arena) -> &'static JobState {
    let _in = arena.enter();
    let jobs = JobState::create();
    arena.set_root(jobs);
    jobs
}

/// Tells this thread's witness something, from inside a job.
fn with_witness(tell: impl FnOnce(&mut Witness)) {
    let _out = crate::memory::Inside::leave();
    if let Some(boot) = current() {
        tell(&mut boot.witness.borrow_mut());
    }
}
