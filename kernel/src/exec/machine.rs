//! The machine as jobs see it.

mod answer;
mod input;
mod report;
mod store;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::task::{Context, Poll};

use firn_block::shm::Region;
use firn_block::{DiskId, Queue};
use firn_jobs::io::ChannelTable;
use firn_jobs::{
    Counters, DiskReport, Era, JobFuture, Machine, MemoryHash, Mode, Power, PowerAsk, PowerFuture,
    Report, StoreAsk, StoreFuture,
};
use firn_task::{Instant, Time, Timers, sort_few};

use super::main_loop::{self, MainLoop};
use super::queue::{BootQueue, Rooms};
use crate::arch::{cpu, hypercall};
use crate::clock;
use crate::console::{self, Console};
use crate::mm::{self, Memory};
use crate::power::{self, KernelHost, Stop};

use answer::Answer;
pub(super) use input::Input;

/// A handle without fields: it points at nothing, so that jobs may keep it in
/// their saved state.
#[derive(Clone, Copy, Debug)]
pub struct KernelMachine;

/// The kernel's two memories.
struct KernelRooms;

impl Rooms for KernelRooms {
    type Guard = mm::Running<'static>;

    fn enter(&self, memory: Memory) -> Self::Guard {
        mm::enter(memory)
    }

    fn running(&self) -> Memory {
        mm::running()
    }
}

impl KernelMachine {
    fn main_loop(self) -> &'static MainLoop {
        main_loop::get()
    }
}

impl Time for KernelMachine {
    fn now(&self) -> Instant {
        self.main_loop()
            .job_time(Instant::from_nanos(clock::now_ns()))
    }

    fn timers(&self) -> &Timers {
        &self.main_loop().jobs().timers
    }
}

impl Machine for KernelMachine {
    fn print(&self, text: fmt::Arguments<'_>) {
        let _boot = mm::enter(Memory::Boot);
        // Console writes do not fail; what the host does not read is dropped.
        let _ = Console.write_fmt(text);
        console::relieve();
    }

    fn poll_input(&self, context: &mut Context<'_>) -> Poll<u8> {
        let _boot = mm::enter(Memory::Boot);
        let main_loop = self.main_loop();
        main_loop.input.poll(main_loop.platform, context)
    }

    fn disks(&self) -> Vec<DiskReport> {
        let found = {
            let _boot = mm::enter(Memory::Boot);
            self.main_loop().platform.reports()
        };
        let names = self.main_loop().names.borrow();
        let mut reports: Vec<_> = found
            .iter()
            .map(|report| disk_report(report, names.to_job(report.id)))
            .collect();
        sort_few(&mut reports, |report| report.id);
        reports
    }

    fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        let main_loop = self.main_loop();
        let present = main_loop.names.borrow().to_boot(disk);
        main_loop
            .platform
            .with_queue(present, value, |queue, value| {
                let mut queue = BootQueue {
                    queue,
                    buffers: &main_loop.jobs().buffers,
                    disk,
                    rooms: KernelRooms,
                };
                work(&mut queue, value)
            })
    }

    fn channels(&self) -> &ChannelTable {
        &self.main_loop().jobs().channels
    }

    fn mode(&self, disk: DiskId) -> Mode {
        match self.main_loop().jobs().polled.borrow().contains_key(&disk) {
            true => Mode::Poll,
            false => Mode::Event,
        }
    }

    fn set_mode(&self, disk: DiskId, mode: Mode) {
        let _boot = mm::enter(Memory::Boot);
        self.main_loop().set_polled(disk, mode == Mode::Poll);
    }

    fn alloc_pages(&self, count: usize) -> Option<Region> {
        mm::allocate_job_pages(count)
    }

    fn free_pages(&self, region: Region) {
        mm::free_job_pages(region);
    }

    fn counters(&self) -> Counters {
        let allocations = |memory| mm::counts(memory).allocations;
        Counters {
            cycles: cpu::tsc(),
            halted: self.main_loop().halted().as_nanos() as u64,
            hypercalls: hypercall::count(),
            events: self.main_loop().platform.events(),
            allocations: allocations(Memory::Boot) + allocations(Memory::Job),
        }
    }

    fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
        report::write(self.main_loop(), report, line);
    }

    fn store(&self, ask: StoreAsk) -> StoreFuture {
        store::ask(self.main_loop(), ask)
    }

    fn power(&self, power: Power) -> Result<(), String> {
        power::stop(match power {
            Power::Off => Stop::PowerOff,
            Power::Reboot => Stop::Reboot,
            Power::Crash => Stop::Crash,
        })
    }

    fn ask_power(&self, ask: PowerAsk) -> PowerFuture {
        let answer = Answer::of(|| &main_loop::get().jobs().power);
        let id = answer.id();
        {
            let _boot = mm::enter(Memory::Boot);
            let main_loop = self.main_loop();
            let host = KernelHost::new(main_loop);
            main_loop.drivers().spawn(host.answer(id, ask));
        }
        Box::pin(answer)
    }

    fn memory_hash(&self) -> MemoryHash {
        let _boot = mm::enter(Memory::Boot);
        KernelHost::new(self.main_loop()).memory_hash()
    }

    fn era(&self) -> Era {
        self.main_loop().jobs().era.get()
    }

    fn spawn(&self, job: JobFuture) {
        let _job = mm::enter(Memory::Job);
        self.main_loop().jobs().executor.spawn(job);
    }
}

/// A disk under the name that jobs know, in their memory.
fn disk_report(report: &DiskReport, name: DiskId) -> DiskReport {
    let mut copy = DiskReport {
        id: name,
        features: String::from(report.features.as_str()),
        ..report.clone()
    };
    if let Some(info) = &mut copy.info {
        info.id = name;
    }
    copy
}
