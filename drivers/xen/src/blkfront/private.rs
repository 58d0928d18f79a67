//! The kernel's own way into a disk that is shut to jobs.

use super::front::Front;
use crate::hal::Hal;
use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskInfo, Owner, Queue, Refused, RegisterError, Request, Stats,
    Token, Unregistered,
};

/// A disk's queue as the kernel uses it for itself: to flush before a
/// disconnect, and to write or read an image.
///
/// It accepts requests while the gate is shut to jobs
/// ([`Lifecycle::Freezing`](firn_block::gate::Lifecycle::Freezing)), and its
/// completions are its own: the main loop's [`Queue::poll`] does not see them,
/// and [`Queue::in_flight`] counts them alone. Made by [`Front::private`]; it
/// keeps nothing of its own, so making one for each call is the way to use it.
pub struct PrivateQueue<'a, H: Hal>(&'a mut Front<H>);

impl<H: Hal> Front<H> {
    /// The kernel's own way in.
    pub const fn private(&mut self) -> PrivateQueue<'_, H> {
        PrivateQueue(self)
    }
}

impl<H: Hal> PrivateQueue<'_, H> {
    /// Requests that the backend has not answered: it may still read or write
    /// their memory.
    pub fn unanswered(&mut self) -> usize {
        self.0.reap(usize::MAX);
        self.0.accepted.unended(Owner::Kernel)
    }
}

impl<H: Hal> Queue for PrivateQueue<'_, H> {
    fn info(&self) -> &DiskInfo {
        self.0.info()
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        self.0.register_for(region, Owner::Kernel)
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        self.0.unregister(buffer)
    }

    fn reuse(&mut self, pages: usize) -> Option<Buffer> {
        self.0.reuse_for(pages, Owner::Kernel)
    }

    fn keeps_mapped(&self) -> bool {
        self.0.keeps_grants().is_some()
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        self.0.accept(request, Owner::Kernel)
    }

    fn kick(&mut self) {
        self.0.kick();
    }

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        self.0.reap(budget);
        self.0.accepted.deliver(Owner::Kernel, budget, done)
    }

    fn arm(&mut self) -> Armed {
        if self.0.accepted.completions(Owner::Kernel) == 0 {
            self.0.arm_ring()
        } else {
            Armed::Poll
        }
    }

    fn in_flight(&self) -> usize {
        self.0.accepted.in_flight(Owner::Kernel)
    }

    fn stats(&self) -> &Stats {
        self.0.stats()
    }
}
