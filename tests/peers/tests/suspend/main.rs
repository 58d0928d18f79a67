//! Suspend and resume: the host takes the memory with requests in flight, and
//! the guest goes on there or elsewhere.

mod gone;
mod late;
mod live;

use firn_block::gate::Lifecycle;
use firn_block::{Completion, IoError, Op, Queue, Request, Token, Why};
use firn_peers::{
    BlkOffence, Config, DiscardConfig, Disk, DiskOp, NewDisk, SECTORS, World, completions, live,
    pattern,
};
use firn_xen::Hal;
use firn_xen::blkfront::{ConnectError, DiskStep, VbdConfig};
use firn_xen::console::Console;
use firn_xen::control::{Command, Control};
use firn_xen::suspend::{SuspendError, Suspended};
use firn_xen::wire::DomId;
use firn_xen::wire::console::Interface;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// The same disk behind another backend.
fn elsewhere(world: &World, config: Config) -> Vec<NewDisk> {
    let disk = world.backends[0].disk();
    vec![NewDisk { config, disk }]
}

fn migrate(world: &mut World, config: Config) {
    let disks = elsewhere(world, config);
    assert_eq!(world.migrate(disks, 0), Ok(Suspended::Resumed));
}

/// Submits a write of `pages` pages of pattern `seed`.
fn write(world: &World, seed: u64, sector: u64, pages: usize) -> Token {
    let buffer = world.buffer(0, pages);
    buffer.region().copy_in(0, &pattern(seed, pages * 4096));
    let request = Request::data(Op::Write, sector, buffer, pages * 4096);
    world.submit(0, request).expect("room in the queue")
}

/// Writes of four pages each, of patterns 1, 2, …
fn load(world: &World, requests: u64) -> Vec<Token> {
    (1..=requests).map(|i| write(world, i, i * 32, 4)).collect()
}

/// Matches tokens with completions, each exactly once; the results in order of
/// submission.
fn settle(tokens: Vec<Token>, mut done: Vec<Completion>) -> Vec<Result<(), IoError>> {
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), tokens.len(), "each request ends once");
    for (token, completion) in tokens.into_iter().zip(&done) {
        token.settle(completion).expect("its own completion");
    }
    done.into_iter().map(|done| done.result).collect()
}

fn assert_written(world: &World, requests: u64) {
    for i in 1..=requests {
        let content = world.backends[0].disk().content(i * 32, 32);
        assert_eq!(content, pattern(i, 4 * 4096), "write {i}");
    }
}

fn assert_works(world: &mut World) {
    assert!(world.is_live(0), "{:?}", world.report(0));
    let data = pattern(99, 1 << 17);
    assert_eq!(world.write(0, 8192, &data), Ok(()));
    assert_eq!(world.read(0, 8192, 1 << 17), Ok(data));
    world.assert_clean();
}

/// Freezes the disk: what is then still granted or open has leaked.
fn assert_no_leak(world: &mut World) {
    let (disk, until) = (world.vbd(0), world.machine.now() + LONG);
    let (frozen, _) = world.finish(async move {
        disk.shut()?;
        disk.drain(until).await?;
        disk.disconnect(until).await
    });
    assert_eq!(frozen, Ok(()));
    assert_eq!(world.machine.live_grants(), []);
    assert_eq!(world.machine.mapped_grants(), 0);
    assert_eq!(world.machine.open_ports().len(), 2);
    assert_eq!(world.guest().xen.grants.deferred(), 0);
}

#[test]
fn a_cancelled_suspend_leaves_everything_as_it_was() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        world.backends[0].allow(Some(5));
        let tokens = load(&world, 32);
        world.settle();
        assert_eq!(world.suspend_in_vain(), Ok(Suspended::Cancelled));
        assert!(world.is_live(0));
        assert_eq!(world.guest().xen.generation(), 0);
        world.backends[0].allow(None);
        let late = write(&world, 33, 33 * 32, 4);
        let done = world.drain(0);
        let results = settle(tokens.into_iter().chain([late]).collect(), done);
        assert!(results.iter().all(Result::is_ok));
        assert_written(&world, 33);
        assert_eq!(world.backends[0].counters().requests, 33, "none twice");
        assert_works(&mut world);
        assert_no_leak(&mut world);
    }
}

#[test]
fn what_is_in_flight_is_issued_again_on_the_new_host_and_ends_once() {
    for (answered, carried_out) in [(0, 0), (5, 0), (5, 9), (0, 32), (32, 0)] {
        let mut world = live(Config::default());
        world.backends[0].allow(Some(answered));
        let tokens = load(&world, 32);
        world.settle();
        let disks = elsewhere(&world, Config::default());
        let resumed = world.migrate(disks, carried_out);
        assert_eq!(resumed, Ok(Suspended::Resumed));
        assert_eq!(world.report(0).state, Lifecycle::Suspended);
        let done = world.drain(0);
        let order: Vec<_> = done.iter().map(|done| done.token).collect();
        assert!(order.is_sorted(), "what was answered comes first");
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_written(&world, 32);
        let again = world.backends[0].counters().requests;
        assert_eq!(again, 32 - answered as u64, "what was answered is not sent");
        world.settle();
        assert_works(&mut world);
        assert_no_leak(&mut world);
    }
}

#[test]
fn new_requests_wait_behind_the_old_ones() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(0));
    let mut tokens = load(&world, 8);
    world.settle();
    world.backends[0].disk().clear_log();
    migrate(&mut world, Config::default());
    // Over the same sectors: the later write must win.
    tokens.push(write(&world, 100, 32, 4));
    for _ in 0..3 {
        world.turn();
    }
    assert_eq!(world.report(0).state, Lifecycle::Reissuing);
    tokens.push(write(&world, 101, 64, 4));
    let done = world.drain(0);
    assert!(settle(tokens, done).iter().all(Result::is_ok));
    let disk = world.backends[0].disk();
    assert_eq!(disk.content(32, 32), pattern(100, 4 * 4096));
    assert_eq!(disk.content(64, 32), pattern(101, 4 * 4096));
    let writes = disk.log().into_iter().filter_map(|op| match op {
        DiskOp::Write { sector, .. } => Some(sector),
        _ => None,
    });
    let expected: Vec<u64> = (1..=8).map(|i| i * 32).chain([32, 64]).collect();
    assert_eq!(writes.collect::<Vec<_>>(), expected);
    assert_works(&mut world);
}

#[test]
fn a_full_queue_says_so_while_the_host_changes() {
    let mut world = live(Config {
        ring_order: None,
        ..Config::default()
    });
    world.backends[0].allow(Some(0));
    let mut tokens = load(&world, 20);
    world.settle();
    migrate(&mut world, Config::plain());
    tokens.extend((21..=32).map(|i| write(&world, i, i * 32, 4)));
    let buffer = world.buffer(0, 1);
    let why = world.refusal(0, Request::data(Op::Read, 0, buffer, 4096));
    assert_eq!(why, Why::Full);
    let done = world.drain(0);
    assert!(settle(tokens, done).iter().all(Result::is_ok));
    assert_written(&world, 32);
}

#[test]
fn more_requests_than_the_new_ring_holds_are_split_and_complete() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(0));
    let tokens: Vec<Token> = (0..100)
        .map(|i| write(&world, i, i % 16 * 1024, 100))
        .collect();
    world.settle();
    migrate(&mut world, Config::plain());
    let done = world.drain(0);
    assert!(settle(tokens, done).iter().all(Result::is_ok));
    assert_eq!(world.report(0).info.queue_depth, 32);
    assert_eq!(world.report(0).info.max_transfer, 11 * 4096);
    for i in 84..100 {
        let content = world.backends[0].disk().content(i % 16 * 1024, 800);
        assert_eq!(content, pattern(i, 100 * 4096));
    }
    assert_works(&mut world);
    assert_no_leak(&mut world);
}

#[test]
fn a_disk_that_came_back_worse_fails_by_name_what_it_cannot_do() {
    let discard = DiscardConfig {
        granularity: 512,
        alignment: 0,
        secure: false,
    };
    let before = Config {
        discard: Some(discard),
        ..Config::default()
    };
    let changed = |why| Err(IoError::DiskChanged(why));
    let capacity = 64;
    let unit = 4096;
    let discards = Op::Discard { secure: false };
    // Results of: a write in front, a read of one sector, a write far away, a
    // flush, a discard.
    let cases = [
        (before.clone(), SECTORS, [Ok(()); 5]),
        (
            Config {
                read_only: true,
                ..before.clone()
            },
            SECTORS,
            [
                changed(Why::ReadOnly),
                Ok(()),
                changed(Why::ReadOnly),
                Ok(()),
                changed(Why::ReadOnly),
            ],
        ),
        (
            before.clone(),
            capacity,
            [
                Ok(()),
                Ok(()),
                changed(Why::OutOfRange { capacity }),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            Config {
                sector_size: 4096,
                physical_sector_size: Some(4096),
                ..before.clone()
            },
            SECTORS,
            [
                Ok(()),
                changed(Why::Misaligned { unit }),
                Ok(()),
                Ok(()),
                Ok(()),
            ],
        ),
        (
            Config::plain(),
            SECTORS,
            [
                Ok(()),
                Ok(()),
                Ok(()),
                Err(IoError::NotSupported),
                changed(Why::Unsupported(discards)),
            ],
        ),
    ];
    for (after, sectors, expected) in cases {
        let mut world = live(before.clone());
        world.backends[0].allow(Some(0));
        let buffer = world.buffer(0, 1);
        let read = Request::data(Op::Read, 1, buffer, 512);
        let tokens = vec![
            write(&world, 1, 8, 1),
            world.submit(0, read).expect("room"),
            write(&world, 2, 4096, 1),
            world.submit(0, Request::flush()).expect("room"),
            world
                .submit(0, Request::discard(32, 8, false))
                .expect("room"),
        ];
        world.settle();
        let disks = elsewhere(&world, after);
        disks[0].disk.set_capacity(sectors);
        assert_eq!(world.migrate(disks, 2), Ok(Suspended::Resumed));
        let done = world.drain(0);
        assert_eq!(settle(tokens, done), expected);
        assert!(world.is_live(0));
        world.assert_clean();
    }
}

#[test]
fn a_disk_that_is_not_there_any_more_ends_everything_once() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(3));
    let mut tokens = load(&world, 16);
    world.settle();
    assert_eq!(world.migrate(Vec::new(), 5), Ok(Suspended::Resumed));
    tokens.push(write(&world, 50, 0, 1));
    let vbd = world.vbd(0);
    world.run_for(LONG);
    let mut done = completions(&mut *vbd.front.borrow_mut());
    for completion in &mut done {
        let buffer = completion.request.buffer.take();
        if let Some(buffer) = buffer {
            let _ = vbd.front.borrow_mut().unregister(buffer);
        }
    }
    let results = settle(tokens, done);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(results[3..].iter().all(|r| *r == Err(IoError::Gone)));
    world.settle();
    assert!(world.guest().bus.vbds().is_empty());
    assert_eq!(world.machine.live_grants(), []);
    assert_eq!(world.machine.open_ports().len(), 2);
    world.assert_clean();
}

#[test]
fn a_new_host_that_does_not_connect_ends_everything_at_the_deadline() {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(0));
    let tokens = load(&world, 16);
    world.settle();
    let config = Config::default().offending(BlkOffence::NeverConnects);
    migrate(&mut world, config);
    world.run_for(LONG);
    let error = world.report(0).error;
    assert!(
        matches!(error, Some(ConnectError::Deadline { .. })),
        "{error:?}"
    );
    let done = world.drain(0);
    let results = settle(tokens, done);
    assert!(results.iter().all(|result| *result == Err(IoError::Gone)));
    assert_eq!(world.machine.violations(), []);
}

#[test]
fn a_suspend_at_any_step_of_the_first_handshake_is_survived() {
    for turns in 0..60 {
        let mut world = World::new();
        world.plug(Config::default(), SECTORS);
        world.start(VbdConfig::default());
        for _ in 0..turns {
            world.turn();
        }
        // A driver domain: other paths than before.
        let domain = DomId(3 + turns % 2);
        migrate(
            &mut world,
            Config {
                domain,
                ..Config::default()
            },
        );
        world.run_for(LONG);
        assert!(world.is_live(0), "{turns}: {:?}", world.report(0));
        assert_works(&mut world);
        assert_no_leak(&mut world);
    }
}

#[test]
fn a_second_suspend_at_any_step_of_the_first_resume_is_survived() {
    for turns in 0..60 {
        let mut world = live(Config::default());
        world.backends[0].allow(Some(2));
        let tokens = load(&world, 16);
        world.settle();
        let domain = DomId(4);
        migrate(
            &mut world,
            Config {
                domain,
                ..Config::plain()
            },
        );
        world.backends[0].allow(Some(2));
        for _ in 0..turns {
            world.turn();
        }
        if turns % 3 == 0 {
            assert_eq!(world.suspend_in_vain(), Ok(Suspended::Cancelled));
            world.turn();
        }
        migrate(&mut world, Config::default());
        let done = world.drain(0);
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{turns}: {results:?}");
        assert_written(&world, 16);
        assert_works(&mut world);
        assert_no_leak(&mut world);
    }
}

#[test]
fn a_suspend_while_the_backend_closes_is_survived() {
    for (turns, cancelled) in [(0, false), (1, false), (3, false), (9, false), (2, true)] {
        let mut world = live(Config::default());
        world.backends[0].allow(Some(2));
        let tokens = load(&world, 16);
        world.settle();
        world.backends[0].close();
        for _ in 0..turns {
            world.turn();
        }
        if cancelled {
            assert_eq!(world.suspend_in_vain(), Ok(Suspended::Cancelled));
            world.backends[0].allow(None);
            let done = world.drain(0);
            assert!(settle(tokens, done).iter().all(Result::is_ok));
            world.settle();
            assert_eq!(world.report(0).state, Lifecycle::Closed);
            continue;
        }
        migrate(&mut world, Config::default());
        let done = world.drain(0);
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{turns}: {results:?}");
        assert_written(&world, 16);
        assert_works(&mut world);
    }
}

#[test]
fn a_freeze_and_a_suspend_exclude_each_other() {
    let mut world = live(Config::default());
    let disk = world.vbd(0);
    disk.shut().expect("a live disk");
    for vain in [true, false] {
        let disks = elsewhere(&world, Config::default());
        let refused = match vain {
            true => world.suspend_in_vain(),
            false => world.migrate(disks, 0),
        };
        match refused {
            Err(SuspendError::Disk(error)) => assert_eq!(error.step, DiskStep::Suspend),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(disk.open(), Ok(()));
    assert_works(&mut world);
}

#[test]
fn a_frozen_disk_thaws_on_the_new_host() {
    let mut world = live(Config::default());
    let (disk, until) = (world.vbd(0), world.machine.now() + LONG);
    let task = disk.clone();
    let (frozen, _) = world.finish(async move {
        task.shut()?;
        task.drain(until).await?;
        task.disconnect(until).await
    });
    assert_eq!(frozen, Ok(()));
    migrate(
        &mut world,
        Config {
            domain: DomId(9),
            ..Config::plain()
        },
    );
    world.settle();
    assert_eq!(disk.state(), Lifecycle::Frozen);
    let (thawed, _) = world.finish(async move { disk.thaw(until).await });
    assert_eq!(thawed, Ok(()));
    assert_works(&mut world);
}

#[test]
fn watches_and_new_disks_work_on_the_new_host() {
    let mut world = live(Config::default());
    let disks = vec![
        NewDisk {
            config: Config::default(),
            disk: world.backends[0].disk(),
        },
        NewDisk {
            config: Config::default().disk(1),
            disk: Disk::new(SECTORS),
        },
    ];
    assert_eq!(world.migrate(disks, 0), Ok(Suspended::Resumed));
    world.run_for(LONG);
    assert!(world.is_live(0) && world.is_live(1));
    world.backends[0].resize(2 * SECTORS);
    world.plug(Config::default().disk(2), SECTORS);
    world.settle();
    assert_eq!(world.report(0).info.capacity, 2 * SECTORS);
    assert!(world.is_live(2));
    assert_eq!(world.guest().bus_error.borrow().as_ref(), None);
    world.assert_clean();
}

#[test]
fn many_migrations_leak_nothing() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 8);
    world.settle();
    let (grants, pages) = (
        world.machine.live_grants().len(),
        world.machine.pages_in_use(),
    );
    let ports = world.machine.open_ports().len();
    for round in 0..50 {
        migrate(
            &mut world,
            Config {
                domain: DomId(round % 5),
                ..Config::default()
            },
        );
        world.settle();
        assert_eq!(world.machine.live_grants().len(), grants, "round {round}");
        assert_eq!(world.machine.pages_in_use(), pages, "round {round}");
        assert_eq!(world.machine.open_ports().len(), ports, "round {round}");
        let watches = world.store.guest_watches();
        assert_eq!(watches, 2, "round {round}: the bus's and the disk's");
    }
    let done = world.io(0, Request::data(Op::Write, 0, buffer, 8 * 4096));
    assert_eq!(done.expect("still registered").result, Ok(()));
    assert_works(&mut world);
}

#[test]
fn the_console_goes_on_with_what_waited_to_be_written() {
    let mut world = live(Config::default());
    let console = Rc::new(Console::attach(&world.guest().xen).expect("a console"));
    world.guest.as_mut().expect("started").console = Some(console.clone());
    let text = pattern(1, 5000);
    assert_eq!(console.write(&text), 5000);
    assert!(!console.is_drained());
    migrate(&mut world, Config::default());
    let (page, channel) = world.machine.take_console();
    assert!(channel.take_pending(), "the new host is told");
    assert_eq!(console.write(b"!"), 1);
    let produced = page.atomic_u32(std::mem::offset_of!(Interface, out_prod));
    let produced = produced.load(std::sync::atomic::Ordering::SeqCst);
    assert!(produced > 0, "what did not fit before is there");
    world.settle();
    assert_works(&mut world);
}

#[test]
fn commands_of_the_toolstack_are_acknowledged_one_by_one_on_every_host() {
    let mut world = live(Config::default());
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (xen, store) = (world.guest().xen.clone(), world.guest().store.clone());
    let list = heard.clone();
    world.guest().executor.spawn(async move {
        let mut control = Control::new(&xen, &store);
        while let Ok(command) = control.next().await {
            list.borrow_mut().push(command);
        }
    });
    let home = "/local/domain/1/control";
    for host in 0..3 {
        world.run_for(LONG);
        for (word, command) in [
            ("poweroff", Command::PowerOff),
            ("halt", Command::Halt),
            ("reboot", Command::Reboot),
            ("suspend", Command::Suspend),
            ("hibernate", Command::Hibernate),
            ("s4", Command::Hibernate),
        ] {
            world.store.write(&format!("{home}/shutdown"), word);
            world.settle();
            assert_eq!(heard.take(), [command], "host {host}");
            let left = world.store.read(&format!("{home}/shutdown"));
            assert_eq!(left.as_deref(), Some(""), "acknowledged");
        }
        world.store.write(&format!("{home}/shutdown"), "dance");
        world.settle();
        assert_eq!(heard.take(), []);
        let left = world.store.read(&format!("{home}/shutdown"));
        assert_eq!(left.as_deref(), Some("dance"), "not understood");
        match host {
            0 => world.store.reset(),
            _ => migrate(&mut world, Config::default()),
        }
    }
}
