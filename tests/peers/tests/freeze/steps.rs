//! A freeze and a thaw, step by step, with a backend that plays along.

use crate::common::*;
use firn_block::gate::Lifecycle;
use firn_block::{Op, Queue, Request, Token, Why};
use firn_peers::{Config, Order, SECTORS, World, live, pattern};
use firn_xen::blkfront::{Busy, DiskStep, VbdConfig, WhyNot};

#[test]
fn what_is_in_flight_completes_and_is_durable_before_the_disk_is_frozen() {
    for config in [Config::default(), Config::plain()] {
        let mut world = live(Config {
            order: Order::Random,
            flush: true,
            delay: 3,
            ..config
        });
        let tokens = load(&world, 0, 32);
        let (frozen, done) = freeze_now(&mut world, 0);
        assert_eq!(frozen, Ok(()));
        assert_eq!(world.report(0).state, Lifecycle::Frozen);
        settle(&world, 0, tokens, done);
        let disk = world.backends[0].disk();
        for i in 1..=32 {
            assert_eq!(disk.content(i * 32, 32), pattern(i, 4 * 4096));
        }
        assert!(matches!(disk.log().last(), Some(firn_peers::DiskOp::Flush)));
        assert_nothing_left(&world);
        assert_eq!(thaw_now(&mut world, 0), Ok(()));
        assert_works(&mut world, 0);
    }
}

#[test]
fn requests_that_did_not_fit_on_the_ring_are_sent_and_complete() {
    let mut world = live(Config {
        flush: true,
        ..Config::plain()
    });
    // 32 requests of many pieces each on a ring of 32 entries.
    let tokens: Vec<Token> = (0..32)
        .map(|i| {
            let buffer = world.buffer(0, 128);
            buffer.region().copy_in(0, &pattern(i, 128 * 4096));
            let sector = i % 16 * 1024;
            let request = Request::data(Op::Write, sector, buffer, 128 * 4096);
            world.submit(0, request).expect("room in the queue")
        })
        .collect();
    assert_eq!(world.vbd(0).shut(), Ok(()));
    let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
    let busy = disk.check_idle().map_err(|error| error.why);
    assert_eq!(busy, Err(WhyNot::Busy(Busy::Unanswered(32))));
    let (drained, done) = world.finish(async move { disk.drain(until).await });
    assert_eq!(drained, Ok(()));
    settle(&world, 0, tokens, done);
    for i in 16..32 {
        let content = world.backends[0].disk().content(i % 16 * 1024, 1024);
        assert_eq!(content, pattern(i, 128 * 4096));
    }
    world.assert_clean();
}

#[test]
fn a_late_request_is_refused_before_the_ring_is_touched() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 1);
    let before = world.report(0).stats;
    world.vbd(0).shut().expect("a live disk");
    let refused = world.submit(0, Request::data(Op::Write, 0, buffer, 4096));
    let refused = refused.expect_err("the gate is shut");
    assert_eq!(refused.why, Why::NotLive(Lifecycle::Freezing));
    assert_eq!(world.report(0).stats, before);
    // The kernel's own way is open.
    let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
    let (flushed, done) = world.finish(async move { disk.flush(until).await });
    assert_eq!((flushed, done.len()), (Ok(()), 0));
    assert_eq!(world.vbd(0).open(), Ok(()));
    let done = world.io(0, refused.request).expect("the gate is open");
    assert_eq!(done.result, Ok(()));
    world.assert_clean();
}

#[test]
fn a_read_only_disk_needs_no_flush() {
    let mut world = live(Config {
        read_only: true,
        ..Config::plain()
    });
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    assert_nothing_left(&world);
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    assert!(world.is_live(0));
}

#[test]
fn a_disk_that_goes_while_it_is_frozen_ends() {
    let mut world = live(Config::default());
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    let disk = world.vbd(0);
    world.backends[0].vanish();
    world.settle();
    assert!(world.guest().bus.vbds().is_empty());
    let until = in_seconds(&world, 5);
    let (thawed, _) = world.finish(async move { disk.thaw(until).await });
    assert_eq!(why(thawed), (DiskStep::Connect, WhyNot::Removed));
    assert_nothing_left(&world);
}

#[test]
fn a_disk_that_thaws_takes_what_the_backend_offers_now() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 64);
    for (config, sectors) in [
        (
            Config {
                flush: true,
                ..Config::plain()
            },
            2 * SECTORS,
        ),
        (
            Config {
                sector_size: 4096,
                physical_sector_size: Some(4096),
                ..Config::default()
            },
            SECTORS,
        ),
        (
            Config {
                indirect: 16,
                ring_order: Some(1),
                ..Config::default()
            },
            SECTORS / 2,
        ),
    ] {
        assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
        let block = config.sector_size;
        world.backends[0].reconfigure(|c| *c = config);
        world.backends[0].disk().set_capacity(sectors);
        assert_eq!(thaw_now(&mut world, 0), Ok(()));
        let info = world.report(0).info;
        assert_eq!((info.capacity, info.logical_block), (sectors, block));
        assert_works(&mut world, 0);
    }
    let done = world.io(0, Request::data(Op::Write, 0, buffer, 64 * 4096));
    let done = done.expect("a registered buffer stays registered");
    assert_eq!(done.result, Ok(()));
    world.assert_clean();
}

#[test]
fn two_disks_freeze_and_thaw_in_turn_without_a_leak() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    world.plug(
        Config {
            flush: true,
            ..Config::plain()
        }
        .disk(1),
        SECTORS,
    );
    world.start(VbdConfig::default());
    world.settle();
    assert_works(&mut world, 0);
    assert_works(&mut world, 1);
    let pages = world.machine.pages_in_use();
    for round in 0..20 {
        for index in [1, 0] {
            let tokens = load(&world, index, 8);
            let (frozen, done) = freeze_now(&mut world, index);
            assert_eq!(frozen, Ok(()), "round {round}");
            settle(&world, index, tokens, done);
        }
        assert_nothing_left(&world);
        for index in [0, 1] {
            assert_eq!(thaw_now(&mut world, index), Ok(()), "round {round}");
            assert!(world.is_live(index), "round {round}");
        }
    }
    // But for the buffers of `load`, which are never freed.
    assert_eq!(world.machine.pages_in_use(), pages + 20 * 2 * 8 * 4);
    assert_works(&mut world, 0);
    assert_works(&mut world, 1);
}

#[test]
fn disks_that_come_and_go_during_a_freeze_do_not_disturb_it() {
    let mut world = live(Config::default());
    world.guest().bus.freeze();
    world.plug(Config::default().disk(1), SECTORS);
    world.plug(Config::default().disk(2), SECTORS);
    world.settle();
    assert_eq!(world.guest().bus.vbds().len(), 1, "they wait");
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    world.backends[1].vanish();
    world.settle();
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    world.guest().bus.thaw();
    world.settle();
    assert!(world.is_live(0) && world.is_live(2));
    assert_eq!(world.guest().bus.vbds().len(), 2);
    assert_works(&mut world, 2);
}

#[test]
fn a_disk_that_comes_while_gates_are_kept_shut_stays_shut_until_it_is_opened() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig::default());
    world.guest().bus.keep_shut(true);
    world.settle();
    assert_eq!(world.report(0).state, Lifecycle::Freezing);
    assert!(world.guest().bus.is_settled());
    let why = world.refusal(0, Request::flush());
    assert_eq!(why, Why::NotLive(Lifecycle::Freezing));
    assert_eq!(world.vbd(0).open(), Ok(()));
    assert_works(&mut world, 0);
}

#[test]
fn what_was_submitted_and_never_shown_to_the_host_completes_too() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 4);
    buffer.region().copy_in(0, &pattern(1, 4 * 4096));
    let request = Request::data(Op::Write, 32, buffer, 4 * 4096);
    let vbd = world.vbd(0);
    // And no kick: the job was stopped in between.
    let token = vbd.front.borrow_mut().submit(request).expect("room");
    let (frozen, done) = freeze_now(&mut world, 0);
    assert_eq!(frozen, Ok(()));
    settle(&world, 0, vec![token], done);
    let content = world.backends[0].disk().content(32, 32);
    assert_eq!(content, pattern(1, 4 * 4096));
}
