//! Several channels of one controller: requests go by all of them, each ends once
//! whatever becomes of a channel, and the disks work with as many as there are.

use crate::io::live;
use firn_block::gate::Lifecycle;
use firn_block::{Armed, Completion, DataPath, IoError, Op, Queue, Request, Token};
use firn_hyperv::Hal;
use firn_hyperv::storvsc::{ControllerConfig, MOST_SUBCHANNELS, Shortfall};
use firn_hyperv::vmbus::{BusError, VmbusConfig};
use firn_hyperv::wire::vstor::{Status, Version};
use firn_peers::hyperv::{HostConfig, HvOffence, HvWorld, Lun, StorvspConfig};
use firn_peers::{Disk, SECTORS, completions, pattern};
use std::time::Duration;

/// A controller that says that it may have so many further channels, and makes as
/// many as it is asked for.
pub(crate) fn storvsp(subchannels: u16) -> StorvspConfig {
    StorvspConfig {
        subchannels,
        ..StorvspConfig::default()
    }
}

/// A guest with one live disk, whose controller has so many further channels.
pub(crate) fn live_with(subchannels: u16) -> HvWorld {
    let world = HvWorld::with_disk(HostConfig::default(), storvsp(subchannels), SECTORS);
    assert!(world.is_live(0), "{}", world.failure());
    assert_eq!(world.controller(0).channels(), 1 + usize::from(subchannels));
    assert_eq!(world.controller(0).shortfall(), None);
    world
}

/// A guest whose host does something wrong about its three further channels.
fn offended(offence: HvOffence) -> HvWorld {
    let host = HostConfig::default().offending(offence);
    let mut world = HvWorld::with_disk(host, storvsp(3), SECTORS);
    world.run_for(Duration::from_secs(100));
    assert!(world.is_live(0), "{}", world.failure());
    world
}

/// So many writes of 16 KiB, of which the host has answered none.
fn writes(world: &mut HvWorld, count: u64) -> Vec<Token> {
    let submit = |i| {
        let buffer = world.buffer(0, 4);
        buffer.region().copy_in(0, &pattern(i, 16384));
        let request = Request::data(Op::Write, i * 32, buffer, 16384);
        world.submit(0, request).expect("room")
    };
    let tokens = (0..count).map(submit).collect();
    world.settle();
    tokens
}

/// Each of the writes ended well, once, and is on the disk.
fn check(world: &HvWorld, tokens: Vec<Token>, mut done: Vec<Completion>) {
    assert_eq!(done.len(), tokens.len());
    done.sort_by_key(|done| done.token);
    for (i, (token, done)) in (0..).zip(tokens.into_iter().zip(&done)) {
        token.settle(done).expect("its own");
        assert_eq!(done.result, Ok(()));
        let content = world.disk(0, 0).content(i * 32, 32);
        assert_eq!(content, pattern(i, 16384), "write {i}");
    }
}

/// Requests by each of the channels since some earlier moment.
fn served(world: &HvWorld, before: &[u64]) -> Vec<u64> {
    let served = (0..=MOST_SUBCHANNELS).map(|number| world.storvsps[0].served_by(number));
    let before = before.iter().copied().chain(std::iter::repeat(0));
    served.zip(before).map(|(now, then)| now - then).collect()
}

/// Shuts the first disk, drains it, and closes its controller's channels.
fn freeze(world: &mut HvWorld) -> Result<(), String> {
    let (controller, unit) = (world.controller(0), world.unit(0));
    let until = world.machine.now() + Duration::from_secs(30);
    let (frozen, done) = world.finish(async move {
        unit.shut()?;
        unit.drain(until).await?;
        unit.flush(until).await?;
        controller.disconnect().await
    });
    assert!(done.iter().all(|done| done.result == Ok(())), "{done:?}");
    frozen.map_err(|error| error.to_string())
}

/// Connects again and opens the disk.
fn thaw(world: &mut HvWorld) {
    let (controller, unit) = (world.controller(0), world.unit(0));
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("connected");
    unit.open().expect("connected");
}

#[test]
fn a_deep_queue_goes_by_all_channels_and_a_shallow_one_by_the_first() {
    let mut world = live_with(3);
    let before = served(&world, &[]);
    for at in 0..10 {
        assert_eq!(world.write(0, at * 8, &pattern(at, 4096)), Ok(()));
    }
    assert_eq!(
        served(&world, &before),
        [10, 0, 0, 0],
        "one after the other"
    );
    let before = served(&world, &[]);
    world.storvsps[0].allow(Some(0));
    let tokens = writes(&mut world, 4);
    assert_eq!(served(&world, &before), [4, 0, 0, 0], "a few at a time");
    world.storvsps[0].allow(None);
    let done = world.drain(0);
    check(&world, tokens, done);
    let before = served(&world, &[]);
    world.storvsps[0].allow(Some(0));
    let tokens = writes(&mut world, 32);
    let spread = served(&world, &before);
    assert!(
        spread.iter().all(|count| (4..=12).contains(count)),
        "{spread:?}"
    );
    world.storvsps[0].allow(None);
    let done = world.drain(0);
    check(&world, tokens, done);
    world.assert_clean();
}

#[test]
fn a_batch_costs_a_signal_for_each_channel_at_most() {
    let world = live_with(3);
    let before = world.machine.signals();
    let unit = world.unit(0);
    let buffers: Vec<_> = (0..32).map(|_| world.buffer(0, 1)).collect();
    let mut front = unit.front.borrow_mut();
    for buffer in buffers {
        let request = Request::data(Op::Read, 0, buffer, 4096);
        front.submit(request).expect("room").abandon();
    }
    front.kick();
    assert_eq!(world.machine.signals() - before, 4);
}

#[test]
fn a_signal_of_any_channel_wakes_who_waits() {
    let mut world = live_with(3);
    world.storvsps[0].allow(Some(0));
    let tokens = writes(&mut world, 32);
    let unit = world.unit(0);
    let events = unit.front.borrow().events().expect("connected");
    assert_eq!(unit.front.borrow_mut().arm(), Armed::Sleep);
    let before = events.seen();
    world.storvsps[0].allow(None);
    world.host_turn();
    world.guest().hv.poll();
    assert_eq!(events.seen() - before, 4, "each was armed, and heard");
    let done = world.drain(0);
    check(&world, tokens, done);
    world.assert_clean();
}

#[test]
fn a_flush_covers_what_other_channels_completed() {
    let mut world = live_with(2);
    let tokens = writes(&mut world, 24);
    let done = world.drain(0);
    check(&world, tokens, done);
    assert!(world.disk(0, 0).unflushed() > 0);
    assert_eq!(world.flush(0), Ok(Ok(())));
    assert_eq!(world.disk(0, 0).unflushed(), 0);
    world.assert_clean();
}

#[test]
fn channels_without_interrupts_are_polled() {
    let mut world = HvWorld::new(HostConfig::default());
    let controller = world.plug(storvsp(3));
    controller.plug(0, Lun::new(Disk::new(SECTORS)));
    let config = ControllerConfig {
        interrupts: false,
        ..ControllerConfig::default()
    };
    world.start(VmbusConfig::default(), config);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.controller(0).channels(), 4);
    while world.machine.take_interrupt() {}
    let tokens = writes(&mut world, 32);
    let done = world.drain(0);
    check(&world, tokens, done);
    assert!(!world.machine.take_interrupt(), "none was sent");
    world.assert_clean();
}

#[test]
fn as_many_as_host_and_guest_have() {
    for (says, makes, guest, channels) in [
        (0, 9, 3, 1),
        (1, 9, 3, 2),
        (3, 9, 1, 2),
        (3, 9, 0, 1),
        (u16::MAX, u16::MAX, u16::MAX, 4),
    ] {
        let mut world = HvWorld::new(HostConfig::default());
        let makes = StorvspConfig {
            makes,
            ..storvsp(says)
        };
        world.plug(makes).plug(0, Lun::new(Disk::new(SECTORS)));
        let config = ControllerConfig {
            subchannels: guest,
            ..ControllerConfig::default()
        };
        world.start(VmbusConfig::default(), config);
        world.settle();
        assert_eq!(
            world.controller(0).channels(),
            channels,
            "{says} and {guest}"
        );
        assert_eq!(world.controller(0).shortfall(), None);
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn old_versions_have_one_channel() {
    for version in Version::ALL {
        let config = StorvspConfig {
            subchannels: 2,
            ..StorvspConfig::only(version)
        };
        let mut world = HvWorld::with_disk(HostConfig::default(), config, SECTORS);
        let channels = if version >= Version::V5_1 { 3 } else { 1 };
        assert_eq!(world.controller(0).channels(), channels, "{version}");
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn a_connection_goes_on_without_those_that_do_not_come() {
    let failed = |error| Some(Shortfall::NotOpened(error));
    let closed = firn_hyperv::wire::vmbus::Kind::OPEN_RESULT;
    for (offence, channels, shortfall) in [
        (HvOffence::SubchannelsUnflagged, 1, None),
        (
            HvOffence::RefusesSubchannels,
            1,
            Some(Shortfall::Refused(Status::UNSUCCESSFUL)),
        ),
        (
            HvOffence::NeverAnswersSubchannels,
            1,
            Some(Shortfall::NoAnswer),
        ),
        (
            HvOffence::LateSubchannels,
            1,
            Some(Shortfall::Offers { asked: 3, came: 0 }),
        ),
        (HvOffence::SubchannelsEarly, 4, None),
        (HvOffence::SubchannelBeyond, 4, None),
        (
            HvOffence::RescindsSubchannelAtOpen,
            3,
            failed(BusError::Rescinded),
        ),
        (
            HvOffence::RefusesSubchannelOpen,
            3,
            failed(BusError::Refused(closed, 0xc000_0001)),
        ),
        (
            HvOffence::NeverOpensSubchannel,
            1,
            failed(BusError::Deadline(closed)),
        ),
    ] {
        let mut world = offended(offence);
        let controller = world.controller(0);
        assert_eq!(controller.channels(), channels, "{offence:?}");
        assert_eq!(controller.shortfall(), shortfall, "{offence:?}");
        let tokens = writes(&mut world, 32);
        let done = world.drain(0);
        check(&world, tokens, done);
        world.host.behave();
        freeze(&mut world).expect("idle");
        assert_eq!(world.machine.shared_pages(), 0, "{offence:?}");
        thaw(&mut world);
        assert_eq!(world.controller(0).channels(), 4, "{offence:?}");
        assert_eq!(world.write(0, 0, &pattern(7, 4096)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn fewer_than_promised_are_used() {
    let config = StorvspConfig {
        makes: 1,
        ..storvsp(3)
    };
    let mut world = HvWorld::with_disk(HostConfig::default(), config, SECTORS);
    assert!(!world.is_live(0), "the others may come yet");
    world.run_for(Duration::from_secs(11));
    let controller = world.controller(0);
    let shortfall = Shortfall::Offers { asked: 3, came: 1 };
    assert_eq!(controller.shortfall(), Some(shortfall));
    assert_eq!(controller.channels(), 2);
    assert_eq!(shortfall.to_string(), "1 of 3 subchannels offered");
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn what_comes_late_is_not_used_before_the_next_connection() {
    let mut world = offended(HvOffence::LateSubchannels);
    world.host.behave();
    world.settle();
    assert_eq!(world.guest().bus.offers().len(), 4, "they stand");
    assert_eq!(world.controller(0).channels(), 1);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    freeze(&mut world).expect("idle");
    thaw(&mut world);
    assert_eq!(world.controller(0).channels(), 4);
    world.assert_clean();
}

#[test]
fn an_answer_that_comes_too_late_is_nothing() {
    let mut world = HvWorld::new(HostConfig::default());
    world.plug(storvsp(3)).plug(0, Lun::new(Disk::new(SECTORS)));
    world.start(VmbusConfig::default(), ControllerConfig::default());
    let ready = |world: &HvWorld| world.storvsps[0].is_ready();
    while !ready(&world) {
        assert!(world.turn(), "the handshake comes to its end");
    }
    world.storvsps[0].allow(Some(0));
    world.run_for(Duration::from_secs(11));
    assert_eq!(world.controller(0).shortfall(), Some(Shortfall::NoAnswer));
    world.storvsps[0].allow(None);
    world.settle();
    assert!(world.is_live(0), "{}", world.failure());
    assert_eq!(world.controller(0).channels(), 1);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_wish_that_is_never_answered_hides_no_news() {
    let host = HostConfig::default().offending(HvOffence::NeverAnswersSubchannels);
    let mut world = HvWorld::new(host);
    let controller = world.plug(storvsp(3));
    controller.plug(0, Lun::new(Disk::new(SECTORS)).named(4));
    let config = ControllerConfig {
        interrupts: false,
        ..ControllerConfig::default()
    };
    world.start(VmbusConfig::default(), config);
    world.run_for(Duration::from_secs(100));
    assert!(world.is_live(0), "{}", world.failure());
    controller.plug(3, Lun::new(Disk::new(SECTORS)).named(5));
    world.run_for(Duration::from_secs(100));
    assert!(world.is_live(1), "it was looked for on an idle ring");
    world.assert_clean();
}

#[test]
fn without_memory_for_rings_there_are_fewer() {
    let mut world = live_with(3);
    freeze(&mut world).expect("idle");
    // Enough for the first one, and for one more.
    world.machine.limit_memory(64 + 4 + 32 + 10);
    thaw(&mut world);
    let shortfall = Shortfall::NotOpened(BusError::NoMemory);
    assert_eq!(world.controller(0).shortfall(), Some(shortfall));
    assert_eq!(world.controller(0).channels(), 2);
    world.machine.limit_memory(10_000);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn what_was_in_flight_on_a_channel_that_goes_is_sent_by_the_others() {
    for number in 1..=3 {
        let mut world = live_with(3);
        let pages = world.machine.shared_pages();
        world.storvsps[0].allow(Some(0));
        let tokens = writes(&mut world, 32);
        world.host.rescind_subchannel(0, number);
        world.settle();
        let controller = world.controller(0);
        assert_eq!(controller.channels(), 3);
        assert_eq!(controller.shortfall(), Some(Shortfall::TakenBack));
        assert!(world.machine.shared_pages() < pages, "its rings are free");
        assert_eq!(world.guest().bus.channels(), 3);
        assert!(world.is_live(0));
        world.storvsps[0].allow(None);
        let done = world.drain(0);
        check(&world, tokens, done);
        world.assert_clean();
    }
}

#[test]
fn with_the_last_further_channel_the_first_one_has_everything() {
    let mut world = live_with(2);
    world.storvsps[0].allow(Some(0));
    let tokens = writes(&mut world, 32);
    world.host.rescind_subchannel(0, 2);
    world.host.rescind_subchannel(0, 1);
    world.settle();
    assert_eq!(world.controller(0).channels(), 1);
    world.storvsps[0].allow(None);
    let done = world.drain(0);
    check(&world, tokens, done);
    world.assert_clean();
}

#[test]
fn a_channel_that_goes_while_a_freeze_drains_fails_nothing() {
    let mut world = live_with(3);
    world.host.hang(true);
    let mut tokens = writes(&mut world, 32);
    world.host.rescind_subchannel(0, 2);
    world.host.hang(false);
    freeze(&mut world).expect("the others carry on");
    tokens.drain(..).for_each(Token::abandon);
    for i in 0..32 {
        assert_eq!(world.disk(0, 0).content(i * 32, 32), pattern(i, 16384));
    }
    assert_eq!(world.machine.shared_pages(), 0);
    assert_eq!(world.guest().bus.channels(), 0);
    thaw(&mut world);
    assert_eq!(world.controller(0).channels(), 4);
    world.assert_clean();
}

#[test]
fn the_first_channel_takes_the_others_with_it() {
    for keeps in [false, true] {
        let mut world = live_with(3);
        if keeps {
            world.host.offend(HvOffence::KeepsSubchannels);
        }
        world.storvsps[0].allow(Some(0));
        let tokens = writes(&mut world, 8);
        world.host.rescind(0);
        world.settle();
        let done = completions(&mut *world.unit(0).front.borrow_mut());
        assert_eq!(done.len(), tokens.len());
        assert!(done.iter().all(|done| done.result == Err(IoError::Gone)));
        tokens.into_iter().for_each(Token::abandon);
        assert_eq!(world.unit(0).state(), Lifecycle::Closed);
        assert_eq!(world.machine.shared_pages(), 0, "closed, all of them");
        assert_eq!(world.guest().bus.channels(), 0);
        world.storvsps[0].allow(None);
        world.host.behave();
        world.host.offer_again(0);
        world.settle();
        assert_eq!(world.controller(0).channels(), 4, "keeps them: {keeps}");
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn restored_with_fewer_with_none_and_with_more() {
    let mut world = live_with(2);
    for (says, makes, channels) in [(1, 1, 2), (0, 0, 1), (3, 3, 4), (3, 2, 3), (3, 0, 1)] {
        freeze(&mut world).expect("idle");
        assert_eq!(world.machine.shared_pages(), 0, "the host reaches nothing");
        world.storvsps[0].make_subchannels(says, makes);
        let bus = world.guest().bus.clone();
        let (contacted, _) = world.finish(async move {
            bus.unload().await?;
            bus.connect().await
        });
        contacted.expect("contact");
        thaw(&mut world);
        assert_eq!(
            world.controller(0).channels(),
            channels,
            "{makes} of {says}"
        );
        let tokens = writes(&mut world, 32);
        let done = world.drain(0);
        check(&world, tokens, done);
    }
    world.assert_clean();
}

#[test]
fn frozen_and_restored_a_hundred_times_without_a_leak() {
    let mut world = live_with(3);
    let mut pages = None;
    for round in 0..100 {
        assert_eq!(world.write(0, round * 8, &pattern(round, 4096)), Ok(()));
        freeze(&mut world).expect("idle");
        let now = world.machine.pages_in_use();
        assert_eq!(*pages.get_or_insert(now), now);
        assert_eq!(world.guest().bus.gpadls(), 0);
        thaw(&mut world);
        assert_eq!(world.controller(0).channels(), 4);
    }
    world.assert_clean();
}

#[test]
fn a_disconnect_that_fails_is_made_good_by_a_connect() {
    let mut world = live_with(3);
    world.host.offend(HvOffence::NeverTearsDown);
    let error = freeze(&mut world).expect_err("no answer");
    assert!(error.contains("GPADL_TORNDOWN"), "{error}");
    assert_eq!(world.host.open_channels(), 0, "closed all the same");
    world.host.behave();
    let controller = world.controller(0);
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("the host behaves");
    assert_eq!(world.controller(0).channels(), 4);
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn channels_whose_close_was_not_taken_are_closed_before_the_first_one() {
    let mut world = live_with(3);
    world.machine.refuse_posts(u32::MAX);
    freeze(&mut world).expect_err("no room for messages");
    assert_eq!(
        world.host.open_channels(),
        4,
        "the host knows nothing of it"
    );
    world.machine.refuse_posts(0);
    let controller = world.controller(0);
    let (connected, _) = world.finish(async move { controller.connect().await });
    connected.expect("the host has room again");
    assert_eq!(world.controller(0).channels(), 4);
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    // The host complains where the first one goes before the others.
    world.assert_clean();
}

#[test]
fn a_connect_that_is_given_up_at_a_further_channel_is_made_again() {
    let mut world = live_with(3);
    freeze(&mut world).expect("idle");
    world.host.offend(HvOffence::NeverOpensSubchannel);
    let (controller, hv) = (world.controller(0), world.guest().hv.clone());
    let second = Duration::from_secs(1);
    let (given_up, _) =
        world.finish(async move { firn_task::timeout(&*hv, second, controller.connect()).await });
    given_up.expect_err("no answer");
    world.host.behave();
    thaw(&mut world);
    assert_eq!(world.controller(0).channels(), 4);
    assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
    world.assert_clean();
}

#[test]
fn a_reset_ends_what_is_on_every_channel() {
    let mut world = live_with(3);
    world.host.offend(HvOffence::AnswersAfterReset);
    let tokens = writes(&mut world, 32);
    assert!(world.drain(0).is_empty());
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.storvsps[0].resets(), 1);
    let done = world.drain(0);
    check(&world, tokens, done);
    world.assert_clean();
}

#[test]
fn a_guest_of_a_host_with_one_channel_asks_for_no_more() {
    let world = live();
    assert_eq!(world.controller(0).channels(), 1);
    assert_eq!(world.controller(0).shortfall(), None);
    assert_eq!(world.guest().bus.offers().len(), 1);
    world.assert_clean();
}
