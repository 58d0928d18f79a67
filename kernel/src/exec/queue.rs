//! A disk's queue as jobs call it: what drivers allocate is boot memory.

use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskId, DiskInfo, Queue, Refused, RegisterError, Request, Stats,
    Token, Unregistered,
};

use super::Registry;
use crate::mm::Memory;

/// Where allocations go, and how to have them go elsewhere for a while.
pub trait Rooms {
    /// While it lives, they go where it says.
    type Guard;

    /// Lets them go to a memory.
    fn enter(&self, memory: Memory) -> Self::Guard;

    /// Where they go now.
    fn running(&self) -> Memory;
}

/// Runs every call of a driver in boot memory, and what a driver calls back in
/// the memory of the caller. Keeps the registry of the jobs' buffers.
pub struct BootQueue<'a, R: Rooms> {
    /// The driver's.
    pub queue: &'a mut dyn Queue,
    /// The jobs' buffers.
    pub buffers: &'a Registry,
    /// The disk's name among jobs.
    pub disk: DiskId,
    /// The machine's memories.
    pub rooms: R,
}

impl<R: Rooms> BootQueue<'_, R> {
    fn note(&self, buffer: &Buffer) {
        let _job = self.rooms.enter(Memory::Job);
        self.buffers.add(self.disk, buffer);
    }
}

impl<R: Rooms> Queue for BootQueue<'_, R> {
    fn info(&self) -> &DiskInfo {
        self.queue.info()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        let registered = {
            let _boot = self.rooms.enter(Memory::Boot);
            self.queue.register(region)
        };
        registered.inspect(|buffer| self.note(buffer))
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        let addr = buffer.region().addr();
        let outcome = {
            let _boot = self.rooms.enter(Memory::Boot);
            self.queue.unregister(buffer)
        };
        self.buffers.give_back(addr, &outcome);
        outcome
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        let reused = {
            let _boot = self.rooms.enter(Memory::Boot);
            self.queue.reuse(pages)
        };
        reused.inspect(|buffer| self.note(buffer))
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        let _boot = self.rooms.enter(Memory::Boot);
        self.queue.submit(request)
    }

    fn kick(&mut self) {
        let _boot = self.rooms.enter(Memory::Boot);
        self.queue.kick();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let caller = self.rooms.running();
        let _boot = self.rooms.enter(Memory::Boot);
        let rooms = &self.rooms;
        self.queue.poll(budget, &mut |completion| {
            let _caller = rooms.enter(caller);
            done(completion);
        })
    }

    fn arm(&mut self) -> Armed {
        let _boot = self.rooms.enter(Memory::Boot);
        self.queue.arm()
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn stats(&self) -> &Stats {
        self.queue.stats()
    }
}
