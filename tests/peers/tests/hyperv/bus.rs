//! Contact, offers, memory, channels, and their end.

use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::{BusError, BusState, Channel, ChannelConfig, VmbusConfig};
use firn_hyperv::wire::cpuid::privilege;
use firn_hyperv::wire::msr::Msr;
use firn_hyperv::wire::vmbus::Version;
use firn_hyperv::{HyperV, SetupError};
use firn_peers::hyperv::{HostConfig, HvMachine, HvOffence, HvWorld, StorvspConfig};
use std::time::Duration;

const CHANNEL: ChannelConfig = ChannelConfig {
    ring_pages: 4,
    interrupts: true,
    longest: 1024,
};

/// A guest that has made contact and opened nothing.
fn contact(host: HostConfig) -> HvWorld {
    let mut world = HvWorld::new(host);
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    world
}

#[test]
fn a_machine_that_is_not_hyper_v_or_grants_too_little_is_refused() {
    let machine = HvMachine::new();
    machine.deprive(privilege::SYNIC);
    let missing = SetupError::MissingPrivileges(privilege::SYNIC);
    assert_eq!(HyperV::new(machine.clone()).err(), Some(missing));
    assert_eq!(machine.msr(Msr::HYPERCALL), 0, "nothing was turned on");
    assert_eq!(machine.violations(), []);
}

#[test]
fn pages_go_on_and_off_in_order() {
    let machine = HvMachine::new();
    let hv = HyperV::new(machine.clone()).expect("Hyper-V");
    for msr in [Msr::HYPERCALL, Msr::SIMP, Msr::SIEFP, Msr::SCONTROL] {
        assert_eq!(machine.msr(msr) & 1, 1, "{msr}");
    }
    hv.turn_off();
    for msr in [Msr::HYPERCALL, Msr::SIMP, Msr::SIEFP, Msr::SCONTROL] {
        assert_eq!(machine.msr(msr) & !0xffe, 0, "{msr}");
    }
    hv.turn_on().expect("again");
    assert_eq!(machine.msr(Msr::SIMP) & 1, 1);
    assert_eq!(machine.violations(), []);
}

#[test]
fn every_version_is_found_from_the_newest_down() {
    for version in Version::ALL {
        let world = contact(HostConfig::only(version));
        assert_eq!(world.guest().bus.state(), BusState::Connected(version));
        assert_eq!(world.host.version(), Some(version));
        world.assert_clean();
    }
}

#[test]
fn short_answers_are_answers() {
    for version in [Version::V4_0, Version::V5_3] {
        let host = HostConfig {
            short_answers: true,
            ..HostConfig::only(version)
        };
        assert_eq!(contact(host).host.version(), Some(version));
    }
}

#[test]
fn messages_are_sent_again_while_the_host_has_no_room() {
    let mut world = HvWorld::new(HostConfig::default());
    world.plug(StorvspConfig::default());
    world.machine.refuse_posts(25);
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.guest().bus.version(), Some(Version::V6_0));
    world.assert_clean();
}

#[test]
fn a_large_gpadl_takes_bodies_and_a_channel_opens_and_closes_without_a_leak() {
    let mut world = HvWorld::new(HostConfig::default());
    world.plug(StorvspConfig::default());
    // Nobody but this test opens the channel.
    world.start(
        VmbusConfig::default(),
        ControllerConfig {
            ring_pages: 0,
            ..ControllerConfig::default()
        },
    );
    world.settle();
    let controller = world.controller(0);
    let (closed, _) = world.finish(async move { controller.disconnect().await });
    closed.expect("nothing to wait for");
    let (pages, log) = (world.machine.pages_in_use(), world.host.log().len());
    for ring_pages in [2, 13, 14, 27, 28, 41, 42, 200] {
        let bus = world.guest().bus.clone();
        let relid = bus.offers()[0].relid;
        let config = ChannelConfig {
            ring_pages,
            ..CHANNEL
        };
        let (channel, _) = world.finish(async move { Channel::open(&bus, relid, config).await });
        let channel = channel.unwrap_or_else(|error| panic!("{ring_pages}: {error}"));
        assert_eq!(world.host.open_channels(), 1);
        assert_eq!(world.machine.shared_pages(), 2 * ring_pages);
        let (closed, _) = world.finish(channel.close());
        closed.expect("closed");
        assert_eq!(world.machine.shared_pages(), 0);
        assert_eq!(world.machine.pages_in_use(), pages);
    }
    assert!(world.host.log()[log..].contains(&9), "bodies were sent");
    world.assert_clean();
}

#[test]
fn unload_waits_as_long_as_the_host_takes_and_contact_is_made_again() {
    let mut world = contact(HostConfig::default());
    let pages = world.machine.pages_in_use();
    for round in 0..100 {
        let time = if round == 3 { 50 } else { 0 };
        world.host.unload_takes(Duration::from_secs(time));
        let bus = world.guest().bus.clone();
        let (again, _) = world.finish(async move {
            bus.unload().await?;
            assert_eq!(bus.state(), BusState::Disconnected);
            bus.connect().await
        });
        assert_eq!(again, Ok(Version::V6_0), "round {round}");
    }
    assert_eq!(world.machine.pages_in_use(), pages);
    world.assert_clean();
}

#[test]
fn an_unload_that_is_not_answered_has_a_deadline() {
    let mut world = contact(HostConfig::default().offending(HvOffence::NeverUnloads));
    let bus = world.guest().bus.clone();
    let (unloaded, _) = world.finish(async move { bus.unload().await });
    assert!(
        matches!(unloaded, Err(BusError::Deadline(_))),
        "{unloaded:?}"
    );
}

#[test]
fn a_host_of_2_4_is_contacted_once() {
    let mut world = contact(HostConfig::only(Version::V2_4));
    let bus = world.guest().bus.clone();
    let (again, _) = world.finish(async move {
        bus.unload().await?;
        bus.connect().await
    });
    assert_eq!(again, Err(BusError::OnlyOnce(Version::V2_4)));
    world.assert_clean();
}

#[test]
fn a_rescinded_offer_is_given_back_and_may_come_again() {
    let mut world = HvWorld::with_disk(HostConfig::default(), StorvspConfig::default(), 64);
    let relid = world.guest().bus.offers()[0].relid;
    world.host.rescind(0);
    world.settle();
    assert!(world.guest().bus.offers().is_empty());
    assert!(world.host.log().contains(&13), "RELID_RELEASED");
    assert!(!world.is_live(0));
    assert_eq!(world.machine.shared_pages(), 0);
    world.host.offer_again(0);
    world.settle();
    let offers = world.guest().bus.offers();
    assert_eq!(offers.len(), 1, "relid {relid} and then {offers:?}");
    assert!(world.is_live(0), "the same disk again");
    world.assert_clean();
}

#[test]
fn channels_are_moved_where_the_version_can() {
    for (version, possible) in [
        (Version::V4_0, false),
        (Version::V4_1, true),
        (Version::V5_3, true),
    ] {
        let host = HostConfig::only(version);
        let mut world = HvWorld::with_disk(host, StorvspConfig::default(), 64);
        let bus = world.guest().bus.clone();
        let relid = bus.offers()[0].relid;
        let (moved, _) = world.finish(async move { bus.modify_channel(relid, 0).await });
        assert_eq!(moved.is_ok(), possible, "{version}: {moved:?}");
        world.assert_clean();
    }
    let host = HostConfig::only(Version::V6_0);
    let mut world = HvWorld::with_disk(host, StorvspConfig::default(), 64);
    let bus = world.guest().bus.clone();
    let relid = bus.offers()[0].relid;
    let (moved, _) = world.finish(async move { bus.modify_channel(relid, 9).await });
    assert!(matches!(moved, Err(BusError::Refused(..))), "{moved:?}");
}
