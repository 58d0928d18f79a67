//! Whole requests in one call, for tests that are about something else.

use crate::blkback::Config;
use crate::world::World;
use firn_block::{Completion, IoError, Op, Queue, Request, Unregistered, Why};

/// Sectors of the disks that most tests use: 8 MiB.
pub const SECTORS: u64 = 1 << 14;

/// Everything that a queue has completed.
#[must_use]
pub fn completions(queue: &mut dyn Queue) -> Vec<Completion> {
    let mut done = Vec::new();
    queue.poll(usize::MAX, &mut |completion| done.push(completion));
    done
}

/// Bytes that differ from place to place and from seed to seed.
#[must_use]
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A guest with one live disk of [`SECTORS`] sectors.
///
/// # Panics
/// When the disk does not connect.
#[must_use]
pub fn live(config: Config) -> World {
    let world = World::with_disk(config, SECTORS);
    assert!(world.is_live(0), "{:?}", world.report(0));
    world
}

impl World {
    /// Writes bytes from a sector on.
    ///
    /// # Errors
    /// How the request ended.
    ///
    /// # Panics
    /// When it is refused.
    pub fn write(&mut self, index: u32, sector: u64, data: &[u8]) -> Result<(), IoError> {
        let buffer = self.buffer(index, data.len().div_ceil(4096));
        buffer.region().copy_in(0, data);
        let request = Request::data(Op::Write, sector, buffer, data.len());
        self.run(index, request).map(drop)
    }

    /// Reads bytes from a sector on.
    ///
    /// # Errors
    /// How the request ended.
    ///
    /// # Panics
    /// When it is refused.
    pub fn read(&mut self, index: u32, sector: u64, bytes: usize) -> Result<Vec<u8>, IoError> {
        let buffer = self.buffer(index, bytes.div_ceil(4096));
        self.run(index, Request::data(Op::Read, sector, buffer, bytes))
    }

    /// Runs a request; the bytes of its buffer, which is given up after.
    fn run(&mut self, index: u32, request: Request) -> Result<Vec<u8>, IoError> {
        let done = self.io(index, request);
        let done = done.unwrap_or_else(|refused| panic!("refused: {}", refused.why));
        let mut data = Vec::new();
        if let Some(buffer) = done.request.buffer {
            data.resize(usize::try_from(done.request.sectors).unwrap_or(0) * 512, 0);
            buffer.region().copy_out(0, &mut data);
            let vbd = self.vbd(index);
            let freed = vbd.front.borrow_mut().unregister(buffer);
            if let Unregistered::Free(region) = freed {
                firn_xen::Hal::free_shared(&self.machine, region);
            }
        }
        done.result.map(|()| data)
    }

    /// Flushes.
    ///
    /// # Errors
    /// Why the request was refused; inside, how it ended.
    pub fn flush(&mut self, index: u32) -> Result<Result<(), IoError>, Why> {
        let done = self.io(index, Request::flush());
        done.map(|done| done.result).map_err(|refused| refused.why)
    }

    /// Why a request is refused.
    ///
    /// # Panics
    /// When it is accepted.
    #[must_use]
    pub fn refusal(&self, index: u32, request: Request) -> Why {
        match self.submit(index, request) {
            Err(refused) => refused.why,
            Ok(token) => {
                token.abandon();
                panic!("the request was accepted")
            }
        }
    }
}
