//! Freezing disks and thawing them: step by step, and whatever the backend
//! makes of it.

use firn_block::gate::Lifecycle;
use firn_block::{Completion, IoError, Op, Queue, Request, Token, Why};
use firn_peers::{BlkOffence, Config, FakeMachine, Order, SECTORS, World, live, pattern};
use firn_task::Instant;
use firn_xen::Hal;
use firn_xen::blkfront::{Busy, ConnectError, DiskStep, StepError, Terms, Vbd, VbdConfig, WhyNot};
use firn_xen::wire::xenbus::XenbusState;
use std::rc::Rc;
use std::time::Duration;

type Disk = Rc<Vbd<FakeMachine>>;

const SECOND: Duration = Duration::from_secs(1);

fn in_seconds(world: &World, seconds: u32) -> Instant {
    world.machine.now() + SECOND * seconds
}

/// Submits writes of four pages each, of patterns 1, 2, …
fn load(world: &World, index: u32, requests: u64) -> Vec<Token> {
    let submit = |i| {
        let buffer = world.buffer(index, 4);
        buffer.region().copy_in(0, &pattern(i, 4 * 4096));
        let request = Request::data(Op::Write, i * 32, buffer, 4 * 4096);
        world.submit(index, request).expect("room in the queue")
    };
    (1..=requests).map(submit).collect()
}

/// Matches tokens with completions, each exactly once, and gives buffers back.
fn settle(world: &World, index: u32, tokens: Vec<Token>, mut done: Vec<Completion>) {
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), tokens.len(), "each request ends once");
    let vbd = world.vbd(index);
    for (token, completion) in tokens.into_iter().zip(done) {
        token.settle(&completion).expect("its own completion");
        assert_eq!(completion.result, Ok(()));
        if let Some(buffer) = completion.request.buffer {
            let _ = vbd.front.borrow_mut().unregister(buffer);
        }
    }
}

/// Everything up to the disconnect.
async fn quiet(disk: Disk, until: Instant) -> Result<(), StepError> {
    disk.ask()?;
    disk.shut()?;
    disk.drain(until).await?;
    disk.flush(until).await?;
    disk.check_idle()
}

async fn freeze(disk: Disk, until: Instant) -> Result<(), StepError> {
    quiet(disk.clone(), until).await?;
    disk.disconnect(until).await
}

fn freeze_now(world: &mut World, index: u32) -> (Result<(), StepError>, Vec<Completion>) {
    let until = in_seconds(world, 5);
    world.finish(freeze(world.vbd(index), until))
}

fn thaw_now(world: &mut World, index: u32) -> Result<(), StepError> {
    let (disk, until) = (world.vbd(index), in_seconds(world, 30));
    world.finish(async move { disk.thaw(until).await }).0
}

/// Nothing of a disk is granted, mapped or open; the store's and the console's
/// channels are.
fn assert_nothing_left(world: &World) {
    assert_eq!(world.machine.live_grants(), []);
    assert_eq!(world.machine.mapped_grants(), 0);
    assert_eq!(world.machine.open_ports().len(), 2);
    world.assert_clean();
}

/// The state, and that the ring works.
fn assert_works(world: &mut World, index: u32) {
    assert!(world.is_live(index), "{:?}", world.report(index));
    let data = pattern(99, 1 << 17);
    assert_eq!(world.write(index, 0, &data), Ok(()));
    assert_eq!(world.read(index, 0, 1 << 17), Ok(data));
    assert_eq!(world.machine.violations(), []);
}

fn why(result: Result<(), StepError>) -> (DiskStep, WhyNot) {
    let error = result.expect_err("a step that cannot be done");
    (error.step, error.why)
}

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
fn a_backend_that_does_not_answer_fails_the_freeze_and_loses_nothing() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(7));
    let tokens = load(&world, 0, 16);
    let (frozen, mut done) = freeze_now(&mut world, 0);
    let in_flight = 9;
    assert_eq!(
        why(frozen),
        (DiskStep::Drain, WhyNot::Deadline { in_flight })
    );
    assert_eq!(done.len(), 7);
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    world.backends[0].allow(None);
    // The backend has no reason of its own to look again.
    let late = load(&world, 0, 1);
    done.extend(world.drain(0));
    settle(&world, 0, tokens.into_iter().chain(late).collect(), done);
    assert_works(&mut world, 0);
    world.assert_clean();
}

#[test]
fn a_late_answer_to_a_flush_of_a_failed_freeze_disturbs_nobody() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(0));
    let (frozen, _) = freeze_now(&mut world, 0);
    let in_flight = 1;
    assert_eq!(
        why(frozen),
        (DiskStep::Flush, WhyNot::Deadline { in_flight })
    );
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    world.backends[0].allow(None);
    assert_works(&mut world, 0);
    let (frozen, done) = freeze_now(&mut world, 0);
    assert_eq!((frozen, done.len()), (Ok(()), 0));
    assert_nothing_left(&world);
}

#[test]
fn a_flush_that_cannot_be_had_is_named() {
    let mut world = live(Config::plain());
    let (frozen, _) = freeze_now(&mut world, 0);
    assert_eq!(why(frozen), (DiskStep::Ask, WhyNot::NoFlush));
    assert_works(&mut world, 0);

    for (offence, expected) in [
        (BlkOffence::FlushUnsupported, WhyNot::NoFlush),
        (
            BlkOffence::Fails,
            WhyNot::Io(IoError::Failed { status: -1 }),
        ),
    ] {
        let mut world = live(Config::default());
        world.backends[0].offend(offence);
        let (frozen, _) = freeze_now(&mut world, 0);
        assert_eq!(why(frozen), (DiskStep::Flush, expected));
        assert_eq!(thaw_now(&mut world, 0), Ok(()));
        assert_works(&mut world, 0);
    }
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
fn a_backend_that_closes_while_the_disk_drains_is_connected_again() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(3));
    let tokens = load(&world, 0, 16);
    world.vbd(0).shut().expect("a live disk");
    world.backends[0].close();
    world.settle();
    let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
    world.backends[0].allow(None);
    let (drained, done) = world.finish(async move { disk.drain(until).await });
    assert!(matches!(why(drained), (DiskStep::Drain, WhyNot::State(_))));
    let mut done = done;
    done.extend(world.drain(0));
    world.settle();
    assert_eq!(world.report(0).state, Lifecycle::Closed);
    // The toolstack has the backend start again: the gate is still shut.
    let front = world.backends[0].front_path();
    world.store.write(&format!("{front}/state"), "1");
    world.settle();
    assert_eq!(world.report(0).state, Lifecycle::Freezing);
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    settle(&world, 0, tokens, done);
    assert_works(&mut world, 0);
}

#[test]
fn a_backend_that_never_closes_fails_the_freeze_and_is_connected_when_it_has() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        assert_eq!(world.write(0, 0, &pattern(1, 1 << 16)), Ok(()));
        world.backends[0].offend(BlkOffence::NeverCloses);
        let (frozen, _) = freeze_now(&mut world, 0);
        let (step, error) = why(frozen);
        assert_eq!(step, DiskStep::Disconnect);
        assert!(
            matches!(error, WhyNot::Connect(ConnectError::Deadline { .. })),
            "{error}"
        );
        let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
        let (thawed, _) = world.finish(async move { disk.thaw(until).await });
        assert!(matches!(
            why(thawed),
            (DiskStep::Connect, WhyNot::Deadline { .. })
        ));
        // At long last.
        world.backends[0].behave();
        let front = world.backends[0].front_path();
        world.store.write(&format!("{front}/state"), "6");
        assert_eq!(thaw_now(&mut world, 0), Ok(()));
        assert_works(&mut world, 0);
        assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    }
}

#[test]
fn a_backend_that_says_closed_again_while_the_disk_thaws_is_not_listened_to() {
    let mut world = live(Config::default());
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    for turns in 0..60 {
        let (disk, until) = (world.vbd(0), in_seconds(&world, 30));
        let (task, back) = (disk.clone(), world.backends[0].clone());
        world
            .guest()
            .executor
            .spawn(async move { drop(task.thaw(until).await) });
        for _ in 0..turns {
            world.turn();
        }
        if back.state() == XenbusState::CONNECTED {
            // From now on it would be true.
            return assert!(turns > 5, "the handshake has taken its time");
        }
        back.pretend("6");
        world.turn();
        world.turn();
        back.pretend(&back.state().0.to_string());
        let (thawed, _) = world.finish(async move { disk.thaw(until).await });
        assert_eq!(thawed, Ok(()), "after {turns} turns");
        world.settle();
        assert!(world.is_live(0), "after {turns} turns");
        assert_eq!(freeze_now(&mut world, 0).0, Ok(()), "after {turns} turns");
    }
    panic!("the handshake has no end");
}

#[test]
fn pages_that_a_backend_keeps_mapped_fail_the_freeze_by_name() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 4);
    let done = world.io(0, Request::data(Op::Write, 0, buffer, 4 * 4096));
    let buffer = done.expect("live").request.buffer.expect("its buffer");
    world.backends[0].offend(BlkOffence::KeepsGrants);
    let (frozen, _) = freeze_now(&mut world, 0);
    let (step, error) = why(frozen);
    assert_eq!(step, DiskStep::Disconnect);
    assert!(
        matches!(error, WhyNot::StillMapped { grants: 4, .. }),
        "{error}"
    );
    // The same backend may have the same pages again.
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    let again = world.io(0, Request::data(Op::Read, 0, buffer, 4 * 4096));
    assert_eq!(again.expect("still registered").result, Ok(()));
    world.backends[0].behave();
    world.backends[0].release();
    assert_works(&mut world, 0);
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    // The old ring's grants are reclaimed when their time comes.
    world.run_for(SECOND * 60);
    assert_nothing_left(&world);
}

#[test]
fn pages_that_a_backend_lets_go_a_little_late_are_waited_for() {
    let mut world = live(Config::default());
    assert_eq!(world.write(0, 0, &pattern(1, 1 << 16)), Ok(()));
    let _kept = world.buffer(0, 4);
    world.backends[0].offend(BlkOffence::KeepsGrants);
    let until = in_seconds(&world, 5);
    let (disk, back) = (world.vbd(0), world.backends[0].clone());
    let (xen, at) = (world.guest().xen.clone(), in_seconds(&world, 2));
    let (frozen, _) = world.finish(async move {
        quiet(disk.clone(), until).await?;
        let release = async {
            firn_task::sleep_until(xen, at).await;
            back.release();
            std::future::pending::<()>().await;
        };
        match firn_task::race(disk.disconnect(until), release).await {
            firn_task::Either::First(result) => result,
            firn_task::Either::Second(()) => unreachable!(),
        }
    });
    assert_eq!(frozen, Ok(()));
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
fn a_thaw_that_fails_may_be_tried_again() {
    let mut world = live(Config::default());
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    for offence in [
        BlkOffence::NeverInitWait,
        BlkOffence::NeverConnects,
        BlkOffence::UnknownState,
        BlkOffence::ClosedInsteadOfConnected,
    ] {
        world.backends[0].offend(offence);
        let (step, error) = why(thaw_now(&mut world, 0));
        assert_eq!(step, DiskStep::Connect);
        assert!(matches!(error, WhyNot::Connect(_)), "{offence:?}: {error}");
        assert_eq!(world.report(0).state, Lifecycle::Frozen, "{offence:?}");
        world.backends[0].behave();
    }
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    assert_works(&mut world, 0);
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    assert_nothing_left(&world);
}

#[test]
fn an_image_is_written_over_plain_grants_from_parts_of_one_region() {
    let mut world = live(Config::default());
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
    let (connected, _) = world.finish(async move { disk.connect(Terms::Image, until).await });
    assert_eq!(connected, Ok(()));
    let vbd = world.vbd(0);
    assert_eq!(vbd.state(), Lifecycle::Freezing);
    assert_eq!(vbd.front.borrow().info().max_transfer, 256 * 4096);
    let grants = world.machine.live_grants().len();
    let memory = world.machine.alloc_shared(1024).expect("memory");
    memory.copy_in(0, &pattern(5, 1024 * 4096));
    let whole = vbd.front.borrow_mut().private().register(memory);
    let whole = whole.expect("registered");
    assert_eq!(world.machine.live_grants().len(), grants, "no grant for it");
    for i in 0..8 {
        let part = whole.part(i * 128, 128);
        let request = Request::data(Op::Write, i as u64 * 1024, part, 128 * 4096);
        let mut front = vbd.front.borrow_mut();
        front.private().submit(request).expect("room").abandon();
        front.private().kick();
    }
    assert_eq!(vbd.front.borrow_mut().private().in_flight(), 8);
    assert_eq!(vbd.front.borrow().in_flight(), 0, "no job has anything");
    world.settle();
    let mut ended = 0;
    let mut poll = |completion: Completion| {
        assert_eq!(completion.result, Ok(()));
        ended += 1;
    };
    vbd.front.borrow_mut().private().poll(usize::MAX, &mut poll);
    assert_eq!(ended, 8);
    let content = world.backends[0].disk().content(0, 8192);
    assert_eq!(content, pattern(5, 1024 * 4096));
    assert_eq!(world.backends[0].persistent_grants(), None);
    let freed = vbd.front.borrow_mut().private().unregister(whole);
    assert!(matches!(freed, firn_block::Unregistered::Free(_)));
    let refused = vbd.open().map_err(|error| error.step);
    assert_eq!(refused, Err(DiskStep::Open), "not on these terms");
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    assert!(world.backends[0].persistent_grants().is_some());
    assert_works(&mut world, 0);
}

#[test]
fn a_part_that_leaves_its_buffer_is_refused() {
    let world = live(Config::default());
    let buffer = world.buffer(0, 4);
    let beside = world.machine.alloc_shared(4).expect("memory");
    let forged = firn_block::Buffer::new(beside, buffer.queue(), buffer.index());
    let why = world.refusal(0, Request::data(Op::Write, 0, forged, 4096));
    assert_eq!(why, Why::ForeignBuffer);
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
