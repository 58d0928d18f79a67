//! The simulated machine as freeze and restore see it.

use crate::boot::{Boot, SCRATCH};
use crate::fault::Kind;
use crate::machine::JobState;
use crate::ram::{Did, RamDisk};
use firn_block::shm::Region;
use firn_block::{DiskId, IoError, Queue, Request};
use firn_image::{BuildId, Cpu, Gone, Heap};
use firn_jobs::Era;
use firn_peers::memory;
use firn_power::{Disk, Fault, Host, Link, Report, Step, Then};
use firn_task::{Instant, Time, Timers, yield_now};
use std::cell::Cell;
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;

/// A handle to the boot.
#[derive(Clone)]
pub struct SimHost(pub Rc<Boot>);

impl SimHost {
    /// What goes wrong in this step, as the machine would tell it.
    fn check(&self) -> Result<(), Fault> {
        match self.0.trouble() {
            None | Some(Kind::Timeout | Kind::Effect) => Ok(()),
            Some(Kind::NoMemory) => Err(Fault::NoMemory),
            Some(Kind::Gone) => Err(Fault::Gone),
            Some(Kind::Error | Kind::NoSpace) => Err(Fault::Cannot("injected")),
        }
    }

    /// The same for a step that waits.
    async fn waits(&self) -> Result<(), Fault> {
        yield_now().await;
        if self.0.trouble() == Some(Kind::Timeout) {
            std::future::pending::<()>().await;
        }
        self.check()
    }

    fn with<R>(&self, disk: DiskId, work: impl FnOnce(&mut RamDisk) -> R) -> Result<R, Fault> {
        let mut disks = self.0.disks.borrow_mut();
        disks.get_mut(&disk).map(work).ok_or(Fault::Gone)
    }
}

impl SimHost {
    /// Tells the witness what a disk did when its connection ended.
    fn tell(&self, disk: DiskId, all: Vec<Did>) {
        let is_data = disk != self.0.image;
        for did in all {
            let disks = self.0.disks.borrow();
            let content = |sector, sectors| disks[&disk].content(sector, sectors);
            let mut witness = self.0.witness.borrow_mut();
            witness.did(disk, is_data, did, content);
        }
    }
}

impl Time for SimHost {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn timers(&self) -> &Timers {
        &self.0.timers
    }
}

impl Host for SimHost {
    type Device = SimDevice;

    fn disks(&self) -> Vec<Disk> {
        let disks = self.0.disks.borrow();
        let one = |disk: &RamDisk| Disk {
            id: disk.info.id,
            name: disk.info.id,
            state: disk.state,
            info: Some(disk.info.clone()),
            in_use: self.0.jobs().channels.uses(disk.info.id),
        };
        disks.values().map(one).collect()
    }

    fn device(&self, disk: DiskId) -> Result<SimDevice, Fault> {
        if !self.0.is_live(disk) {
            return Err(Fault::Gone);
        }
        self.with(disk, |disk| disk.borrowed += 1)?;
        Ok(SimDevice {
            boot: self.0.clone(),
            disk,
        })
    }

    fn can_freeze(&self, _disk: DiskId) -> Result<(), Fault> {
        Ok(())
    }

    fn reserve(&self) -> Result<(), Fault> {
        self.check()
    }

    async fn park(&self) -> Result<(), Fault> {
        self.waits().await?;
        self.0.parked.set(true);
        Ok(())
    }

    fn unpark(&self) -> Result<(), Fault> {
        self.check()?;
        self.0.parked.set(false);
        self.0.jobs().executor.wake_all();
        Ok(())
    }

    fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        self.with(disk, |disk| disk.open = false)
    }

    fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        if !self.0.is_live(disk) {
            return Err(Fault::Gone);
        }
        self.0.witness.borrow_mut().open();
        self.with(disk, |disk| disk.open = true)
    }

    async fn drain(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        loop {
            let left = self.with(disk, |disk| {
                self.0.reap_disk(disk);
                disk.in_flight()
            })?;
            if left == 0 {
                return Ok(());
            }
            yield_now().await;
        }
    }

    async fn flush(&self, disk: DiskId) -> Result<(), Fault> {
        let sent = self.with(disk, |disk| {
            let sent = disk.submit(Request::flush());
            disk.kick();
            sent
        })?;
        let token = sent.map_err(|refused| Fault::Other(refused.why.to_string()))?;
        let mut token = Some(token);
        let result = Cell::new(None);
        while result.get().is_none() {
            yield_now().await;
            self.with(disk, |disk| {
                disk.poll(1, &mut |completion| {
                    if let Some(ours) = token.take() {
                        token = ours.settle(&completion).err();
                        result.set(Some(completion.result));
                    }
                });
            })?;
        }
        Ok(result.get().unwrap_or(Err(IoError::Gone))?)
    }

    fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        match self.with(disk, |disk| disk.in_flight())? {
            0 => Ok(()),
            _ => Err(Fault::Cannot("requests are in flight")),
        }
    }

    async fn disconnect(&self, disk: DiskId) -> Result<(), Fault> {
        self.waits().await?;
        let mut rng = self.0.rng.borrow_mut();
        let all = self.with(disk, |disk| disk.disconnect(&mut rng))?;
        self.tell(disk, all);
        Ok(())
    }

    async fn connect(&self, disk: DiskId, link: Link) -> Result<(), Fault> {
        self.waits().await?;
        let mut rng = self.0.rng.borrow_mut();
        if self.with(disk, |disk| disk.mood)? == Some(Kind::Gone) {
            return Err(Fault::Gone);
        }
        let all = self.with(disk, |disk| {
            let same = self.0.is_connected(disk, link);
            let all = if same {
                Vec::new()
            } else {
                disk.disconnect(&mut rng)
            };
            disk.connect(link);
            all
        })?;
        self.tell(disk, all);
        Ok(())
    }

    fn memory(&self) -> Region {
        self.0.arena.region()
    }

    fn free_pages(&self) -> Vec<Range<usize>> {
        self.0.arena.free_pages()
    }

    fn machine(&self) -> firn_image::Machine {
        let memory = self.memory();
        firn_image::Machine {
            build: BuildId::from_bytes(self.0.build.as_bytes()),
            heap: Heap {
                address: memory.addr() as u64,
                bytes: memory.len() as u64,
            },
            cpu: Cpu::default(),
            has_key: false,
        }
    }

    fn wall_clock(&self) -> u64 {
        self.now().as_nanos()
    }

    fn salt(&self) -> [u8; 12] {
        use rand::Rng;
        let mut salt = [0; 12];
        self.0.rng.borrow_mut().fill_bytes(&mut salt);
        salt
    }

    fn scratch(&self, _disk: DiskId) -> Result<Region, Fault> {
        if self.0.trouble() == Some(Kind::NoMemory) || self.0.lent.replace(true) {
            return Err(Fault::NoMemory);
        }
        Ok(self.0.scratch.borrow().alias())
    }

    fn scratch_back(&self, _disk: DiskId, free: bool) {
        if !free {
            // What a disk may still have is lost to this boot.
            self.0.scratch.replace(memory::take(SCRATCH));
        }
        self.0.lent.set(false);
    }

    fn adopt(&self) -> Result<(), Fault> {
        self.check()?;
        let adopted = self.0.arena.adopt();
        let jobs: &'static JobState = adopted.map_err(|error| Fault::Other(error.to_string()))?;
        self.0.replace_jobs(jobs);
        let hash = self.0.hash();
        self.0.witness.borrow_mut().adopt(hash);
        let era = jobs.era.get();
        jobs.era.set(Era {
            boot: era.boot + 1,
            restores: era.restores + 1,
            ..era
        });
        Ok(())
    }

    fn empty(&self) {
        self.0.forget_jobs();
    }

    fn bind(&self, _disks: &[(DiskId, DiskId)]) -> Result<(), Fault> {
        self.check()
    }

    fn frozen(&self, _report: &Report) {}

    async fn power_off(&self, _then: Then) -> Result<(), Fault> {
        self.waits().await
    }

    fn enter(&self, step: Step, disk: Option<DiskId>) {
        self.0.take_step(step, disk);
    }
}

impl Boot {
    fn is_connected(&self, disk: &RamDisk, link: Link) -> bool {
        disk.state == firn_block::gate::Lifecycle::Live && disk.link == link
    }

    /// Tells everybody which step comes, and sets the moods of disks.
    fn take_step(&self, step: Step, disk: Option<DiskId>) {
        self.steps.borrow_mut().insert(step);
        self.witness.borrow_mut().step(step, disk, || self.hash());
        let before = self.step.replace(Some(step));
        if before != Some(step)
            && let Some(injected) = self.injected.get()
            && before == Some(injected.step)
            && !injected.always
        {
            self.injected.set(None);
        }
        let trouble = self.trouble();
        for one in self.disks.borrow_mut().values_mut() {
            // Who does not answer stays so until he is connected anew, who has
            // gone until the next boot; other moods pass with their step.
            if !matches!(one.mood, Some(Kind::Timeout | Kind::Gone)) {
                one.recover();
            }
            if Some(one.info.id) == disk && trouble.is_some() {
                one.mood = trouble;
                if trouble == Some(Kind::NoSpace) && matches!(step, Step::Check | Step::Plan) {
                    one.become_small();
                }
                if trouble == Some(Kind::Gone) {
                    one.pull();
                }
            }
        }
    }
}

/// One disk as the image code sees it.
pub struct SimDevice {
    boot: Rc<Boot>,
    disk: DiskId,
}

impl firn_image::Device for SimDevice {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        let mut disks = self.boot.disks.borrow_mut();
        match disks.get_mut(&self.disk) {
            Some(disk) if disk.mood != Some(Kind::Gone) => Ok(work(disk)),
            _ => Err(Gone),
        }
    }

    fn now(&self) -> Instant {
        self.boot.now()
    }

    fn breathe(&self) -> impl Future<Output = ()> {
        yield_now()
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        if let Some(disk) = self.boot.disks.borrow_mut().get_mut(&self.disk) {
            disk.borrowed -= 1;
        }
    }
}
