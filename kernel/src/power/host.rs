//! The machine as the sequences of `firn-power` see it.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;

use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{DiskId, Queue};
use firn_image::{BuildId, Cpu, Heap, Key, Machine};
use firn_jobs::PowerRefusal;
use firn_power::{Disk, Fault, Host, Limits, Link, Report, Step, Then};
use firn_task::{Instant, Time, Timers};
use firn_xen::Hal;
use firn_xen::blkfront::{Adopted, StepError, Terms, Vbd, WhyNot};

use super::Audit;
use super::device::KernelDevice;
use super::marks::Marks;
use super::scratch::Scratch;
use super::{Stop, stop};
use crate::arch::{self, cpu};
use crate::exec::MainLoop;
use crate::host::xen::{self, XenHal};
use crate::mm;

/// Runs of free pages that are left out of an image, at most.
const FREE_RUNS: usize = 4096;

/// What the power code keeps between two sequences.
#[derive(Default)]
pub(crate) struct PowerState {
    scratch: Scratch,
    /// Disks that are connected for the image.
    image_links: RefCell<Vec<DiskId>>,
    /// As the command line says.
    pub(super) configured: Cell<Limits>,
    /// Of the present sequence.
    pub(super) limits: Cell<Limits>,
    /// The key of sealed images.
    pub(super) key: RefCell<Option<Key>>,
    /// Disks that a refused boot could not decide about.
    pub(super) undecided: RefCell<Vec<DiskId>>,
    /// A boot was refused: disks stay shut until somebody goes on cold.
    pub(super) guarded: Cell<bool>,
    /// A sequence is at work: there is one at a time.
    working: Cell<bool>,
    pub(super) marks: Marks,
    /// What the audit of the present freeze found.
    pub(super) audit: RefCell<Option<Audit>>,
    /// The memory hash of the last adoption, if it was asked for.
    pub(super) adopted_hash: Cell<Option<u64>>,
    /// Jobs of this boot run, or ran: job memory is not emptied any more.
    pub(super) inhabited: Cell<bool>,
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
    pub(super) fn begin(&self) -> Result<Working, PowerRefusal> {
        if self.state().working.replace(true) {
            return Err(PowerRefusal {
                error: "busy",
                what: "a freeze, a suspend or work on an image disk is under way".into(),
                place: "kernel".into(),
                hint: "ask again when it has ended".into(),
            });
        }
        self.state().marks.clear();
        Ok(Working(self.state()))
    }

    /// Opens disks that connected after the boot had decided: they were told to
    /// stay shut until then. Not while something is under way, or undecided.
    pub(super) async fn open_late_disks(self) {
        let bus = &self.main_loop.bus;
        loop {
            let seen = bus.changed().seen();
            let state = self.state();
            let shut = state.working.get() || state.guarded.get() || self.main_loop.is_parked();
            if !shut {
                bus.for_each(|vbd| {
                    if vbd.state() == Lifecycle::Freezing
                        && let Err(error) = vbd.open()
                    {
                        log::debug!("{error}");
                    }
                });
            }
            bus.changed().changed(seen).await;
        }
    }

    fn vbd(&self, disk: DiskId) -> Result<Rc<Vbd<XenHal>>, Fault> {
        self.main_loop.bus.find(disk).ok_or(Fault::Gone)
    }

    /// When a step that begins now should be given up: a little before the
    /// sequence does, so that the disk itself says what it waited for.
    fn until(&self, step: Step) -> Instant {
        let limits = self.state().limits.get();
        let limit = match step {
            Step::Drain => limits.drain,
            _ => limits.step,
        };
        self.now() + limit * 9 / 10
    }

    fn is_image_link(&self, disk: DiskId) -> bool {
        self.state().image_links.borrow().contains(&disk)
    }

    fn note_link(&self, disk: DiskId, link: Link) {
        let mut links = self.state().image_links.borrow_mut();
        links.retain(|link| *link != disk);
        if link == Link::Image {
            links.push(disk);
        }
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

/// A sequence is at work until this is dropped.
pub(super) struct Working(&'static PowerState);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.set(false);
    }
}

impl Time for KernelHost {
    fn now(&self) -> Instant {
        self.main_loop.xen.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.main_loop.xen.timers
    }
}

impl Host for KernelHost {
    type Device = KernelDevice;

    fn disks(&self) -> Vec<Disk> {
        let names = self.main_loop.names.borrow();
        let jobs = self.main_loop.jobs();
        let disk = |vbd: &Rc<Vbd<XenHal>>| {
            let (id, state) = (vbd.id(), vbd.state());
            let name = names.to_job(id);
            let connected = matches!(state, Lifecycle::Live | Lifecycle::Freezing);
            Disk {
                id,
                name,
                state,
                info: connected.then(|| vbd.front.borrow().info().clone()),
                in_use: jobs.buffers.uses(name) || jobs.channels.uses(name),
            }
        };
        let mut disks: Vec<_> = self.main_loop.bus.vbds().iter().map(disk).collect();
        disks.sort_by_key(|disk| disk.id);
        disks
    }

    fn device(&self, disk: DiskId) -> Result<KernelDevice, Fault> {
        let vbd = self.vbd(disk)?;
        match vbd.state() {
            Lifecycle::Live | Lifecycle::Freezing => Ok(KernelDevice::new(self.main_loop, vbd)),
            _ => Err(Fault::Gone),
        }
    }

    fn can_freeze(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.ask().map_err(fault)
    }

    fn reserve(&self) -> Result<(), Fault> {
        let scratch = &self.state().scratch;
        // What is not there now is there once the data disks are disconnected.
        match scratch.reserve() {
            Err(_) if self.main_loop.bus.vbds().len() > 1 => Ok(()),
            result => result,
        }
    }

    async fn park(&self) -> Result<(), Fault> {
        self.main_loop.bus.freeze();
        self.main_loop.park();
        if self.main_loop.jobs().audit_wanted.get() {
            *self.state().audit.borrow_mut() = Some(self.audit());
        }
        Ok(())
    }

    fn unpark(&self) -> Result<(), Fault> {
        self.main_loop.bus.thaw();
        self.state().inhabited.set(true);
        self.main_loop.unpark();
        Ok(())
    }

    fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.shut().map_err(fault)
    }

    fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.open().map_err(fault)
    }

    async fn drain(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        // What a job submitted and did not show the host before it was parked.
        vbd.front.borrow_mut().kick();
        vbd.drain(self.until(Step::Drain)).await.map_err(fault)
    }

    async fn flush(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        vbd.flush(self.until(Step::Flush)).await.map_err(fault)
    }

    fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.vbd(disk)?.check_idle().map_err(fault)
    }

    async fn disconnect(&self, disk: DiskId) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        if vbd.state() == Lifecycle::Frozen {
            return Ok(());
        }
        let until = self.until(Step::Disconnect);
        vbd.disconnect(until).await.map_err(fault)?;
        let state = self.state();
        state.image_links.borrow_mut().retain(|link| *link != disk);
        state.scratch.disconnected(disk);
        Ok(())
    }

    async fn connect(&self, disk: DiskId, link: Link) -> Result<(), Fault> {
        let vbd = self.vbd(disk)?;
        let terms = match link {
            Link::Ordinary => Terms::Ordinary,
            Link::Image => Terms::Image,
        };
        self.note_link(disk, link);
        if link == Link::Image {
            // Before the ring: that can be small, this cannot.
            self.state().scratch.reserve()?;
        }
        let until = self.until(Step::Reconnect);
        vbd.connect(terms, until).await.map_err(fault)
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
        xen::wall_clock(self.main_loop.xen.events.shared_info())
    }

    fn salt(&self) -> [u8; 12] {
        let mut salt = [0; 12];
        let words = [cpu::random(), cpu::random()];
        let bytes = words.map(u64::to_le_bytes);
        salt.copy_from_slice(&bytes.as_flattened()[..12]);
        salt
    }

    fn scratch(&self, disk: DiskId) -> Result<Region, Fault> {
        match self.is_image_link(disk) {
            true => self.state().scratch.for_image(disk),
            false => self.state().scratch.for_look(disk),
        }
    }

    fn scratch_back(&self, disk: DiskId, free: bool) {
        self.state().scratch.give_back(disk, free);
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
        }
    }

    fn bind(&self, disks: &[(DiskId, DiskId)]) -> Result<(), Fault> {
        let jobs = self.main_loop.jobs();
        for (saved, present) in disks {
            let vbd = self.vbd(*present)?;
            let mut buffers = Vec::new();
            let mut queue = None;
            jobs.buffers.for_each(|r| {
                if r.disk == *saved {
                    queue = Some(r.queue);
                    buffers.push(Adopted {
                        index: r.index,
                        region: r.memory.alias(),
                        parked: false,
                    });
                }
            });
            let Some(queue) = queue else { continue };
            let adopted = vbd.front.borrow_mut().adopt(queue, 0, buffers);
            adopted.map_err(|error| Fault::Other(format!("{present}: {error}")))?;
        }
        self.main_loop.names.borrow_mut().bind(disks);
        Ok(())
    }

    fn frozen(&self, report: &Report) {
        super::events::frozen(self, report);
    }

    async fn power_off(&self, then: Then) -> Result<(), Fault> {
        stop(match then {
            Then::Reboot => Stop::Reboot,
            Then::PowerOff | Then::Thaw => Stop::PowerOff,
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

fn fault(error: StepError) -> Fault {
    log::warn!("{error}");
    match error.why {
        WhyNot::Deadline { .. } => Fault::Timeout,
        WhyNot::Io(error) => error.into(),
        WhyNot::NoFlush => Fault::Cannot(
            "its backend offers no flush: what was written is not known to be durable",
        ),
        WhyNot::Removed => Fault::Gone,
        why => Fault::Other(format!("{why}")),
    }
}
