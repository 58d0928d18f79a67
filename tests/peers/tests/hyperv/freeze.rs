//! The freeze contract: what is late is refused before anything is touched, what
//! was accepted completes, everything is undone in reverse, and disks are found
//! again whatever the host calls them.

use crate::io::live;
use firn_block::gate::Lifecycle;
use firn_block::{
    AdoptError, Adopted, Buffer, Busy, DataPath, DiskStep, IoError, Op, Queue, Request, Token, Why,
};
use firn_hyperv::storvsc::{ControllerConfig, StepError, WhyNot};
use firn_hyperv::vmbus::{BusError, VmbusConfig};
use firn_hyperv::wire::msr::Msr;
use firn_hyperv::wire::vmbus::Version;
use firn_hyperv::{Hal, wire};
use firn_peers::hyperv::{HostConfig, HvOffence, HvWorld, Lun, StorvspConfig};
use firn_peers::{Disk, SECTORS, completions, pattern};
use firn_task::timeout;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// Shuts, drains, flushes and disconnects the first controller's disks.
fn freeze(world: &mut HvWorld) -> Result<(), StepError> {
    let (controller, until) = (world.controller(0), world.machine.now() + LONG);
    let (result, _) = world.finish(async move {
        let units = controller.units();
        for unit in &units {
            unit.ask()?;
        }
        for unit in &units {
            unit.shut()?;
        }
        for unit in &units {
            unit.drain(until).await?;
            unit.flush(until).await?;
            unit.check_idle()?;
        }
        controller.disconnect().await
    });
    result
}

/// Connects again, and opens every disk.
fn thaw(world: &mut HvWorld) {
    let controller = world.controller(0);
    let (result, _) = world.finish(async move {
        let connected = controller.connect().await;
        for unit in controller.units() {
            assert_eq!(unit.state(), Lifecycle::Freezing, "shut until it is opened");
            unit.open().expect("connected");
        }
        connected
    });
    result.expect("connected");
}

/// Everything that a submit could touch of the host's: both rings and the
/// hypercalls.
fn traces(world: &HvWorld) -> (u64, u64) {
    (world.machine.signals(), world.storvsps[0].served())
}

/// A late submit of each kind is refused, and leaves no trace.
fn is_refused(world: &mut HvWorld, state: Lifecycle) {
    let unit = world.unit(0);
    let before = (traces(world), *unit.front.borrow().stats());
    for op in [Op::Read, Op::Write] {
        let request = Request::data(op, 0, world.buffer(0, 1), 4096);
        let refused = world.submit(0, request).expect_err("late");
        assert_eq!(refused.why, Why::NotLive(state));
        assert!(refused.request.buffer.is_some(), "the buffer comes back");
    }
    for request in [Request::flush(), Request::discard(0, 8, false)] {
        let refused = world.submit(0, request).expect_err("late");
        assert_eq!(refused.why, Why::NotLive(state));
    }
    unit.front.borrow_mut().kick();
    unit.front.borrow_mut().poll(usize::MAX, &mut drop);
    world.host_turn();
    let after = (traces(world), *unit.front.borrow().stats());
    assert_eq!(before, after, "a refused request touches nothing");
}

#[test]
fn a_submit_while_shut_frozen_and_restoring_is_an_error_and_touches_no_ring() {
    let mut world = live();
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    world.unit(0).shut().expect("live");
    is_refused(&mut world, Lifecycle::Freezing);
    world.unit(0).open().expect("connected");
    freeze(&mut world).expect("idle");
    assert_eq!(world.machine.shared_pages(), 0, "the host reaches nothing");
    is_refused(&mut world, Lifecycle::Frozen);
    // The kernel's own way in is shut, too: there is no ring.
    let unit = world.unit(0);
    let own = unit.front.borrow_mut().private().submit(Request::flush());
    assert!(own.is_err(), "no ring");
    // In the middle of the handshake of a restore.
    world.host.offend(HvOffence::NeverBegins);
    let controller = world.controller(0);
    let connecting = controller.clone();
    let executor = world.guest().executor.clone();
    executor.spawn(async move {
        let _ = connecting.connect().await;
    });
    world.settle();
    is_refused(&mut world, Lifecycle::Frozen);
    world.run_for(Duration::from_secs(200));
    world.host.behave();
    // Connected, and not open yet.
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("the host behaves");
    is_refused(&mut world, Lifecycle::Freezing);
    world.unit(0).open().expect("connected");
    assert_eq!(world.read(0, 0, 8192), Ok(pattern(1, 8192)));
    world.assert_clean();
}

/// A read of the first disk that its controller has, and does not answer yet.
fn unanswered_read(world: &mut HvWorld) -> Token {
    world.storvsps[0].allow(Some(0));
    let request = Request::data(Op::Read, 0, world.buffer(0, 1), 4096);
    let token = world.submit(0, request).expect("room");
    world.settle();
    token
}

#[test]
fn what_is_in_flight_completes_before_the_channel_closes() {
    let mut world = live();
    world.storvsps[0].allow(Some(0));
    for i in 0..8 {
        let buffer = world.buffer(0, 4);
        buffer.region().copy_in(0, &pattern(i, 16384));
        let request = Request::data(Op::Write, i * 32, buffer, 16384);
        world.submit(0, request).expect("room").abandon();
    }
    world.settle();
    let unit = world.unit(0);
    unit.shut().expect("live");
    assert!(matches!(
        unit.check_idle(),
        Err(StepError {
            why: WhyNot::Busy(Busy::Unanswered(8)),
            ..
        })
    ));
    // Nothing is lost where the deadline passes: the disk is open again.
    let until = world.machine.now() + LONG;
    let draining = unit.clone();
    let (drained, done) = world.finish(async move { draining.drain(until).await });
    let late = WhyNot::Deadline { in_flight: 8 };
    assert_eq!(drained.expect_err("held back").why, late);
    assert!(done.is_empty());
    unit.open().expect("connected");
    world.storvsps[0].allow(None);
    freeze(&mut world).expect("idle");
    for i in 0..8 {
        let disk = world.disk(0, 0).content(i * 32, 32);
        assert_eq!(disk, pattern(i, 16384));
    }
    assert_eq!(world.disk(0, 0).unflushed(), 0);
    thaw(&mut world);
    world.assert_clean();
}

#[test]
fn a_controller_with_a_busy_disk_is_not_disconnected() {
    let mut world = live();
    let token = unanswered_read(&mut world);
    world.unit(0).shut().expect("live");
    let controller = world.controller(0);
    let (closed, _) = world.finish(async move { controller.disconnect().await });
    let error = closed.expect_err("busy");
    assert_eq!(error.why, WhyNot::Busy(Busy::Unanswered(1)), "{error}");
    assert_eq!(world.host.open_channels(), 1, "nothing was done");
    world.unit(0).open().expect("still connected");
    world.storvsps[0].allow(None);
    let done = world.drain(0).pop().expect("answered");
    token.settle(&done).expect("its own");
    assert_eq!(done.result, Ok(()));
    world.assert_clean();
}

#[test]
fn a_connect_that_is_dropped_half_way_is_made_again() {
    let mut world = live();
    freeze(&mut world).expect("idle");
    world.host.offend(HvOffence::NeverBegins);
    let (controller, hv) = (world.controller(0), world.guest().hv.clone());
    let (given_up, _) = world
        .finish(async move { timeout(&*hv, Duration::from_secs(1), controller.connect()).await });
    given_up.expect_err("no answer");
    world.host.behave();
    thaw(&mut world);
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_flush_that_fails_stops_the_freeze() {
    let mut world = live();
    world.disk(0, 0).fail_after(Some(0));
    let error = freeze(&mut world).expect_err("no flush");
    let why = WhyNot::Io(IoError::Reported("hardware error"));
    assert_eq!((error.step, error.why), (DiskStep::Flush, why));
    world.disk(0, 0).fail_after(None);
    world.unit(0).open().expect("still connected");
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn frozen_and_restored_a_hundred_times_without_a_leak() {
    let mut world = live();
    let mut pages = None;
    for round in 0..100 {
        assert_eq!(world.write(0, round * 8, &pattern(round, 4096)), Ok(()));
        freeze(&mut world).expect("idle");
        assert_eq!(
            *pages.get_or_insert(world.machine.pages_in_use()),
            world.machine.pages_in_use()
        );
        thaw(&mut world);
        assert_eq!(world.read(0, round * 8, 4096), Ok(pattern(round, 4096)));
    }
    world.assert_clean();
}

/// The way down to a machine that the hypervisor knows nothing of, and up again.
fn down_and_up(world: &mut HvWorld, change: impl FnOnce(&mut HvWorld)) {
    freeze(world).expect("idle");
    let bus = world.guest().bus.clone();
    let unloading = bus.clone();
    let (unloaded, _) = world.finish(async move { unloading.unload().await });
    unloaded.expect("unloaded");
    let hv = world.guest().hv.clone();
    hv.turn_off();
    for msr in [Msr::HYPERCALL, Msr::SIMP, Msr::SIEFP, Msr::SCONTROL] {
        assert_eq!(world.machine.msr(msr) & !0xffe, 0, "{msr}");
    }
    is_refused(world, Lifecycle::Frozen);
    change(world);
    hv.turn_on().expect("Hyper-V");
    let (connected, _) = world.finish(async move { bus.connect().await });
    connected.expect("contact");
}

#[test]
fn restored_with_other_relids_connections_and_versions() {
    let mut world = live();
    let buffer = world.buffer(0, 16);
    buffer.region().copy_in(0, &pattern(9, 65536));
    let old = world.guest().bus.offers()[0];
    down_and_up(&mut world, |world| {
        world.host.speaks_only(Version::V4_0);
        world.storvsps[0].speaks_only(wire::vstor::Version::V4_2);
    });
    let new = world.guest().bus.offers()[0];
    assert_eq!(old.instance, new.instance);
    assert!(old.relid != new.relid && old.connection != new.connection);
    thaw(&mut world);
    // A buffer of before is good for the new connection.
    let request = Request::data(Op::Write, 64, buffer, 65536);
    let done = world.io(0, request).expect("live");
    assert_eq!(done.result, Ok(()));
    assert_eq!(world.disk(0, 0).content(64, 128), pattern(9, 65536));
    assert_eq!(world.guest().bus.version(), Some(Version::V4_0));
    world.assert_clean();
}

#[test]
fn a_fresh_boot_goes_on_with_the_buffers_of_an_earlier_one() {
    let mut world = live();
    let buffers = [world.buffer(0, 2), world.buffer(0, 4)];
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    freeze(&mut world).expect("idle");
    let (queue, next) = {
        let unit = world.unit(0);
        let front = unit.front.borrow();
        (front.queue(), front.next_token())
    };
    let adopted = || {
        let part = |buffer: &Buffer, parked| Adopted {
            index: buffer.index(),
            region: buffer.region().alias(),
            parked,
        };
        [part(&buffers[0], true), part(&buffers[1], false)]
    };
    let bus = world.guest().bus.clone();
    let (unloaded, _) = world.finish(async move { bus.unload().await });
    unloaded.expect("unloaded");
    world.guest().hv.turn_off();
    // Another machine, as far as the drivers know.
    world.guest = None;
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.guest().scsi.keep_shut(true);
    world.settle();
    let unit = world.unit(0);
    assert_eq!(unit.state(), Lifecycle::Freezing, "shut until it is opened");
    let twice = unit
        .front
        .borrow_mut()
        .adopt(queue, next, adopted().into_iter().chain(adopted()));
    assert_eq!(twice, Err(AdoptError::Index(buffers[0].index())));
    unit.front
        .borrow_mut()
        .adopt(queue, next, adopted())
        .expect("none is lent");
    unit.open().expect("connected");
    let again = unit.front.borrow_mut().adopt(queue, next, adopted());
    assert_eq!(again, Err(AdoptError::Lent));
    let [parked, lent] = buffers;
    let reused = unit.front.borrow_mut().reuse(2).expect("it was parked");
    assert_eq!(reused.region().addr(), parked.region().addr());
    let done = world
        .io(0, Request::data(Op::Read, 0, lent, 4096))
        .expect("ours");
    assert_eq!(done.result, Ok(()));
    assert!(done.token.0 >= next, "no token twice");
    let mut data = vec![0; 4096];
    done.request
        .buffer
        .expect("it comes back")
        .region()
        .copy_out(0, &mut data);
    assert_eq!(data, pattern(1, 4096));
    world.assert_clean();
}

#[test]
fn disks_that_changed_their_numbers_are_found_by_name() {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    let disks = [Disk::new(SECTORS), Disk::new(SECTORS)];
    storvsp.plug(0, Lun::new(disks[0].clone()).named(100));
    storvsp.plug(1, Lun::new(disks[1].clone()).named(200));
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    freeze(&mut world).expect("idle");
    storvsp.unplug(0);
    storvsp.unplug(1);
    storvsp.plug(1, Lun::new(disks[0].clone()).named(100));
    storvsp.plug(6, Lun::new(disks[1].clone()).named(200));
    thaw(&mut world);
    assert_eq!(world.unit(0).number(), 1);
    assert_eq!(world.unit(1).number(), 6);
    assert_eq!(world.read(0, 0, 4096), Ok(pattern(1, 4096)));
    world.assert_clean();
}

#[test]
fn a_disk_that_is_not_there_after_a_restore_stays_frozen() {
    let mut world = live();
    world.storvsps[0].plug(3, Lun::new(Disk::new(SECTORS)).named(5));
    world.settle();
    freeze(&mut world).expect("idle");
    world.storvsps[0].unplug(3);
    // Another disk in its place is another disk.
    world.storvsps[0].plug(3, Lun::new(Disk::new(SECTORS)).named(6));
    let controller = world.controller(0);
    controller.keep_shut(true);
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("the other one is there");
    assert_eq!(world.unit(1).state(), Lifecycle::Frozen);
    assert_eq!(world.unit(0).state(), Lifecycle::Freezing);
    assert_eq!(world.unit(2).state(), Lifecycle::Freezing, "it is new");
    world.assert_clean();
}

#[test]
fn unit_attention_after_a_restore_is_nothing() {
    let mut world = live();
    freeze(&mut world).expect("idle");
    world.storvsps[0].attention(0, 0x29, 0);
    thaw(&mut world);
    world.storvsps[0].attention(0, 0x29, 0);
    assert_eq!(world.write(0, 0, &pattern(3, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_rescind_in_the_middle_of_a_freeze_is_an_error_of_that_step() {
    let mut world = live();
    unanswered_read(&mut world).abandon();
    world.unit(0).shut().expect("live");
    let (unit, until) = (world.unit(0), world.machine.now() + LONG);
    world.host.rescind(0);
    let (drained, mut done) = world.finish(async move { unit.drain(until).await });
    let why = drained.expect_err("it went").why;
    done.extend(completions(&mut *world.unit(0).front.borrow_mut()));
    assert_eq!(why, WhyNot::State(Lifecycle::Closed));
    assert_eq!(done[0].result, Err(IoError::Gone));
    assert_eq!(world.machine.shared_pages(), 0);
    world.assert_clean();
}

#[test]
fn a_host_that_keeps_the_memory_fails_the_disconnect_and_leaks_the_pages_only() {
    let mut world = live();
    world.host.offend(HvOffence::NeverTearsDown);
    let error = freeze(&mut world).expect_err("no answer");
    assert!(matches!(error.why, WhyNot::Connect(_)), "{error}");
    assert_eq!(world.unit(0).state(), Lifecycle::Closed);
    assert!(world.machine.shared_pages() > 0);
    assert_eq!(world.machine.violations(), [], "they were not used again");
}

/// A controller with two disks.
fn pair() -> HvWorld {
    let mut world = HvWorld::new(HostConfig::default());
    let storvsp = world.plug(StorvspConfig::default());
    for unit in 0..2 {
        storvsp.plug(unit, Lun::new(Disk::new(SECTORS)));
    }
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    world
}

/// Takes a disk off its controller's channel.
fn detach(world: &mut HvWorld, index: u32) {
    let (controller, unit) = (world.controller(0), world.unit(index));
    let until = world.machine.now() + LONG;
    let (detached, _) = world.finish(async move {
        unit.shut()?;
        unit.drain(until).await?;
        unit.flush(until).await?;
        controller.detach(&unit, until).await
    });
    detached.expect("idle");
}

/// Brings it back, shut, and opens it.
fn attach(world: &mut HvWorld, index: u32) {
    let (controller, unit) = (world.controller(0), world.unit(index));
    let until = world.machine.now() + LONG;
    let (attached, _) = world.finish(async move {
        controller.attach(&unit, until).await?;
        assert_eq!(unit.state(), Lifecycle::Freezing, "shut until it is opened");
        unit.open()
    });
    attached.expect("there");
}

#[test]
fn a_disk_leaves_the_channel_that_another_still_uses() {
    let mut world = pair();
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    detach(&mut world, 0);
    is_refused(&mut world, Lifecycle::Frozen);
    assert_eq!(world.write(1, 0, &pattern(2, 8192)), Ok(()));
    assert!(world.controller(0).version().is_some(), "still connected");
    attach(&mut world, 0);
    for index in 0..2 {
        let seed = u64::from(index) + 1;
        assert_eq!(world.read(index, 0, 8192), Ok(pattern(seed, 8192)));
    }
    world.assert_clean();
}

#[test]
fn a_busy_disk_does_not_leave_the_channel() {
    let mut world = pair();
    let token = unanswered_read(&mut world);
    let (controller, unit) = (world.controller(0), world.unit(0));
    let until = world.machine.now() + LONG;
    unit.shut().expect("live");
    let busy = unit.clone();
    let (detached, _) = world.finish(async move { controller.detach(&busy, until).await });
    let error = detached.expect_err("busy");
    assert_eq!(error.why, WhyNot::Busy(Busy::Unanswered(1)), "{error}");
    unit.open().expect("it stays connected");
    world.storvsps[0].allow(None);
    let done = world.drain(0).pop().expect("answered");
    token.settle(&done).expect("its own");
    assert_eq!(done.result, Ok(()));
    world.assert_clean();
}

#[test]
fn the_last_disk_closes_the_channel_and_comes_back_alone() {
    let mut world = pair();
    detach(&mut world, 0);
    detach(&mut world, 1);
    assert_eq!(world.controller(0).version(), None);
    assert_eq!(world.machine.shared_pages(), 0, "the host reaches nothing");
    attach(&mut world, 1);
    assert_eq!(
        world.unit(0).state(),
        Lifecycle::Frozen,
        "nobody wants it yet"
    );
    is_refused(&mut world, Lifecycle::Frozen);
    assert_eq!(world.write(1, 0, &pattern(2, 4096)), Ok(()));
    attach(&mut world, 0);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    assert_eq!(world.read(1, 0, 4096), Ok(pattern(2, 4096)));
    // Both once more, the other way round.
    detach(&mut world, 1);
    detach(&mut world, 0);
    attach(&mut world, 0);
    attach(&mut world, 1);
    assert_eq!(world.read(0, 0, 4096), Ok(pattern(1, 4096)));
    world.assert_clean();
}

#[test]
fn a_bus_that_could_not_be_told_to_unload_is_connected_as_before() {
    let mut world = live();
    freeze(&mut world).expect("idle");
    let bus = world.guest().bus.clone();
    world.machine.refuse_posts(u32::MAX);
    let unloading = bus.clone();
    let (unloaded, _) = world.finish(async move { unloading.unload().await });
    assert!(matches!(unloaded, Err(BusError::Post(..))), "{unloaded:?}");
    world.machine.refuse_posts(0);
    assert_eq!(bus.version(), Some(Version::V6_0));
    thaw(&mut world);
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_channel_whose_close_was_not_taken_is_closed_before_it_is_opened_again() {
    let mut world = live();
    world.machine.refuse_posts(u32::MAX);
    let error = freeze(&mut world).expect_err("no room for messages");
    assert!(matches!(error.why, WhyNot::Connect(_)), "{error}");
    assert_eq!(
        world.host.open_channels(),
        1,
        "the host knows nothing of it"
    );
    world.machine.refuse_posts(0);
    let controller = world.controller(0);
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("the host has room again");
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    world.assert_clean();
}
