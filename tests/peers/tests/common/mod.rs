//! What several tests of the block frontend need.
#![expect(dead_code, reason = "each test uses some of it")]

use firn_block::{Completion, IoError, Op, Refused, Request, Why};
use firn_peers::{Config, World};

/// Sectors of the disks that most tests use: 8 MiB.
pub const SECTORS: u64 = 1 << 14;

/// Bytes that differ from place to place and from seed to seed.
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

/// A guest with one live disk.
pub fn live(config: Config) -> World {
    let world = World::with_disk(config, SECTORS);
    assert!(world.is_live(0), "{:?}", world.report(0));
    world
}

/// Writes bytes at a sector and gives the completion.
pub fn write(world: &mut World, index: u32, sector: u64, data: &[u8]) -> Completion {
    let buffer = world.buffer(index, data.len().div_ceil(4096).max(1));
    buffer.region().copy_in(0, data);
    let request = Request::data(Op::Write, sector, buffer, data.len());
    world.io(index, request).expect("an acceptable write")
}

/// Reads bytes at a sector.
pub fn read(world: &mut World, index: u32, sector: u64, bytes: usize) -> Result<Vec<u8>, IoError> {
    let buffer = world.buffer(index, bytes.div_ceil(4096).max(1));
    let request = Request::data(Op::Read, sector, buffer, bytes);
    let done = world.io(index, request).expect("an acceptable read");
    let mut data = vec![0; bytes];
    let buffer = done.request.buffer.expect("the buffer comes back");
    buffer.region().copy_out(0, &mut data);
    let vbd = world.vbd(index);
    let freed = firn_block::Queue::unregister(&mut *vbd.front.borrow_mut(), buffer);
    drop(freed);
    done.result.map(|()| data)
}

pub fn flush(world: &mut World, index: u32) -> Result<Result<(), IoError>, Why> {
    let done = world.io(index, Request::flush());
    done.map(|done| done.result).map_err(|refused| refused.why)
}

pub fn why(refused: Result<firn_block::Token, Refused>) -> Why {
    refused.expect_err("to be refused").why
}
