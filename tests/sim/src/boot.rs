//! One boot of a simulated machine: everything that is gone when it ends.

use crate::fault::{Injected, Kind};
use crate::machine::{JobState, SimMachine};
use crate::memory::Arena;
use crate::ram::RamDisk;
use crate::witness::Witness;
use crate::writer;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{DiskId, PAGE, Queue};
use firn_jobs::shell::Shell;
use firn_peers::Disk;
use firn_power::Step;
use firn_task::{Executor, Instant, Timers};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

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
/// Pages that are lent to the image code.
pub const SCRATCH: usize = 640;
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
    /// Which build boots.
    pub build: Cell<&'static str>,
    /// Memory for the image code.
    pub scratch: Rc<Region>,
    /// Who watches.
    pub witness: Rc<RefCell<Witness>>,
}

/// One boot.
pub struct Boot {
    /// Job memory.
    pub arena: Rc<Arena>,
    /// The disks as drivers see them.
    pub disks: RefCell<BTreeMap<DiskId, RamDisk>>,
    /// The image disk.
    pub image: DiskId,
    /// Which build runs.
    pub build: &'static str,
    /// Who watches.
    pub witness: Rc<RefCell<Witness>>,
    /// What waits outside of jobs.
    pub timers: Timers,
    /// Jobs stand still.
    pub parked: Cell<bool>,
    /// Memory for the image code.
    pub scratch: RefCell<Region>,
    /// Whether it has it.
    pub lent: Cell<bool>,
    /// What goes wrong.
    pub injected: Cell<Option<Injected>>,
    /// The step that is being taken.
    pub step: Cell<Option<Step>>,
    /// Every step that was taken.
    pub steps: RefCell<BTreeSet<Step>>,
    /// Random choices of this boot.
    pub rng: RefCell<SmallRng>,
    clock: Rc<Cell<u64>>,
    jobs: Cell<&'static JobState>,
    tasks: Executor,
    fuse: Cell<Option<u64>>,
    idle: Cell<u32>,
}

impl Boot {
    /// Switches a machine on: empty job memory, every disk connected, every
    /// gate shut.
    #[must_use]
    pub fn start(hardware: &Hardware, seed: u64) -> Rc<Self> {
        hardware.witness.borrow_mut().boot();
        hardware.arena.empty();
        let disks = hardware.disks.iter();
        let boot = Rc::new(Self {
            arena: hardware.arena.clone(),
            disks: RefCell::new(disks.map(|(id, d)| (*id, RamDisk::new(*id, d))).collect()),
            image: hardware.image,
            build: hardware.build.get(),
            witness: hardware.witness.clone(),
            timers: Timers::new(),
            parked: Cell::new(true),
            scratch: RefCell::new(hardware.scratch.alias()),
            lent: Cell::new(false),
            injected: Cell::new(None),
            step: Cell::new(None),
            steps: RefCell::default(),
            rng: RefCell::new(SmallRng::seed_from_u64(seed)),
            clock: hardware.clock.clone(),
            jobs: Cell::new(fresh_jobs(&hardware.arena)),
            tasks: Executor::new(),
            fuse: Cell::new(None),
            idle: Cell::new(0),
        });
        CURRENT.set(Some(boot.clone()));
        boot
    }

    /// Switches it off, wherever it is.
    pub fn end(self: Rc<Self>) {
        self.tasks.clear();
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
        let _in = self.arena.enter();
        let ack = |seq| with_witness(|witness| witness.ack(seq));
        let wrong = |what: String| with_witness(|witness| witness.offend("P1", what));
        let job = writer::write(SimMachine, disk, ack, wrong);
        self.jobs().executor.spawn(job);
    }

    /// Starts the real job that does so, as a person would. `recover`: it
    /// learns from the disk what an earlier one did.
    pub fn start_ledger(&self, disk: DiskId, recover: bool) {
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
        Instant::from_nanos(self.clock.get())
    }

    /// What goes wrong in the step that is being taken.
    pub fn trouble(&self) -> Option<Kind> {
        let injected = self.injected.get()?;
        (self.step.get() == Some(injected.step)).then_some(injected.kind)
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

    fn pass(&self) -> Result<(), Cut> {
        if let Some(left) = self.fuse.get() {
            self.fuse.set(Some(left.checked_sub(1).ok_or(Cut)?));
        }
        let moved = self.serve();
        if !self.parked.get() {
            self.reap();
        }
        self.timers.fire(self.now());
        self.tasks.poll_ready();
        if !self.parked.get() {
            let _in = self.arena.enter();
            let jobs = self.jobs();
            jobs.timers.fire(self.now());
            jobs.executor.poll_ready();
        }
        self.let_time_pass(moved);
        Ok(())
    }

    /// Lets some disks carry out some requests.
    fn serve(&self) -> bool {
        let mut moved = false;
        let mut rng = self.rng.borrow_mut();
        for (id, disk) in self.disks.borrow_mut().iter_mut() {
            for _ in 0..rng.random_range(0..3) {
                if let Some(did) = disk.serve(&mut rng) {
                    moved = true;
                    let is_data = *id != self.image;
                    let content = |sector, sectors| disk.content(sector, sectors);
                    self.witness.borrow_mut().did(*id, is_data, did, content);
                }
            }
        }
        moved
    }

    /// Hands completions to the jobs that wait for them.
    pub fn reap(&self) {
        for disk in self.disks.borrow_mut().values_mut() {
            if disk.borrowed == 0 {
                self.reap_disk(disk);
            }
        }
    }

    /// The same for one disk.
    pub fn reap_disk(&self, disk: &mut RamDisk) {
        disk.poll(usize::MAX, &mut |completion| {
            let _in = self.arena.enter();
            let job = self.jobs();
            if let Err(stray) = job.channels.deliver(completion) {
                // Late requests of an image code that gave up.
                drop(stray);
            }
        });
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
            let next = [self.timers.next_deadline(), jobs];
            let now = self.now();
            let wait = next.into_iter().flatten().min().map(|at| at.since(now));
            if let Some(wait) = wait {
                let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
                by = by.min(wait.max(PASS));
            }
        }
        self.clock.set(self.clock.get() + by);
    }

    /// Nothing goes wrong any more: who did not answer does so now, late.
    pub fn mend(&self) {
        self.injected.set(None);
        for disk in self.disks.borrow_mut().values_mut() {
            if disk.mood != Some(Kind::Gone) {
                disk.recover();
            }
        }
    }

    /// Whether a disk is there and connected.
    pub fn is_live(&self, disk: DiskId) -> bool {
        let disks = self.disks.borrow();
        disks
            .get(&disk)
            .is_some_and(|disk| disk.state == Lifecycle::Live)
    }
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
