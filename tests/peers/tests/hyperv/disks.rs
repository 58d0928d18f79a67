//! Which disks there are, what they are, and how they come and go.

use crate::io::live;
use firn_block::gate::Lifecycle;
use firn_block::{Discard, IoError, Op, Queue, Request, Why};
use firn_hyperv::Hal;
use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::VmbusConfig;
use firn_peers::hyperv::{HostConfig, HvOffence, HvWorld, Lun, StorvspConfig};
use firn_peers::{Disk, DiskOp, SECTORS, pattern};
use std::time::Duration;

#[test]
fn disks_are_found_with_all_that_they_say() {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(Disk::new(SECTORS)).named(0x6002_2480_0000_00aa));
    storvsp.plug(9, Lun::new(Disk::new(SECTORS)).named(3).blocks_of(4096));
    storvsp.plug(63, Lun::new(Disk::new(SECTORS)).named(4).old());
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    let units = world.controller(0).units();
    let numbers: Vec<u8> = units.iter().map(|unit| unit.number()).collect();
    assert_eq!(numbers, [0, 9, 63]);
    let info = units[0].info();
    assert_eq!((info.capacity, info.logical_block), (SECTORS, 512));
    assert_eq!((info.physical_block, info.max_transfer), (4096, 0x4_0000));
    let discard = Discard {
        granularity: 4096,
        alignment: 0,
        secure: false,
    };
    assert_eq!(info.discard, Some(discard));
    let name = units[0].designator().expect("an NAA name");
    assert_eq!(name.to_string(), "3:60022480000000aa");
    assert_eq!(units[0].serial().as_deref(), Some("firn-60022480000000aa"));
    assert_eq!(units[0].product(), "Virtual Disk");
    assert_eq!(units[1].info().logical_block, 4096);
    assert_eq!(units[2].info().discard, None);
    world.assert_clean();
}

#[test]
fn disks_come_and_go_while_others_work() {
    let mut world = live();
    let disk = Disk::new(2 * SECTORS);
    world.storvsps[0].plug(4, Lun::new(disk).named(9));
    world.settle();
    assert!(world.is_live(1));
    assert_eq!(world.write(1, SECTORS, &pattern(5, 8192)), Ok(()));
    world.storvsps[0].unplug(4);
    world.settle();
    assert_eq!(world.unit(1).state(), Lifecycle::Closed);
    assert_eq!(world.write(0, 0, &pattern(6, 8192)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_request_to_a_disk_that_was_unplugged_ends_as_gone() {
    let mut world = live();
    world.storvsps[0].plug(4, Lun::new(Disk::new(SECTORS)).named(9));
    world.settle();
    let buffer = world.buffer(1, 1);
    world.storvsps[0].unplug(4);
    // The host's word of it and the answer cross.
    let request = Request::data(Op::Read, 0, buffer, 4096);
    let done = world.io(1, request).expect("still live");
    assert_eq!(done.result, Err(IoError::Gone));
    assert!(done.request.buffer.is_some(), "the buffer comes back");
}

#[test]
fn unit_attention_is_answered_by_sending_again() {
    let mut world = live();
    assert_eq!(world.write(0, 8, &pattern(1, 65536)), Ok(()));
    for (code, qualifier) in [(0x29, 0x00), (0x2a, 0x01), (0x3f, 0x0e), (0x28, 0x00)] {
        world.storvsps[0].attention(0, code, qualifier);
        assert_eq!(world.read(0, 8, 65536), Ok(pattern(1, 65536)), "{code:02x}");
        world.settle();
    }
    world.assert_clean();
}

#[test]
fn a_busy_disk_is_left_alone_for_a_while_and_asked_again() {
    let mut world = live();
    for (commands, ends_well) in [(20, true), (200, false)] {
        world.storvsps[0].busy(0, commands);
        let served = world.storvsps[0].served();
        let request = Request::data(Op::Read, 0, world.buffer(0, 1), 4096);
        let token = world.submit(0, request).expect("live");
        world.settle();
        assert!(world.drain(0).is_empty());
        assert_eq!(world.storvsps[0].served() - served, 1, "no hurry");
        let (unit, until) = (world.unit(0), world.machine.now() + Duration::from_secs(60));
        unit.shut().expect("live");
        let draining = unit.clone();
        let (drained, mut done) = world.finish(async move { draining.drain(until).await });
        drained.expect("an end");
        unit.open().expect("connected");
        let done = done.pop().expect("it ended");
        token.settle(&done).expect("its own");
        assert_eq!(done.result.is_ok(), ends_well, "{:?}", done.result);
        world.storvsps[0].busy(0, 0);
    }
    world.assert_clean();
}

#[test]
fn a_new_size_is_taken_over() {
    let disk = Disk::new(SECTORS);
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(disk.clone()));
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    disk.set_capacity(3 * SECTORS);
    storvsp.attention(0, 0x2a, 0x09);
    assert_eq!(world.read(0, 0, 512), Ok(vec![0; 512]));
    world.settle();
    assert_eq!(world.unit(0).info().capacity, 3 * SECTORS);
    assert_eq!(world.write(0, 2 * SECTORS, &pattern(2, 4096)), Ok(()));
    // A disk that shrinks says so with the first request that does not fit.
    disk.set_capacity(SECTORS);
    let late = world.write(0, 2 * SECTORS, &pattern(2, 4096));
    assert!(matches!(late, Err(IoError::DiskChanged(_))), "{late:?}");
    world.settle();
    assert_eq!(world.unit(0).info().capacity, SECTORS);
    world.assert_clean();
}

#[test]
fn a_reset_mends_a_disk_that_does_not_answer() {
    let mut world = live();
    world.host.offend(HvOffence::AnswersAfterReset);
    let buffer = world.buffer(0, 4);
    buffer.region().copy_in(0, &pattern(8, 16384));
    let request = Request::data(Op::Write, 40, buffer, 16384);
    let token = world.submit(0, request).expect("live");
    world.settle();
    assert!(world.drain(0).is_empty());
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.storvsps[0].resets(), 1);
    let done = world.drain(0).pop().expect("it was sent again");
    assert_eq!(done.result, Ok(()));
    token.settle(&done).expect("its own");
    assert_eq!(world.disk(0, 0).content(40, 32), pattern(8, 16384));
    world.assert_clean();
}

#[test]
fn sense_data_are_errors_by_name() {
    let disk = Disk::new(SECTORS);
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(disk.clone()));
    storvsp.plug(1, Lun::new(Disk::new(SECTORS)).named(7));
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    disk.break_sector(10);
    let unreadable = IoError::Reported("the medium cannot be read there");
    assert_eq!(world.read(0, 8, 4096), Err(unreadable));
    let unwritable = IoError::Reported("the medium cannot be written there");
    assert_eq!(world.write(0, 8, &[1; 4096]), Err(unwritable));
    storvsp.protect(1);
    let protected = IoError::Reported("the disk is write-protected");
    assert_eq!(world.write(1, 8, &[1; 4096]), Err(protected));
    disk.fail_after(Some(0));
    assert_eq!(world.flush(0), Ok(Err(IoError::Reported("hardware error"))));
    assert!(world.is_live(0) && world.is_live(1));
    world.assert_clean();
}

#[test]
fn a_disk_that_may_not_be_written_says_so() {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    let mut protected = Lun::new(Disk::new(SECTORS));
    protected.read_only = true;
    storvsp.plug(0, protected.clone());
    // Old ones do not say it.
    storvsp.plug(1, protected.named(7).old());
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    assert!(world.unit(0).info().read_only);
    let request = Request::data(Op::Write, 0, world.buffer(0, 1), 4096);
    let refused = world.submit(0, request).expect_err("read-only");
    assert_eq!(refused.why, Why::ReadOnly);
    assert_eq!(world.read(0, 0, 4096), Ok(vec![0; 4096]));
    assert!(!world.unit(1).info().read_only);
    let protected = IoError::Reported("the disk is write-protected");
    assert_eq!(world.write(1, 8, &[1; 4096]), Err(protected));
    world.assert_clean();
}

#[test]
fn a_disk_without_unmap_is_unmapped_by_write_same() {
    for block in [512, 4096] {
        let disk = Disk::new(SECTORS);
        let mut world = HvWorld::new(HostConfig::default());
        let storvsp = world.plug(StorvspConfig::default());
        let most = 64 * 512 / u64::from(block);
        let lun = Lun::new(disk.clone()).blocks_of(block).writes_same(most);
        storvsp.plug(0, lun);
        world.start(VmbusConfig::default(), ControllerConfig::default());
        world.settle();
        assert_eq!(world.write(0, 0, &[7; 1 << 17]), Ok(()));
        disk.clear_log();
        let done = world.io(0, Request::discard(16, 160, false));
        assert_eq!(done.expect("offered").result, Ok(()));
        let discard = |sector, sectors| DiskOp::Discard {
            sector,
            sectors,
            secure: false,
        };
        let pieces = [discard(16, 64), discard(80, 64), discard(144, 32)];
        assert_eq!(disk.log(), pieces, "blocks of {block}");
        assert_eq!(world.read(0, 16, 4096), Ok(vec![0; 4096]));
        assert_eq!(world.read(0, 8, 4096), Ok(vec![7; 4096]));
        world.assert_clean();
    }
}

#[test]
fn news_that_another_disks_polls_take_off_the_ring_are_not_slept_over() {
    let config = StorvspConfig {
        delay: 3,
        ..StorvspConfig::default()
    };
    for requests in 1..24 {
        let mut world = HvWorld::with_disk(HostConfig::default(), config.clone(), SECTORS);
        let lun = Lun::new(Disk::new(SECTORS)).named(5);
        world.storvsps[0].plug(3, lun);
        world.settle();
        assert!(world.is_live(1));
        world.storvsps[0].unplug(3);
        // Its answers come among those of the look at what is left.
        for _ in 0..requests {
            let request = Request::data(Op::Read, 0, world.buffer(0, 1), 4096);
            assert_eq!(world.io(0, request).expect("live").result, Ok(()));
        }
        world.settle();
        let state = world.unit(1).state();
        assert_eq!(state, Lifecycle::Closed, "after {requests} requests");
        world.assert_clean();
    }
}

#[test]
fn a_disks_poll_leaves_the_control_path_its_event() {
    let mut world = live();
    world.storvsps[0].allow(Some(0));
    world.storvsps[0].plug(3, Lun::new(Disk::new(SECTORS)).named(5));
    // Which disks there are is asked for, and not answered yet.
    world.settle();
    world.unit(0).front.borrow_mut().poll(usize::MAX, &mut drop);
    world.storvsps[0].allow(None);
    world.settle();
    assert!(world.is_live(1), "no time has passed");
    world.assert_clean();
}

#[test]
fn an_answer_that_a_disks_poll_takes_reaches_the_control_path() {
    let mut world = live();
    world.storvsps[0].allow(Some(0));
    world.storvsps[0].plug(3, Lun::new(Disk::new(SECTORS)).named(5));
    world.settle();
    // The ring is masked for as long as a disk's request is on its way.
    let request = Request::data(Op::Read, 0, world.buffer(0, 1), 4096);
    let token = world.submit(0, request).expect("live");
    world.unit(0).front.borrow_mut().kick();
    world.storvsps[0].allow(None);
    world.host_turn();
    let mut done = Vec::new();
    let mut keep = |completion| done.push(completion);
    world.unit(0).front.borrow_mut().poll(usize::MAX, &mut keep);
    world.settle();
    assert!(world.is_live(1), "no time has passed");
    done.extend(world.drain(0));
    let [completion] = &done[..] else {
        panic!("one request, {} ends", done.len());
    };
    assert!(token.settle(completion).is_ok());
    world.assert_clean();
}
