//! Every step of the lifecycle's table is taken by a device in some story, and
//! no device takes another.

use firn_block::gate::Lifecycle::{self, *};
use firn_block::{Op, Request};
use firn_peers::{BlkOffence, Config, NewDisk, SECTORS, World, live, pattern};
use firn_xen::Hal;
use firn_xen::blkfront::{Terms, VbdConfig};
use firn_xen::trace::Source;
use std::collections::BTreeSet;
use std::time::Duration;

type Steps = BTreeSet<(Lifecycle, Lifecycle)>;

const LONG: Duration = Duration::from_secs(60);

/// The steps that the guest's devices have taken lately.
fn steps(world: &World) -> Steps {
    let mut steps = Steps::new();
    for event in world.guest().xen.trace.events() {
        let to = Lifecycle::ALL
            .into_iter()
            .find(|to| to.name() == event.what);
        if let (Source::Vbd(_), Some(to)) = (event.source, to) {
            let from = usize::try_from(event.value).expect("a small number");
            steps.insert((Lifecycle::ALL[from], to));
        }
    }
    steps
}

/// Requests that the backend holds back.
fn load(world: &World) {
    world.backends[0].allow(Some(0));
    for i in 0..4 {
        let buffer = world.buffer(0, 4);
        let request = Request::data(Op::Write, i * 32, buffer, 4 * 4096);
        world.submit(0, request).expect("room").abandon();
    }
}

/// Disconnects, with whatever result.
fn disconnect(world: &mut World) {
    let (disk, until) = (world.vbd(0), world.machine.now() + LONG);
    let (_, _) = world.finish(async move {
        disk.shut()?;
        disk.drain(until).await?;
        disk.disconnect(until).await
    });
}

fn connect(world: &mut World, terms: Terms) {
    let (disk, until) = (world.vbd(0), world.machine.now() + LONG);
    let (_, _) = world.finish(async move { disk.connect(terms, until).await });
}

fn migrate(world: &mut World, config: Config) {
    let disk = world.backends[0].disk();
    let moved = world.migrate(vec![NewDisk { config, disk }], 0);
    moved.expect("a new host");
}

fn frozen() -> World {
    let mut world = live(Config::default());
    disconnect(&mut world);
    assert_eq!(world.report(0).state, Frozen);
    world
}

type Story = fn() -> World;

const STORIES: [(&str, Story); 17] = [
    ("a freeze that is called off", || {
        let world = live(Config::default());
        world.vbd(0).shut().expect("live");
        world.vbd(0).open().expect("connected");
        world
    }),
    ("there and back", || {
        let mut world = frozen();
        connect(&mut world, Terms::Image);
        connect(&mut world, Terms::Ordinary);
        world.vbd(0).open().expect("connected");
        world
    }),
    ("a device that comes while gates are shut", || {
        let mut world = World::new();
        world.plug(Config::default(), SECTORS);
        world.start(VbdConfig::default());
        world.guest().bus.keep_shut(true);
        world.settle();
        world
    }),
    ("a device that never connects", || {
        let config = Config::default().offending(BlkOffence::NeverConnects);
        let mut world = World::with_disk(config, SECTORS);
        world.run_for(LONG);
        world
    }),
    ("an unplug, and again", || {
        let mut world = live(Config::default());
        load(&world);
        world.backends[0].close();
        world.backends[0].allow(None);
        world.drain(0);
        world.settle();
        let front = world.backends[0].front_path();
        world.store.write(&format!("{front}/state"), "1");
        world.settle();
        world
    }),
    ("a backend that is gone", || {
        let mut world = live(Config::default());
        world.backends[0].pretend("6");
        world.settle();
        world
    }),
    ("a backend that breaks a rule", || {
        let mut world = live(Config::default());
        world.backends[0].offend(BlkOffence::WrongOperation);
        let _ = world.write(0, 0, &pattern(1, 4096));
        world.settle();
        world
    }),
    ("a backend that breaks a rule of a shut disk", || {
        let mut world = live(Config::default());
        world.vbd(0).shut().expect("live");
        world.backends[0].offend(BlkOffence::ResponseIndexRunsAway);
        world.settle();
        world
    }),
    ("a backend that closes a shut disk", || {
        let mut world = live(Config::default());
        world.vbd(0).shut().expect("live");
        world.backends[0].close();
        world.settle();
        world
    }),
    ("a backend that does not answer while it closes", || {
        let mut world = live(Config::default());
        load(&world);
        world.backends[0].close();
        world.run_for(LONG);
        world
    }),
    ("a backend that does not close for a freeze", || {
        let mut world = live(Config::default());
        world.backends[0].offend(BlkOffence::NeverCloses);
        disconnect(&mut world);
        world
    }),
    ("a frozen disk that goes", || {
        let mut world = frozen();
        world.backends[0].vanish();
        world.settle();
        world
    }),
    ("a thaw that fails", || {
        let mut world = frozen();
        world.backends[0].offend(BlkOffence::NeverConnects);
        connect(&mut world, Terms::Ordinary);
        world
    }),
    ("suspends of a live disk", || {
        let mut world = live(Config::default());
        load(&world);
        world.suspend_in_vain().expect("cancelled");
        migrate(&mut world, Config::default());
        for _ in 0..3 {
            world.turn();
        }
        migrate(&mut world, Config::default());
        world.settle();
        world
    }),
    ("suspends of a disk that closes", || {
        let mut world = live(Config::default());
        load(&world);
        world.backends[0].close();
        world.settle();
        world.suspend_in_vain().expect("cancelled");
        migrate(&mut world, Config::default());
        world.settle();
        world
    }),
    ("a suspend of a shut disk that closes", || {
        let mut world = live(Config::default());
        load(&world);
        world.vbd(0).shut().expect("live");
        world.backends[0].close();
        world.settle();
        migrate(&mut world, Config::default());
        let done = world.drain(0);
        assert_eq!(done.len(), 4, "issued again, though the gate is shut");
        assert_eq!(world.report(0).state, Freezing);
        world
    }),
    ("a new host that never connects", || {
        let mut world = live(Config::default());
        migrate(
            &mut world,
            Config::default().offending(BlkOffence::NeverConnects),
        );
        world.run_for(LONG);
        world
    }),
];

#[test]
fn every_step_of_the_table_is_taken_and_no_other() {
    let table: Steps = Lifecycle::ALL
        .into_iter()
        .flat_map(|from| from.next().iter().map(move |to| (from, *to)))
        .collect();
    let mut taken = Steps::new();
    for (name, story) in STORIES {
        let world = story();
        let steps = steps(&world);
        assert!(steps.is_subset(&table), "{name}: {steps:?}");
        assert_eq!(world.machine.violations(), [], "{name}");
        taken.extend(steps);
    }
    let never: Vec<_> = table.difference(&taken).collect();
    assert!(never.is_empty(), "no story takes {never:?}");
}
