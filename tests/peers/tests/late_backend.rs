//! A backend that was busy does late what it was told long ago. What its frontend
//! told it must not stand for something else by then: it would take another disk's
//! ring for this one's, or write another page to the disk.

use firn_block::gate::Lifecycle;
use firn_block::{Op, Request};
use firn_peers::{BlkOffence, Config, HOST, SECTORS, World, live, pattern};
use firn_xen::wire::event_channel::Port;
use firn_xen::wire::grant_table::GrantRef;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

/// What the frontend of the first disk published.
fn told(world: &World) -> (Vec<GrantRef>, Port) {
    let front = world.backends[0].front_path();
    let number = |key: &str| -> Option<u32> {
        let text = world.store.read(&format!("{front}/{key}"))?;
        Some(text.parse().expect("a number"))
    };
    let refs = (0..).map_while(|page| number(&format!("ring-ref{page}")));
    let refs = refs.map(GrantRef).collect();
    (refs, Port(number("event-channel").expect("published")))
}

/// A second disk comes, and works.
fn plug_another(world: &mut World) {
    world.plug(Config::default().disk(1), SECTORS);
    world.settle();
    assert_eq!(world.write(1, 0, &pattern(1, 1 << 16)), Ok(()));
}

fn set_aside(world: &World) -> usize {
    world.guest().xen.grants.set_aside()
}

/// A disk whose backend sleeps from the ring on, beyond the deadline.
fn given_up() -> World {
    let asleep = Config::default().offending(BlkOffence::Sleeps);
    let mut world = World::with_disk(asleep, SECTORS);
    world.run_for(DEADLINE + Duration::from_millis(1));
    assert_eq!(world.report(0).state, Lifecycle::Failed);
    world
}

#[test]
fn a_ring_that_was_given_up_is_not_found_to_be_another_disks() {
    let mut world = given_up();
    let (refs, port) = told(&world);
    assert_eq!(refs.len(), 16);
    plug_another(&mut world);
    for gref in refs {
        let mapped = world.machine.map_grant(HOST, gref, true);
        assert!(mapped.is_err(), "{gref} is another page");
    }
    let port_of_another = world.vbd(1).front.borrow().port();
    assert_ne!(port_of_another, Some(port));
    assert_eq!(world.read(1, 0, 1 << 16), Ok(pattern(1, 1 << 16)));
}

#[test]
fn a_backend_that_wakes_gives_back_what_it_was_told() {
    let mut world = given_up();
    let ports = world.machine.open_ports().len();
    assert_eq!(set_aside(&world), 16);
    world.backends[0].behave();
    world.backends[0].look_again();
    world.run_for(SOON);
    assert_eq!(set_aside(&world), 0);
    assert_eq!(world.machine.open_ports().len(), ports - 1);
}

#[test]
fn a_backend_that_never_wakes_keeps_it() {
    let mut world = given_up();
    world.run_for(LONG);
    assert_eq!(set_aside(&world), 16);
    plug_another(&mut world);
    assert_eq!(set_aside(&world), 16);
}

/// The pages of requests that were never answered, whether granted with each of them
/// or for good.
#[test]
fn requests_that_were_given_up_are_not_found_to_be_others() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        let buffer = world.buffer(0, 4);
        let purpose = if persistent { "blk buffer" } else { "blk data" };
        let grants = |world: &World| -> Vec<GrantRef> {
            let live = world.guest().xen.grants.live();
            let for_pages = live.iter().filter(|grant| grant.purpose == purpose);
            for_pages.map(|grant| grant.reference).collect()
        };
        world.backends[0].offend(BlkOffence::NeverTakes);
        world.backends[0].offend(BlkOffence::Sleeps);
        let request = Request::data(Op::Write, 0, buffer, 4 * 4096);
        let token = world.submit(0, request).expect("room in the queue");
        let told = grants(&world);
        assert_eq!(told.len(), 4);
        world.backends[0].close();
        world.run_for(DEADLINE + SOON);
        let done = world.drain(0).pop().expect("its end");
        token.settle(&done).expect("its own completion");
        assert!(done.result.is_err());
        plug_another(&mut world);
        for gref in told {
            let mapped = world.machine.map_grant(HOST, gref, false);
            assert!(mapped.is_err(), "{gref} is another page");
        }
        world.run_for(LONG);
        assert!(set_aside(&world) > 0, "it has never closed");
    }
}
