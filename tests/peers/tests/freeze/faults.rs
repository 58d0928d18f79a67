//! Freezes and thaws that fail, and what becomes of the disk.

use crate::common::*;
use firn_block::gate::Lifecycle;
use firn_block::{IoError, Op, Queue, Request};
use firn_peers::{BlkOffence, Config, live, pattern};
use firn_xen::blkfront::{ConnectError, DiskStep, Terms, WhyNot};
use firn_xen::wire::xenbus::XenbusState;
use std::rc::Rc;

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
        // The first ring's grants were deferred until the backend let go.
        world.run_for(SECOND * 60);
        assert_nothing_left(&world);
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
        matches!(
            error,
            WhyNot::Connect(ConnectError::StillMapped { grants: 4, .. })
        ),
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
fn a_step_that_is_dropped_anywhere_leaves_a_disk_that_can_be_connected() {
    for turns in 0..40 {
        let mut world = live(Config::default());
        let tokens = load(&world, 0, 4);
        let stop = Rc::new(firn_task::Signal::new());
        let (disk, until, signal) = (world.vbd(0), in_seconds(&world, 5), stop.clone());
        let list = world.guest.as_mut().expect("started").collect();
        world.guest().executor.spawn(async move {
            let seen = signal.seen();
            let _ = firn_task::race(freeze(disk, until), signal.changed(seen)).await;
        });
        for _ in 0..turns {
            world.turn();
        }
        stop.notify();
        world.settle();
        world.guest.as_mut().expect("started").deliver = None;
        let mut all = list.take();
        assert_eq!(thaw_now(&mut world, 0), Ok(()), "after {turns} turns");
        all.extend(world.drain(0));
        settle(&world, 0, tokens, all);
        assert_works(&mut world, 0);
        assert_eq!(freeze_now(&mut world, 0).0, Ok(()), "after {turns} turns");
        assert_nothing_left(&world);
    }
}

#[test]
fn a_reset_of_the_store_at_any_step_of_a_freeze_or_a_thaw_is_survived() {
    for turns in 0..60 {
        let mut world = live(Config::default());
        let (disk, until) = (world.vbd(0), in_seconds(&world, 30));
        let there_and_back = async move {
            freeze(disk.clone(), until).await?;
            disk.thaw(until).await
        };
        let result = Rc::new(std::cell::RefCell::new(None));
        let slot = result.clone();
        world.guest().executor.spawn(async move {
            *slot.borrow_mut() = Some(there_and_back.await);
        });
        for _ in 0..turns {
            world.turn();
        }
        world.store.reset();
        world.run_for(SECOND * 60);
        assert_eq!(result.take(), Some(Ok(())), "after {turns} turns");
        assert_works(&mut world, 0);
    }
}

#[test]
fn a_late_answer_to_a_request_that_was_given_up_does_not_keep_a_disk_connected() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        world.vbd(0).shut().expect("a live disk");
        world.backends[0].allow(Some(0));
        let memory = firn_xen::Hal::alloc_shared(&world.machine, 4).expect("memory");
        {
            let vbd = world.vbd(0);
            let mut front = vbd.front.borrow_mut();
            let mut queue = front.private();
            let buffer = queue.register(memory.alias()).expect("grants");
            let read = Request::data(Op::Read, 0, buffer, 4 * 4096);
            queue.submit(read).expect("room").abandon();
            queue.kick();
        }
        world.settle();
        // Not while the backend may still write to the memory.
        let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
        let (early, _) = world.finish(async move { disk.disconnect(until).await });
        let in_flight = 1;
        assert_eq!(
            why(early),
            (DiskStep::Disconnect, WhyNot::Deadline { in_flight })
        );
        world.backends[0].allow(None);
        world.backends[0].look_again();
        let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
        let (late, _) = world.finish(async move { disk.disconnect(until).await });
        assert_eq!(late, Ok(()));
        assert_nothing_left(&world);
        // The memory is nobody's, and may be had again.
        assert_eq!(thaw_now(&mut world, 0), Ok(()));
        world.vbd(0).shut().expect("a live disk");
        let again = world.vbd(0).front.borrow_mut().private().register(memory);
        assert_eq!(again.expect("grants").index(), 0);
    }
}

#[test]
fn a_connection_on_terms_that_nobody_wants_any_more_is_followed_by_one_that_somebody_wants() {
    // Whether the first handshake ends well or badly.
    for never_connects in [false, true] {
        for turns in 1..60 {
            let mut world = live(Config::default());
            assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
            if never_connects {
                world.backends[0].offend(BlkOffence::NeverConnects);
            }
            let (disk, until) = (world.vbd(0), in_seconds(&world, 60));
            let image = disk.clone();
            let stop = Rc::new(firn_task::Signal::new());
            let (signal, seen) = (stop.clone(), stop.seen());
            world.guest().executor.spawn(async move {
                let connected = image.connect(Terms::Image, until);
                let _ = firn_task::race(connected, signal.changed(seen)).await;
            });
            for _ in 0..turns {
                world.turn();
            }
            stop.notify();
            world.turn();
            let backend = world.backends[0].clone();
            let task = disk.clone();
            world.guest().executor.spawn(async move {
                let _ = task.connect(Terms::Ordinary, until).await;
            });
            world.turn();
            backend.behave();
            world.run_for(SECOND * 20);
            assert_eq!(disk.state(), Lifecycle::Freezing, "after {turns} turns");
            let persistent = world.report(0).features.contains("feature-persistent");
            assert!(persistent, "after {turns} turns: on the terms of an image");
            assert_eq!(disk.open(), Ok(()));
            assert_works(&mut world, 0);
        }
    }
}

#[test]
fn a_disk_that_goes_while_it_disconnects_leaves_no_grant() {
    for turns in 0..20 {
        let mut world = live(Config::default());
        let kept = world.buffer(0, 4);
        world.vbd(0).shut().expect("a live disk");
        let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
        let task = disk.clone();
        world.guest().executor.spawn(async move {
            let _ = task.disconnect(until).await;
        });
        for _ in 0..turns {
            world.turn();
        }
        world.backends[0].vanish();
        world.run_for(SECOND * 60);
        assert_eq!(world.machine.live_grants(), [], "after {turns} turns");
        let _ = disk.front.borrow_mut().unregister(kept);
        world.run_for(SECOND);
        assert_nothing_left(&world);
    }
}
