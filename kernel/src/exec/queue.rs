//! A disk's queue as jobs call it: what drivers allocate is boot memory.

use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskInfo, Queue, Refused, RegisterError, Request, Stats, Token,
    Unregistered,
};

use crate::mm::{self, Memory};

/// Runs every call of a driver in boot memory, and what a driver calls back in
/// the memory of the caller.
pub(super) struct BootQueue<'a>(pub(super) &'a mut dyn Queue);

impl Queue for BootQueue<'_> {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        let _boot = mm::enter(Memory::Boot);
        self.0.register(region)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        let _boot = mm::enter(Memory::Boot);
        self.0.unregister(buffer)
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        let _boot = mm::enter(Memory::Boot);
        self.0.reuse(pages)
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        let _boot = mm::enter(Memory::Boot);
        self.0.submit(request)
    }

    fn kick(&mut self) {
        let _boot = mm::enter(Memory::Boot);
        self.0.kick();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let caller = mm::running();
        let _boot = mm::enter(Memory::Boot);
        self.0.poll(budget, &mut |completion| {
            let _caller = mm::enter(caller);
            done(completion);
        })
    }

    fn arm(&mut self) -> Armed {
        let _boot = mm::enter(Memory::Boot);
        self.0.arm()
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn stats(&self) -> &Stats {
        self.0.stats()
    }
}
