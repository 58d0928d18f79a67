//! The machine as the sequences of `firn-power` see it.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::pin::Pin;

use firn_block::DiskId;
use firn_block::shm::Region;
use firn_image::{BuildId, Cpu, Heap, Key, Machine};
use firn_jobs::PowerRefusal;
use firn_power::{Disk, Fault, Host, Limits, Link, Report, Step, Then};
use firn_task::{Instant, Time, Timers};

use super::Audit;
use super::marks::Marks;
use super::{Disks, Stop, Working, stop};
use crate::arch::{self, cpu};
use crate::drives::DriveDevice;
use crate::exec::MainLoop;
use crate::host::KernelDrives;
use crate::mm;

/// Runs of free pages that are left out of an image, at most.
const FREE_RUNS: usize = 4096;

/// What the power code keeps between two sequences.
pub(crate) struct PowerState {
    pub(super) disks: Disks<KernelDrives>,
    /// As the command line says.
    pub(super) configured: Cell<Limits>,
    /// The key of sealed images.
    pub(super) key: RefCell<Option<Key>>,
    /// Disks that a refused boot could not decide about.
    pub(super) undecided: RefCell<Vec<DiskId>>,
    /// A boot was refused: disks stay shut until somebody goes on cold.
    pub(super) guarded: Cell<bool>,
    pub(super) marks: Marks,
    /// What the audit of the present freeze found.
    pub(super) audit: RefCell<Option<Audit>>,
    /// The memory hash of the last adoption, if it was asked for.
    pub(super) adopted_hash: Cell<Option<u64>>,
    /// Jobs of this boot run, or ran: job memory is not emptied any more.
    pub(super) inhabited: Cell<bool>,
}

impl PowerState {
    /// Of a machine with these disks.
    pub(crate) fn new(disks: Disks<KernelDrives>) -> Self {
        Self {
            disks,
            configured: Cell::default(),
            key: RefCell::default(),
            undecided: RefCell::default(),
            guarded: Cell::default(),
            marks: Marks::default(),
            audit: RefCell::default(),
            adopted_hash: Cell::default(),
            inhabited: Cell::default(),
        }
    }
}

/// A handle to the machine.
#[derive(Clone, Copy)]
pub(crate) struct KernelHost {
    pub(super) main_loop: &'static MainLoop,
}

impl KernelHost {
    pub(crate) fn new(main_loop: &'static MainLoop) -> Self {
        Self { main_loop }
    }

    pub(super) fn state(&self) -> &'static PowerState {
        &self.main_loop.power
    }

    /// Begins a sequence, unless one is at work.
    pub(super) fn begin(&self) -> Result<Working<'static, KernelDrives>, PowerRefusal> {
        let working = self.state().disks.begin().ok_or_else(|| PowerRefusal {
            error: "busy",
            what: "a freeze, a suspend or work on an image disk is under way".into(),
            place: "kernel".into(),
            hint: "ask again when it has ended".into(),
        })?;
        self.state().marks.clear();
        Ok(working)
    }

    /// Opens disks that connected after the boot had decided, as they were told
    /// to stay shut until then, and brings back what a sequence could not. Not
    /// while something is under way, or undecided.
    pub(super) async fn tend_disks(self) {
        let state = self.state();
        let undecided = || state.guarded.get() || self.main_loop.is_parked();
        state.disks.tend(|| !undecided()).await;
    }

    fn all_disks(&self) -> &'static Disks<KernelDrives> {
        &self.state().disks
    }

    /// Job memory as a freeze would save it, and the pages of it that hold
    /// nothing.
    pub(super) fn saved_memory(&self) -> (Region, Vec<Range<usize>>) {
        let mut free = Vec::with_capacity(FREE_RUNS);
        mm::free_job_memory(&mut free);
        (mm::job_heap(), free)
    }

    /// The hash over job memory as it is now.
    pub(crate) fn memory_hash(&self) -> firn_jobs::MemoryHash {
        let (memory, free) = self.saved_memory();
        super::memory_hash(&memory, &free)
    }
}

/// A step behind a pointer: the sequences name it in many places, and each of them
/// would have all of its code.
fn once<'a>(
    step: impl Future<Output = Result<(), Fault>> + 'a,
) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + 'a>> {
    Box::pin(step)
}

impl Time for KernelHost {
    fn now(&self) -> Instant {
        self.main_loop.platform.now()
    }

    fn timers(&self) -> &Timers {
        self.main_loop.platform.timers()
    }
}

impl Host for KernelHost {
    type Device = DriveDevice<KernelDrives>;

    fn disks(&self) -> Vec<Disk> {
        let jobs = self.main_loop.jobs();
        let in_use = |name| jobs.buffers.uses(name) || jobs.channels.uses(name);
        self.all_disks()
            .list(&self.main_loop.names.borrow(), in_use)
    }

    fn unseen(&self) -> Option<&'static str> {
        self.all_disks().unseen()
    }

    fn device(&self, disk: DiskId) -> Result<Self::Device, Fault> {
        self.all_disks().device(disk)
    }

    fn can_freeze(&self, disk: DiskId) -> Result<(), Fault> {
        self.all_disks().can_freeze(disk)
    }

    fn reserve(&self) -> Result<(), Fault> {
        self.all_disks().reserve()
    }

    async fn park(&self) -> Result<(), Fault> {
        self.main_loop.platform.hold_devices(true);
        self.main_loop.park();
        if self.main_loop.jobs().audit_wanted.get() {
            *self.state().audit.borrow_mut() = Some(self.audit());
        }
        Ok(())
    }

    fn unpark(&self) -> Result<(), Fault> {
        self.main_loop.platform.hold_devices(false);
        self.state().inhabited.set(true);
        self.main_loop.unpark();
        Ok(())
    }

    fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.all_disks().shut(disk)
    }

    fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.all_disks().open(disk)
    }

    fn drain(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>> {
        once(self.all_disks().drain(disk))
    }

    fn flush(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>> {
        once(self.all_disks().flush(disk))
    }

    fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.all_disks().idle(disk)
    }

    fn disconnect(&self, disk: DiskId) -> impl Future<Output = Result<(), Fault>> {
        once(self.all_disks().disconnect(disk))
    }

    fn connect(&self, disk: DiskId, link: Link) -> impl Future<Output = Result<(), Fault>> {
        once(self.all_disks().connect(disk, link))
    }

    fn memory(&self) -> Region {
        mm::job_memory()
    }

    fn free_pages(&self) -> Vec<Range<usize>> {
        self.saved_memory().1
    }

    fn machine(&self) -> Machine {
        let memory = self.memory();
        Machine {
            build: BuildId::from_bytes(arch::build_id().bytes()),
            heap: Heap {
                address: memory.addr() as u64,
                bytes: memory.len() as u64,
            },
            cpu: Cpu(cpu::features()),
            has_key: false,
        }
    }

    fn wall_clock(&self) -> u64 {
        self.main_loop.platform.wall_clock()
    }

    fn salt(&self) -> [u8; 12] {
        let mut salt = [0; 12];
        let words = [cpu::random(), cpu::random()];
        let bytes = words.map(u64::to_le_bytes);
        salt.copy_from_slice(&bytes.as_flattened()[..12]);
        salt
    }

    fn scratch(&self, disk: DiskId) -> Result<Region, Fault> {
        self.all_disks().scratch(disk)
    }

    fn scratch_back(&self, disk: DiskId, free: bool) {
        self.all_disks().scratch_back(disk, free);
    }

    fn adopt(&self) -> Result<(), Fault> {
        let jobs = mm::adopt_job_memory().map_err(|error| Fault::Other(format!("{error}")))?;
        let state = self.state();
        state.adopted_hash.set(None);
        self.main_loop.replace_jobs(jobs);
        if jobs.audit_wanted.get() {
            let hash = self.memory_hash();
            state.adopted_hash.set(Some(hash.hash));
        }
        mm::grow_job_memory();
        for parked in jobs.buffers.take_parked() {
            mm::free_job_pages(parked);
        }
        let mut era = jobs.era.get();
        era.boot = cpu::random();
        era.restores = era.restores.wrapping_add(1);
        jobs.era.set(era);
        Ok(())
    }

    fn empty(&self) {
        // The shell in which somebody decides to go on cold lives there.
        if !self.state().inhabited.get() {
            self.main_loop.empty_jobs();
            // Nobody is left who knows the disks by the names of before.
            self.main_loop.names.borrow_mut().bind(&[]);
        }
    }

    fn bind(&self, disks: &[(DiskId, DiskId)]) -> Result<(), Fault> {
        let buffers = &self.main_loop.jobs().buffers;
        self.all_disks().bind(buffers, disks)?;
        self.main_loop.names.borrow_mut().bind(disks);
        Ok(())
    }

    fn frozen(&self, report: &Report) {
        super::events::frozen(self, report);
    }

    fn power_off(&self, then: Then) -> impl Future<Output = Result<(), Fault>> {
        let platform = self.main_loop.platform;
        once(async move {
            platform.leave().await?;
            stop(match then {
                Then::Reboot => Stop::Reboot,
                Then::PowerOff | Then::Thaw => Stop::PowerOff,
            })
        })
    }

    fn enter(&self, step: Step, disk: Option<DiskId>) {
        let now = self.now();
        self.state().marks.enter(step, now);
        match disk {
            Some(disk) => log::debug!("{step} {disk}"),
            None => log::debug!("{step}"),
        }
    }
}
