//! Devices that come, change, close and go, and hosts that are slow to say so.

use firn_block::gate::Lifecycle;
use firn_block::{IoError, Op, Queue, Request, Token, Why};
use firn_peers::{BlkOffence, CallKind, Config, Order, Perms, SECTORS, World, live, pattern};
use firn_xen::blkfront::{ConnectError, Offence, VbdConfig};
use firn_xen::wire::errno::Errno;
use firn_xen::wire::xenbus::XenbusState;
use std::time::Duration;

const LIST: &str = "/local/domain/1/device/vbd";
const DEADLINE: Duration = Duration::from_secs(5);
/// More than any wait of a device on its way down, all deadlines together.
const LONG: Duration = Duration::from_secs(60);

/// Submits reads of four pages each.
fn load(world: &World, index: u32, requests: u64) -> Vec<Token> {
    let submit = |i| {
        let buffer = world.buffer(index, 4);
        let request = Request::data(Op::Read, i * 32, buffer, 4 * 4096);
        world.submit(index, request).expect("room in the queue")
    };
    (0..requests).map(submit).collect()
}

/// Everything that ended, matched with its token; each exactly once. Buffers are
/// given back.
fn settle(world: &mut World, index: u32, tokens: Vec<Token>) -> Vec<Result<(), IoError>> {
    let mut done = world.drain(index);
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), tokens.len(), "each request ends once");
    for (token, completion) in tokens.into_iter().zip(&done) {
        token.settle(completion).expect("its own completion");
    }
    let vbd = world.vbd(index);
    let give_back = |completion: firn_block::Completion| {
        if let Some(buffer) = completion.request.buffer {
            // Free, or kept by the queue because the backend maps it.
            let _ = vbd.front.borrow_mut().unregister(buffer);
        }
        completion.result
    };
    done.into_iter().map(give_back).collect()
}

/// Nothing is granted, mapped or open any more.
fn assert_nothing_left(world: &World) {
    let live = world.guest().xen.grants.live();
    let of_rings: Vec<_> = live.iter().filter(|g| g.purpose != "blk buffer").collect();
    assert!(of_rings.is_empty(), "{of_rings:?}");
    assert_eq!(world.machine.mapped_grants(), 0);
    assert_eq!(world.guest().xen.grants.deferred(), 0);
    assert_eq!(world.guest().xen.grants.set_aside(), 0);
    // The store's and the console's.
    assert_eq!(world.machine.open_ports().len(), 2);
    world.assert_clean();
}

#[test]
fn two_disks_do_not_know_of_each_other() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    world.plug(Config::plain().disk(1), 2 * SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    assert_eq!(world.report(1).info.capacity, 2 * SECTORS);
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    assert_eq!(world.write(1, 0, &pattern(2, 8192)), Ok(()));
    assert_eq!(world.read(0, 0, 8192), Ok(pattern(1, 8192)));
    assert_eq!(world.read(1, 0, 8192), Ok(pattern(2, 8192)));
    world.assert_clean();
}

#[test]
fn a_disk_of_a_driver_domain_is_granted_to_that_domain() {
    let mut world = live(Config {
        domain: firn_xen::wire::DomId(7),
        ..Config::default()
    });
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    world.assert_clean();
}

#[test]
fn the_disk_grows_and_shrinks_while_it_is_connected() {
    let mut world = live(Config::default());
    for sectors in [2 * SECTORS, SECTORS / 2, 5 << 32] {
        world.backends[0].resize(sectors);
        world.settle();
        assert_eq!(world.report(0).info.capacity, sectors);
        let data = pattern(sectors, 4096);
        assert_eq!(world.write(0, sectors - 8, &data), Ok(()));
        let buffer = world.buffer(0, 1);
        let beyond = Request::data(Op::Read, sectors, buffer, 512);
        let capacity = sectors;
        assert_eq!(world.refusal(0, beyond), Why::OutOfRange { capacity });
    }
    world.assert_clean();
}

#[test]
fn a_disk_that_is_plugged_later_is_found() {
    let mut world = live(Config::default());
    for index in 1..4 {
        world.plug(Config::default().disk(index), SECTORS);
        world.settle();
        assert!(world.is_live(index));
        assert_eq!(world.write(index, 0, &pattern(1, 4096)), Ok(()));
    }
    world.assert_clean();
}

#[test]
fn a_disk_is_unplugged_in_good_order() {
    for config in [Config::default(), Config::plain()] {
        let mut world = live(config);
        assert_eq!(world.write(0, 0, &pattern(1, 1 << 20)), Ok(()));
        world.backends[0].unplug();
        world.settle();
        assert_eq!(world.backends[0].state(), XenbusState::CLOSED);
        assert_eq!(world.store.list("/local/domain/1/device/vbd"), [""; 0]);
        assert!(world.guest().bus.vbds().is_empty());
        assert_nothing_left(&world);
    }
}

#[test]
fn what_is_in_flight_ends_before_an_unplug_and_what_is_late_is_refused() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            order: Order::Random,
            ..Config::default()
        });
        world.backends[0].allow(Some(5));
        let tokens = load(&world, 0, 32);
        let vbd = world.vbd(0);
        world.backends[0].unplug();
        world.settle();
        assert_eq!(world.report(0).state, Lifecycle::Closing);
        let late = world.refusal(0, Request::flush());
        assert_eq!(late, Why::NotLive(Lifecycle::Closing));
        world.backends[0].allow(None);
        let results = settle(&mut world, 0, tokens);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        world.settle();
        assert_eq!(vbd.to_report().state, Lifecycle::Closed);
        assert!(world.guest().bus.vbds().is_empty());
        assert_nothing_left(&world);
    }
}

#[test]
fn a_backend_that_never_answers_while_closing_is_failed_at_the_deadline() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        world.backends[0].offend(BlkOffence::NeverAnswers);
        let tokens = load(&world, 0, 32);
        let vbd = world.vbd(0);
        world.backends[0].close();
        world.run_for(DEADLINE - Duration::from_millis(1));
        assert_eq!(vbd.to_report().state, Lifecycle::Closing);
        world.run_for(Duration::from_millis(2));
        let outstanding = 32;
        assert_eq!(
            vbd.to_report().offence,
            Some(Offence::NoAnswer { outstanding })
        );
        let results = settle(&mut world, 0, tokens);
        assert!(results.iter().all(Result::is_err));
        world.run_for(LONG);
        assert_eq!(world.machine.violations(), []);
        assert_eq!(vbd.to_report().state, Lifecycle::Failed);
    }
}

#[test]
fn a_backend_that_closes_and_offers_itself_again_is_connected_again() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 4);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.backends[0].reconfigure(|config| *config = Config::plain());
    world.backends[0].close();
    world.settle();
    assert_eq!(world.report(0).state, Lifecycle::Closed);
    let refused = world.submit(0, Request::data(Op::Read, 0, buffer, 4096));
    let refused = refused.expect_err("closed");
    assert_eq!(refused.why, Why::NotLive(Lifecycle::Closed));
    // The toolstack offers the device anew.
    let front = world.backends[0].front_path();
    world.store.write(&format!("{front}/state"), "1");
    world.settle();
    assert!(world.is_live(0), "{:?}", world.report(0));
    assert_eq!(
        world.report(0).info.queue_depth,
        32,
        "features are read again"
    );
    let done = world.io(0, refused.request).expect("live again");
    assert_eq!(done.result, Ok(()), "a registered buffer stays registered");
    world.assert_clean();
}

#[test]
fn a_disk_that_vanishes_ends_everything() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        world.backends[0].allow(Some(3));
        let tokens = load(&world, 0, 32);
        world.settle();
        world.backends[0].vanish();
        world.run_for(LONG);
        let results = settle(&mut world, 0, tokens);
        assert!(results.iter().filter(|result| result.is_err()).count() >= 29);
        world.settle();
        assert!(world.guest().bus.vbds().is_empty());
        assert_nothing_left(&world);
    }
}

#[test]
fn a_disk_may_come_back_after_it_went() {
    let mut world = live(Config::default());
    for round in 0..5 {
        assert_eq!(world.write(0, 0, &pattern(round, 8192)), Ok(()));
        let disk = world.backends.last().expect("a backend").disk();
        if round % 2 == 0 {
            world.backends.last().expect("a backend").unplug();
        } else {
            world.backends.last().expect("a backend").vanish();
        }
        world.run_for(LONG);
        assert!(world.guest().bus.vbds().is_empty());
        assert_nothing_left(&world);
        world.plug_disk(Config::default(), disk);
        world.settle();
        assert!(world.is_live(0));
        assert_eq!(world.read(0, 0, 8192), Ok(pattern(round, 8192)));
    }
}

#[test]
fn a_step_that_never_comes_is_named_at_the_deadline() {
    let cases = [
        (
            BlkOffence::NeverInitWait,
            "InitWait",
            XenbusState::INITIALISING,
        ),
        (BlkOffence::NeverConnects, "connect", XenbusState::INIT_WAIT),
    ];
    for (offence, wanted, at) in cases {
        let mut world = World::with_disk(Config::default().offending(offence), SECTORS);
        world.run_for(DEADLINE - Duration::from_millis(1));
        assert_eq!(world.report(0).error, None);
        world.run_for(Duration::from_millis(2));
        match world.report(0).error {
            Some(ConnectError::Deadline { step, state }) => {
                assert!(step.contains(wanted), "{step}");
                assert_eq!(state, at);
            }
            other => panic!("{offence:?}: {other:?}"),
        }
        world.run_for(LONG);
        assert_nothing_left(&world);
    }
}

#[test]
fn a_backend_that_closes_instead_of_connecting_is_named_at_once() {
    let config = Config::default().offending(BlkOffence::ClosedInsteadOfConnected);
    let world = World::with_disk(config, SECTORS);
    let state = XenbusState::CLOSED;
    match world.report(0).error {
        Some(ConnectError::OutOfOrder { step, state: at }) => {
            assert_eq!((step, at), ("connect", state));
        }
        other => panic!("{other:?}"),
    }
    assert_nothing_left(&world);
}

#[test]
fn a_missing_backend_is_named() {
    for key in ["backend", "backend-id"] {
        for value in [None, Some("")] {
            let mut world = World::new();
            let back = world.plug(Config::default(), SECTORS);
            let path = format!("{}/{key}", back.front_path());
            match value {
                None => world.store.remove(&path),
                Some(text) => world.store.write(&path, text),
            }
            world.start(VbdConfig::default());
            world.settle();
            assert_eq!(world.report(0).error, Some(ConnectError::NoBackend { key }));
        }
    }
    let mut world = World::new();
    let back = world.plug(Config::default(), SECTORS);
    world
        .store
        .write(&format!("{}/backend-id", back.front_path()), "dom0");
    world.start(VbdConfig::default());
    world.settle();
    let key = "backend-id";
    assert_eq!(world.report(0).error, Some(ConnectError::NoBackend { key }));
}

#[test]
fn a_device_number_that_is_no_disk_is_reported_and_others_work() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    for device in [51713, 7, u32::MAX] {
        let config = Config {
            device,
            ..Config::default()
        };
        world.plug(config, SECTORS);
    }
    world.store.write("/local/domain/1/device/vbd/what", "");
    world.start(VbdConfig::default());
    world.settle();
    assert!(world.is_live(0));
    let unusable = world.guest().bus.unusable();
    assert_eq!(unusable.len(), 3, "{unusable:?}");
}

#[test]
fn what_xen_refuses_is_named_and_everything_is_given_back() {
    let refuse = |what, world: &World| match what {
        "event channel" => {
            let machine = &world.machine;
            machine.fail_next(CallKind::AllocUnbound, Errno::ENOSPC);
        }
        _ => world.machine.limit_memory(3),
    };
    for what in ["event channel", "memory"] {
        let mut world = World::new();
        world.start(VbdConfig::default());
        world.settle();
        world.plug(Config::default(), SECTORS);
        refuse(what, &world);
        world.settle();
        let error = world.report(0).error.expect("refused").to_string();
        assert!(error.contains(what), "{error}");
        world.run_for(LONG);
        assert_nothing_left(&world);
    }
}

#[test]
fn a_guest_without_grants_for_indirect_pages_goes_on_without() {
    let mut world = World::new();
    world.machine.limit_grant_frames(1);
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    assert!(world.is_live(0));
    assert_eq!(world.report(0).info.max_transfer, 11 * 4096);
    assert_eq!(world.write(0, 0, &pattern(1, 1 << 19)), Ok(()));
    assert_eq!(world.read(0, 0, 1 << 19), Ok(pattern(1, 1 << 19)));
    world.assert_clean();
}

#[test]
fn few_grants_make_requests_slow_and_never_wrong() {
    let mut world = World::new();
    world.machine.limit_grant_frames(1);
    world.plug(Config::plain(), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    let tokens: Vec<Token> = (0..8)
        .map(|i| {
            let buffer = world.buffer(0, 128);
            buffer.region().copy_in(0, &pattern(i, 128 * 4096));
            let request = Request::data(Op::Write, i * 1024, buffer, 128 * 4096);
            world.submit(0, request).expect("room in the queue")
        })
        .collect();
    let results = settle(&mut world, 0, tokens);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    for i in 0..8 {
        let content = world.backends[0].disk().content(i * 1024, 1024);
        assert_eq!(content, pattern(i, 128 * 4096));
    }
    world.assert_clean();
}

#[test]
fn a_reset_of_the_store_does_not_disturb_the_disks() {
    let mut world = live(Config::default());
    let tokens = load(&world, 0, 16);
    world.store.reset();
    let results = settle(&mut world, 0, tokens);
    assert!(results.iter().all(Result::is_ok));
    world.run_for(LONG);
    assert!(world.is_live(0), "{:?}", world.report(0));
    world.backends[0].resize(2 * SECTORS);
    world.plug(Config::default().disk(1), SECTORS);
    world.settle();
    assert_eq!(
        world.report(0).info.capacity,
        2 * SECTORS,
        "watches are back"
    );
    assert!(world.is_live(1));
    world.assert_clean();
}

#[test]
fn a_reset_of_the_store_at_any_step_of_the_handshake_is_survived() {
    for turns in 0..60 {
        let mut world = World::new();
        world.plug(Config::default(), SECTORS);
        world.start(VbdConfig::default());
        for _ in 0..turns {
            world.turn();
        }
        world.store.reset();
        world.run_for(LONG);
        assert!(
            world.is_live(0),
            "after {turns} turns: {:?}",
            world.report(0)
        );
        assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn a_slow_store_only_takes_longer() {
    let mut world = World::new();
    world.store.offend(firn_peers::StoreOffence::OneBytePerStep);
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    assert!(world.is_live(0));
    world.assert_clean();
}

#[test]
fn a_disk_that_was_pulled_stays_until_its_buffers_are_back() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 4);
    world.backends[0].unplug();
    world.settle();
    assert_eq!(
        world.guest().bus.vbds().len(),
        1,
        "a job has a buffer of it"
    );
    let queue = &world.guest().bus.vbds()[0].front;
    let back = queue.borrow_mut().unregister(buffer);
    assert!(
        matches!(back, firn_block::Unregistered::Free(_)),
        "{back:?}"
    );
    world.settle();
    assert_eq!(world.guest().bus.vbds().len(), 0);
}

#[test]
fn the_end_of_the_whole_list_is_heard_among_other_news() {
    let mut world = live(Config::default());
    let front = world.backends[0].front_path();
    world.store.write(&format!("{front}/news"), "");
    world.store.remove(LIST);
    world.settle();
    assert!(world.vbd(0).is_removed());
}

/// The keys of a device, taken away, to be written again one by one.
fn take_keys(world: &World, front: &str) -> Vec<(String, String)> {
    let read = |key: &String| {
        let path = format!("{front}/{key}");
        let value = world.store.read(&path).expect("listed");
        (path, value)
    };
    let keys = world.store.list(front).iter().map(read).collect();
    world.store.remove(front);
    keys
}

#[test]
fn a_disk_that_comes_again_before_a_job_let_go_of_it_is_found_then() {
    let mut world = World::new();
    // What is made below it inherits this.
    let perms = Perms::readable_by(1, 0);
    world.store.write_as(LIST, "", &perms);
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    let buffer = world.buffer(0, 4);
    world.backends[0].vanish();
    world.run_for(LONG);
    let back = world.plug(Config::default(), SECTORS);
    let keys = take_keys(&world, &back.front_path());
    world.settle();
    let old = world.vbd(0);
    assert!(old.is_removed() && !old.has_ended());
    // Only keys are written: as news they are of a device that is known.
    for (path, value) in keys {
        world.store.write_as(&path, &value, &perms);
    }
    world.settle();
    assert!(world.vbd(0).is_removed(), "the old one is still there");
    let _ = old.front.borrow_mut().unregister(buffer);
    world.run_for(LONG);
    assert!(world.is_live(0), "{:?}", world.report(0));
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
}
