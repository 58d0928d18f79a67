//! The simulated machine as freeze and restore see it. What is about disks is
//! the kernel's own code, over its own drivers.

use crate::boot::Boot;
use crate::fault::Kind;
use crate::machine::JobState;
use crate::side::SimDrives;
use firn_block::DiskId;
use firn_block::shm::Region;
use firn_image::{BuildId, Cpu, Heap};
use firn_jobs::Era;
use firn_kernel::drives::DriveDevice;
use firn_power::{Disk, Fault, Host, Link, Report, Step, Then};
use firn_task::{Instant, Time, Timers, yield_now};
use std::ops::Range;
use std::rc::Rc;

/// A handle to the boot.
#[derive(Clone)]
pub struct SimHost(pub Rc<Boot>);

impl SimHost {
    /// What goes wrong in this step where no backend has to do with it.
    fn check(&self) -> Result<(), Fault> {
        match self.0.trouble() {
            Some(Kind::NoMemory) => Err(Fault::NoMemory),
            Some(Kind::Error) => Err(Fault::Cannot("injected")),
            _ => Ok(()),
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
}

impl Time for SimHost {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn timers(&self) -> &Timers {
        self.0.side.timers()
    }
}

impl Host for SimHost {
    type Device = DriveDevice<SimDrives>;

    fn disks(&self) -> Vec<Disk> {
        let jobs = self.0.jobs();
        let in_use = |name| jobs.buffers.uses(name) || jobs.channels.uses(name);
        self.0.disks.list(&self.0.names.borrow(), in_use)
    }

    fn unseen(&self) -> Option<&'static str> {
        self.0.disks.unseen()
    }

    fn device(&self, disk: DiskId) -> Result<Self::Device, Fault> {
        self.0.disks.device(disk)
    }

    fn can_freeze(&self, disk: DiskId) -> Result<(), Fault> {
        self.0.disks.can_freeze(disk)
    }

    fn reserve(&self) -> Result<(), Fault> {
        self.check()?;
        self.0.disks.reserve()
    }

    async fn park(&self) -> Result<(), Fault> {
        self.0.side.hold(true);
        self.0.parked.set(true);
        // Jobs stand still; that everybody does is what may not be said.
        self.waits().await
    }

    fn unpark(&self) -> Result<(), Fault> {
        self.check()?;
        self.0.side.hold(false);
        self.0.parked.set(false);
        self.0.jobs().executor.wake_all();
        Ok(())
    }

    fn shut(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        self.0.disks.shut(disk)
    }

    fn open(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        self.0.witness.borrow_mut().open();
        self.0.disks.open(disk)
    }

    async fn drain(&self, disk: DiskId) -> Result<(), Fault> {
        self.0.disks.drain(disk).await
    }

    async fn flush(&self, disk: DiskId) -> Result<(), Fault> {
        self.0.disks.flush(disk).await
    }

    fn idle(&self, disk: DiskId) -> Result<(), Fault> {
        self.check()?;
        self.0.disks.idle(disk)
    }

    async fn disconnect(&self, disk: DiskId) -> Result<(), Fault> {
        self.0.disks.disconnect(disk).await
    }

    async fn connect(&self, disk: DiskId, link: Link) -> Result<(), Fault> {
        self.0.disks.connect(disk, link).await
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

    fn scratch(&self, disk: DiskId) -> Result<Region, Fault> {
        match self.0.trouble() {
            Some(Kind::NoMemory) => Err(Fault::NoMemory),
            _ => self.0.disks.scratch(disk),
        }
    }

    fn scratch_back(&self, disk: DiskId, free: bool) {
        self.0.disks.scratch_back(disk, free);
    }

    fn adopt(&self) -> Result<(), Fault> {
        self.check()?;
        let adopted = self.0.arena.adopt();
        let jobs: &'static JobState = adopted.map_err(|error| Fault::Other(error.to_string()))?;
        self.0.replace_jobs(jobs);
        let hash = self.0.hash();
        self.0.witness.borrow_mut().adopt(hash);
        for parked in jobs.buffers.take_parked() {
            self.0.arena.free(&parked);
        }
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
        self.0.names.borrow_mut().bind(&[]);
    }

    fn bind(&self, disks: &[(DiskId, DiskId)]) -> Result<(), Fault> {
        self.check()?;
        self.0.disks.bind(&self.0.jobs().buffers, disks)?;
        self.0.names.borrow_mut().bind(disks);
        Ok(())
    }

    fn frozen(&self, _report: &Report) {}

    async fn power_off(&self, _then: Then) -> Result<(), Fault> {
        self.waits().await
    }

    fn enter(&self, step: Step, disk: Option<DiskId>) {
        self.0.take_step(step, disk);
    }
}
