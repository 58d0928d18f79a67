//! Data through storvsc: whatever the version, the order of answers and the mix of
//! requests, each request ends once and every byte is right.

use firn_block::{Armed, Completion, Op, Queue, Request, Token, Why};
use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::VmbusConfig;
use firn_hyperv::wire::vstor::Version;
use firn_peers::hyperv::{HostConfig, HvWorld, Lun, Storvsp, StorvspConfig};
use firn_peers::{Disk, DiskOp, Peer, SECTORS, pattern};
use proptest::prelude::*;

/// A guest with one live disk.
pub(crate) fn live() -> HvWorld {
    let world = HvWorld::with_disk(HostConfig::default(), StorvspConfig::default(), SECTORS);
    assert!(world.is_live(0), "{}", world.failure());
    world
}

#[test]
fn writes_arrive_and_are_read_again() {
    let mut world = live();
    let data = pattern(1, 1 << 20);
    assert_eq!(world.write(0, 16, &data), Ok(()));
    assert_eq!(world.read(0, 16, data.len()), Ok(data));
    assert_eq!(world.flush(0), Ok(Ok(())));
    world.assert_clean();
}

#[test]
fn flush_and_discard_really_reach_the_host() {
    let mut world = live();
    let disk = Disk::new(SECTORS);
    let storvsp: &Storvsp = &world.storvsps[0];
    storvsp.plug(1, Lun::new(disk.clone()).named(2));
    world.settle();
    assert!(world.is_live(1));
    assert_eq!(world.write(1, 0, &pattern(1, 4096)), Ok(()));
    assert!(disk.unflushed() > 0);
    assert_eq!(world.flush(1), Ok(Ok(())));
    assert_eq!(disk.unflushed(), 0);
    disk.clear_log();
    let done = world
        .io(1, Request::discard(0, 64, false))
        .expect("accepted");
    assert_eq!(done.result, Ok(()));
    let discard = DiskOp::Discard {
        sector: 0,
        sectors: 64,
        secure: false,
    };
    assert_eq!(disk.log(), [discard]);
    assert_eq!(world.read(1, 0, 4096), Ok(vec![0; 4096]));
    let secure = world.io(1, Request::discard(0, 8, true));
    assert!(matches!(secure, Err(refused) if matches!(refused.why, Why::Unsupported(_))));
    world.assert_clean();
}

#[test]
fn a_polled_channel_needs_no_interrupts() {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(Disk::new(SECTORS)));
    let config = ControllerConfig {
        interrupts: false,
        ..ControllerConfig::default()
    };
    world.start(VmbusConfig::default(), config);
    world.run_for(std::time::Duration::from_secs(1));
    assert!(world.is_live(0), "{}", world.failure());
    while world.machine.take_interrupt() {}
    let data = pattern(3, 256 << 10);
    assert_eq!(world.write(0, 0, &data), Ok(()));
    assert_eq!(world.read(0, 0, data.len()), Ok(data));
    assert!(!world.machine.take_interrupt(), "none was sent");
    world.assert_clean();
}

#[test]
fn polling_gets_no_events_and_arming_does() {
    let mut world = live();
    let read = |world: &HvWorld| {
        let buffer = world.buffer(0, 1);
        let request = Request::data(Op::Read, 0, buffer, 4096);
        world.submit(0, request).expect("room").abandon();
    };
    let unit = world.unit(0);
    while world.machine.take_interrupt() {}
    unit.front.borrow_mut().poll(1, &mut drop);
    read(&world);
    world.host.step();
    assert!(!world.machine.take_interrupt(), "masked");
    assert_eq!(unit.front.borrow_mut().poll(9, &mut drop), 1);
    read(&world);
    assert_eq!(unit.front.borrow_mut().arm(), Armed::Sleep);
    world.host.step();
    assert!(world.machine.take_interrupt(), "armed");
    assert_eq!(unit.front.borrow_mut().poll(9, &mut drop), 1);
    // What came before is not slept over.
    read(&world);
    world.host.step();
    assert_eq!(unit.front.borrow_mut().arm(), Armed::Poll);
    world.assert_clean();
}

#[test]
fn the_host_is_signalled_once_for_a_batch() {
    let world = live();
    let before = world.machine.signals();
    let unit = world.unit(0);
    let buffers: Vec<_> = (0..20).map(|_| world.buffer(0, 1)).collect();
    let mut front = unit.front.borrow_mut();
    for buffer in buffers {
        let request = Request::data(Op::Read, 0, buffer, 4096);
        front.submit(request).expect("room").abandon();
    }
    front.kick();
    front.kick();
    assert_eq!(world.machine.signals() - before, 1);
    // The host has not read that yet, and will find this as well.
    front.submit(Request::flush()).expect("room").abandon();
    front.kick();
    assert_eq!(world.machine.signals() - before, 1);
}

#[test]
fn a_host_with_monitor_pages_is_signalled_by_them_if_that_is_wanted() {
    for (monitors, monitored, interrupts) in [
        (true, true, true),
        (true, false, true),
        (false, true, true),
        (true, true, false),
    ] {
        let mut world = HvWorld::new(HostConfig {
            monitors,
            ..HostConfig::default()
        });
        let config = StorvspConfig {
            subchannels: 2,
            ..StorvspConfig::default()
        };
        world.plug(config).plug(0, Lun::new(Disk::new(SECTORS)));
        let bus = VmbusConfig {
            monitored,
            ..VmbusConfig::default()
        };
        let scsi = ControllerConfig {
            interrupts,
            ..ControllerConfig::default()
        };
        world.start(bus, scsi);
        world.run_for(std::time::Duration::from_secs(1));
        assert!(world.is_live(0), "{}", world.failure());
        let signals = world.machine.signals();
        for _ in 0..32 {
            world.submit(0, Request::flush()).expect("room").abandon();
        }
        assert_eq!(world.drain(0).len(), 32);
        let without = monitors && monitored && interrupts;
        assert_eq!(world.machine.signals() == signals, without);
        world.assert_clean();
    }
}

#[test]
fn a_full_queue_says_so_and_goes_on() {
    let mut world = live();
    world.storvsps[0].allow(Some(0));
    let mut tokens = Vec::new();
    let refused = loop {
        let request = Request::data(Op::Read, 0, world.buffer(0, 16), 65536);
        match world.submit(0, request) {
            Ok(token) => tokens.push(token),
            Err(refused) => break refused,
        }
        assert!(tokens.len() < 1000, "it is never full");
    };
    assert_eq!(refused.why, Why::Full);
    world.settle();
    world.storvsps[0].allow(None);
    let mut done = world.drain(0);
    assert_eq!(done.len(), tokens.len());
    done.sort_by_key(|done| done.token);
    for (token, done) in tokens.into_iter().zip(&done) {
        token.settle(done).expect("its own");
        assert_eq!(done.result, Ok(()));
    }
    world.assert_clean();
}

#[test]
fn a_host_that_waits_for_room_is_told_when_there_is_some() {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(Disk::new(SECTORS)));
    let config = ControllerConfig {
        ring_pages: 2,
        depth: 512,
        ..ControllerConfig::default()
    };
    world.start(VmbusConfig::default(), config);
    world.settle();
    storvsp.allow(Some(0));
    // More answers than the ring holds.
    for _ in 0..400 {
        world.submit(0, Request::flush()).expect("room").abandon();
        world.turn();
    }
    world.settle();
    let signals = world.machine.signals();
    storvsp.allow(None);
    assert_eq!(world.drain(0).len(), 400);
    assert!(
        world.machine.signals() > signals + 5,
        "it waited several times"
    );
    world.assert_clean();
}

#[derive(Clone, Debug)]
struct Io {
    disk: u32,
    write: bool,
    part: u64,
    sector: u64,
    sectors: u64,
    offset: usize,
    seed: u64,
}

const PARTS: u64 = 8;
const PART: u64 = SECTORS / PARTS;
const PAGES: usize = 100;

fn io() -> impl Strategy<Value = Io> {
    let sectors = prop_oneof![4 => 1..40u64, 1 => 40..700u64];
    (
        0..2u32,
        any::<bool>(),
        0..PARTS,
        0..PART,
        sectors,
        0..64usize,
        any::<u64>(),
    )
        .prop_map(|(disk, write, part, sector, sectors, offset, seed)| Io {
            disk,
            write,
            part,
            sector,
            sectors,
            offset,
            seed,
        })
}

fn config() -> impl Strategy<Value = StorvspConfig> {
    let version = prop::sample::select(Version::ALL.to_vec());
    let transfer = prop::sample::select(vec![4096, 8192, 0x1_1000, 0x4_0000, 0x40_0000]);
    (version, transfer, any::<bool>(), 0..3u64, 0..5u16).prop_map(
        |(version, max_transfer, reversed, delay, subchannels)| StorvspConfig {
            max_transfer,
            reversed,
            delay,
            subchannels,
            ..StorvspConfig::only(version)
        },
    )
}

fn guest() -> impl Strategy<Value = ControllerConfig> {
    let ring = prop::sample::select(vec![4, 5, 9, 32]);
    let depth = prop::sample::select(vec![4, 17, 128]);
    (ring, depth).prop_map(|(ring_pages, depth)| ControllerConfig {
        ring_pages,
        depth,
        ..ControllerConfig::default()
    })
}

/// Fits an I/O to the blocks of its disk.
fn request(world: &HvWorld, io: &Io, block: u64, model: &mut [u8]) -> Request {
    let down = |value: u64| value / block * block;
    let sector = down(io.part * PART + io.sector);
    let left = (io.part + 1) * PART - sector;
    let offset = down(io.offset as u64);
    let room = PAGES as u64 * 8 - offset;
    let sectors = down(io.sectors).max(block).min(left).min(room);
    let buffer = world.buffer(io.disk, PAGES);
    let bytes = sectors as usize * 512;
    if io.write {
        let data = pattern(io.seed, bytes);
        buffer.region().copy_in(offset as usize * 512, &data);
        let at = sector as usize * 512;
        model[at..at + bytes].copy_from_slice(&data);
    }
    let op = if io.write { Op::Write } else { Op::Read };
    Request {
        offset: offset as usize * 512,
        ..Request::data(op, sector, buffer, bytes)
    }
}

/// Every token gets its completion, and no completion is left.
fn settle(tokens: Vec<Token>, mut done: Vec<Completion>) -> Vec<Completion> {
    assert_eq!(tokens.len(), done.len());
    done.sort_by_key(|done| done.token);
    for (token, done) in tokens.into_iter().zip(&done) {
        token.settle(done).expect("its own completion");
    }
    done
}

/// Each request was carried out, with the right bytes.
fn check(done: &[Completion], model: &[u8]) {
    for done in done {
        assert_eq!(done.result, Ok(()));
        let request = &done.request;
        let buffer = request.buffer.as_ref().expect("the buffer comes back");
        let (at, bytes) = (request.sector as usize * 512, request.bytes() as usize);
        let mut data = vec![0; bytes];
        buffer.region().copy_out(request.offset, &mut data);
        assert!(data == model[at..at + bytes], "{:?}", request.op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_and_every_request_ends_once(
        config in config(),
        guest in guest(),
        block in prop::sample::select(vec![512u32, 4096]),
        rounds in prop::collection::vec(prop::collection::vec(io(), 1..12), 1..6),
    ) {
        let mut world = HvWorld::new(HostConfig::default());
        let storvsp = world.plug(config);
        let disks = [Disk::new(SECTORS), Disk::new(SECTORS)];
        storvsp.plug(0, Lun::new(disks[0].clone()).named(1));
        storvsp.plug(5, Lun::new(disks[1].clone()).named(2).blocks_of(block));
        world.start(VmbusConfig::default(), guest);
        world.settle();
        prop_assert!(world.is_live(0) && world.is_live(1), "{}", world.failure());
        let mut models = [vec![0; SECTORS as usize * 512], vec![0; SECTORS as usize * 512]];
        for round in rounds {
            let mut used = [[false; PARTS as usize]; 2];
            let mut tokens = [Vec::new(), Vec::new()];
            for io in round {
                let disk = io.disk as usize;
                if std::mem::replace(&mut used[disk][io.part as usize], true) {
                    continue;
                }
                let block = if disk == 0 { 1 } else { u64::from(block) / 512 };
                let request = request(&world, &io, block, &mut models[disk]);
                let token = match world.submit(io.disk, request) {
                    Ok(token) => token,
                    Err(refused) => {
                        prop_assert_eq!(refused.why, Why::Full);
                        let tokens = std::mem::take(&mut tokens[disk]);
                        check(&settle(tokens, world.drain(io.disk)), &models[disk]);
                        world.submit(io.disk, refused.request).expect("room now")
                    }
                };
                tokens[disk].push(token);
            }
            for (disk, tokens) in tokens.into_iter().enumerate() {
                check(&settle(tokens, world.drain(disk as u32)), &models[disk]);
            }
        }
        for (disk, model) in disks.iter().zip(&models) {
            prop_assert!(disk.content(0, SECTORS) == *model, "the disk itself");
        }
        world.assert_clean();
    }
}
