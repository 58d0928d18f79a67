//! The block frontend against backends that keep to the protocol.

use firn_block::{Op, Request};
use firn_peers::{Config, World};

fn pattern(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| (i as u8) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

#[test]
fn a_disk_connects_and_keeps_what_is_written() {
    let mut world = World::with_disk(Config::default(), 1 << 16);
    eprintln!("{:?}", world.report(0));
    assert!(world.is_live(0));
    let buffer = world.buffer(0, 4);
    let data = pattern(1, 4 * 4096);
    buffer.region().copy_in(0, &data);
    let write = Request::data(Op::Write, 8, buffer, data.len());
    let done = world.io(0, write).expect("accepted");
    assert_eq!(done.result, Ok(()));
    assert_eq!(world.backends[0].disk().content(8, 32), data);
    world.assert_clean();
}
