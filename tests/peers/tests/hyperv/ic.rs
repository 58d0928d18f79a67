//! Integration services: the host is answered, the kernel is told, and a host that
//! breaks a rule is not believed.

use firn_hyperv::ic::{Command, Error, Event, Offence, Service, State};
use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::{BusState, VmbusConfig};
use firn_hyperv::wire::ic::{MessageKind, Version};
use firn_hyperv::wire::msr::Msr;
use firn_hyperv::wire::ring::PacketType;
use firn_hyperv::{Hal as _, ring};
use firn_peers::hyperv::{HostConfig, HvWorld, IcHost};
use firn_task::Time;
use std::time::Duration;

const FAILED: u32 = 0x8000_4005;
/// 2020-01-01 in units of 100 ns since 1601, and in seconds since 1970.
const NEW_YEAR: u64 = 132_223_104_000_000_000;
const NEW_YEAR_UNIX: u64 = 1_577_836_800;

/// A guest with one service, which has come to an agreement.
fn served(service: Service) -> (HvWorld, IcHost) {
    let host = IcHost::new(service);
    let world = offered(&host);
    (world, host)
}

fn offered(host: &IcHost) -> HvWorld {
    let mut world = HvWorld::new(HostConfig::default());
    world.host.plug_service(host);
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    world
}

/// What the kernel is told next.
fn next(world: &mut HvWorld) -> Event {
    let services = world.guest().services.clone();
    world.finish(async move { services.next().await }).0
}

fn state(world: &HvWorld, service: Service) -> State {
    world.guest().services.state(service)
}

#[test]
fn every_service_comes_to_the_newest_version() {
    let newest = [
        (Service::Shutdown, Version::new(3, 2)),
        (Service::TimeSync, Version::new(4, 0)),
        (Service::Heartbeat, Version::new(3, 0)),
    ];
    for (service, version) in newest {
        let (world, host) = served(service);
        assert_eq!(state(&world, service), State::Open(Some(version)));
        assert_eq!(host.answers().len(), 1);
        world.assert_clean();
    }
    let old = IcHost::new(Service::Shutdown);
    old.speak(&[[1, 0]], &[[1, 0]]);
    let world = offered(&old);
    let agreed = State::Open(Some(Version::new(1, 0)));
    assert_eq!(state(&world, Service::Shutdown), agreed);
    let odd = IcHost::new(Service::Shutdown);
    odd.speak(&[[3, 0]], &[[9, 9]]);
    let world = offered(&odd);
    assert_eq!(state(&world, Service::Shutdown), State::Open(None));
    assert_eq!(odd.answers()[0].body, [0; 8]);
    world.assert_clean();
}

#[test]
fn a_command_is_answered_before_the_kernel_is_told() {
    let (mut world, host) = served(Service::Shutdown);
    world.guest().services.hibernates(true);
    for (flags, command) in [
        (0, Command::PowerOff),
        (3, Command::Reboot),
        (4, Command::Hibernate),
    ] {
        host.shut_down(flags);
        assert_eq!(next(&mut world), Event::Command(command));
        // Not before the host could see it.
        world.host_turn();
        let answers = host.answers();
        let last = answers.last().expect("an answer");
        assert_eq!((last.kind, last.status), (3, 0));
    }
    world.assert_clean();
}

#[test]
fn what_cannot_be_done_is_refused() {
    let (mut world, host) = served(Service::Shutdown);
    host.shut_down(4);
    host.shut_down(8);
    world.settle();
    let answers = host.answers();
    let statuses: Vec<u32> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [0, FAILED, FAILED]);
    // Nothing of it was kept: the next command is the first.
    host.shut_down(1);
    assert_eq!(next(&mut world), Event::Command(Command::PowerOff));
    world.assert_clean();
}

#[test]
fn the_heart_beats_as_often_as_it_is_asked() {
    let (mut world, host) = served(Service::Heartbeat);
    for sequence in [0, 41, 1 << 40] {
        host.beat(sequence);
        world.settle();
    }
    // More at once than are answered in one go.
    (0..100).for_each(|sequence| host.beat(sequence));
    world.settle();
    assert_eq!(host.answers().len(), 1 + 3 + 100);
    world.assert_clean();
}

#[test]
fn a_time_is_as_old_as_its_message() {
    let (mut world, host) = served(Service::TimeSync);
    let counter = world.machine.read_msr(Msr::TIME_REF_COUNT);
    host.tell_time(NEW_YEAR, counter, 2);
    world.machine.advance(Duration::from_secs(3));
    let Event::Time(time) = next(&mut world) else {
        panic!("a time was told");
    };
    assert_eq!(time.since_epoch, Duration::from_secs(NEW_YEAR_UNIX + 3));
    assert_eq!((time.at, time.set), (world.guest().hv.now(), false));
    // A reference time of another partition's says nothing.
    for reference in [0, u64::MAX] {
        world.machine.advance(Duration::from_secs(100));
        host.tell_time(NEW_YEAR, reference, 1);
        let Event::Time(time) = next(&mut world) else {
            panic!("a time was told");
        };
        assert_eq!(time.since_epoch, Duration::from_secs(NEW_YEAR_UNIX));
        assert!(time.set);
    }
    // Neither a probe nor a time before 1970 is told on.
    host.tell_time(NEW_YEAR, 0, 0);
    host.tell_time(1, 0, 1);
    host.tell_time(NEW_YEAR + 1, u64::MAX, 1);
    let Event::Time(time) = next(&mut world) else {
        panic!("a time was told");
    };
    assert_eq!(time.since_epoch.subsec_nanos(), 100);
    assert_eq!(host.answers().len(), 1 + 6);
    world.assert_clean();
}

#[test]
fn an_old_host_tells_the_time_as_well() {
    let host = IcHost::new(Service::TimeSync);
    host.speak(&[[3, 0]], &[[3, 0]]);
    let mut world = offered(&host);
    host.tell_old_time(NEW_YEAR, 2);
    let Event::Time(time) = next(&mut world) else {
        panic!("a time was told");
    };
    assert_eq!(time.since_epoch, Duration::from_secs(NEW_YEAR_UNIX));
    world.assert_clean();
}

#[test]
fn services_are_closed_for_an_unload_and_come_back() {
    let mut world = HvWorld::new(HostConfig::default());
    let hosts = Service::ALL.map(|service| {
        let host = IcHost::new(service);
        world.host.plug_service(&host);
        host
    });
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    let pages = world.machine.pages_in_use();
    for round in 0..3 {
        let (services, bus) = (world.guest().services.clone(), world.guest().bus.clone());
        let unloaded = world.finish(async move {
            services.close().await;
            bus.unload().await
        });
        assert_eq!(unloaded.0, Ok(()));
        assert!(hosts.iter().all(|host| !host.is_open()), "round {round}");
        assert_eq!(world.machine.shared_pages(), 0);
        // Kept closed, although there is contact again.
        let bus = world.guest().bus.clone();
        world
            .finish(async move { bus.connect().await })
            .0
            .expect("contact");
        world.settle();
        assert!(hosts.iter().all(|host| !host.is_open()), "round {round}");
        world.guest().services.open();
        world.settle();
        assert!(hosts.iter().all(IcHost::is_open), "round {round}");
    }
    assert_eq!(world.machine.pages_in_use(), pages, "nothing was leaked");
    world.assert_clean();
}

#[test]
fn a_service_that_is_taken_back_is_served_again_when_it_is_offered_again() {
    let (mut world, host) = served(Service::Heartbeat);
    world.host.rescind(0);
    world.settle();
    assert_eq!(state(&world, Service::Heartbeat), State::Closed);
    world.host.offer_again(0);
    world.settle();
    assert!(host.is_open());
    host.beat(1);
    world.settle();
    assert_eq!(host.answers().last().map(|answer| answer.kind), Some(1));
    world.assert_clean();
}

/// A host that sends one packet that is wrong; what the service ends in.
fn offended(service: Service, send: impl FnOnce(&IcHost)) -> Offence {
    let (mut world, host) = served(service);
    send(&host);
    world.settle();
    world.run_for(Duration::from_secs(60));
    let State::Failed(Error::Offence(offence)) = state(&world, service) else {
        panic!("it is {:?}", state(&world, service));
    };
    assert!(!host.is_open(), "{offence}: the channel was closed");
    assert_eq!(world.machine.shared_pages(), 0, "{offence}");
    assert_eq!(world.machine.violations(), []);
    let bus = world.guest().bus.state();
    assert!(matches!(bus, BusState::Connected(_)), "{offence}");
    offence
}

#[test]
fn each_rule_has_its_name() {
    let beat = |host: &IcHost| host.message(1, &[0; 40]);
    let heartbeat = |spoil: fn(&mut Vec<u8>)| {
        offended(Service::Heartbeat, |host| {
            let mut packet = beat(host);
            spoil(&mut packet);
            host.send_packet(6, packet);
        })
    };
    assert_eq!(heartbeat(Vec::clear), Offence::TooShort(0));
    assert_eq!(
        heartbeat(|packet| packet.truncate(24)),
        Offence::TooShort(24)
    );
    // Padded to words of 8 bytes.
    let wrong = |says, has| Offence::WrongLength { says, has };
    assert_eq!(heartbeat(|packet| packet[4] = 200), wrong(200, 72));
    assert_eq!(heartbeat(|packet| packet[4] = 19), wrong(19, 72));
    assert_eq!(heartbeat(|packet| packet[18] = 41), wrong(41, 72));
    let short = Offence::MessageTooShort(MessageKind::HEARTBEAT, 39);
    assert_eq!(heartbeat(|packet| packet[18] = 39), short);
    let foreign = Offence::WrongKind(MessageKind::SHUTDOWN);
    assert_eq!(heartbeat(|packet| packet[12] = 3), foreign);
    let foreign = Offence::WrongKind(MessageKind(0x0901));
    assert_eq!(heartbeat(|packet| packet[13] = 9), foreign);
    let completion = offended(Service::Heartbeat, |host| host.send_packet(11, beat(host)));
    assert_eq!(completion, Offence::UnknownPacket(PacketType::COMPLETION));
    let long = offended(Service::Shutdown, |host| host.send(3, &[0; 5000]));
    assert_eq!(long, Offence::Ring(ring::Offence::PacketTooLong(5056)));
    let short = offended(Service::Shutdown, |host| host.send(3, &[0; 11]));
    let kind = MessageKind::SHUTDOWN;
    assert_eq!(short, Offence::MessageTooShort(kind, 11));
    let short = offended(Service::TimeSync, |host| host.send(4, &[0; 16]));
    let kind = MessageKind::TIME_SYNC;
    assert_eq!(short, Offence::MessageTooShort(kind, 16));
    let list = |frames: u8, messages: u8| {
        offended(Service::TimeSync, |host| {
            host.send(0, &[frames, 0, messages, 0, 0, 0, 0, 0]);
        })
    };
    let versions = |frames, messages| Offence::Versions { frames, messages };
    assert_eq!(list(0, 1), versions(0, 1));
    assert_eq!(list(1, 0), versions(1, 0));
    assert_eq!(list(255, 1), versions(255, 1));
    let kind = MessageKind::NEGOTIATE;
    assert_eq!(list(3, 3), Offence::MessageTooShort(kind, 8));
    let early = offended(Service::TimeSync, |host| {
        host.send(0, &[1, 0, 1, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        host.tell_time(NEW_YEAR, 0, 1);
    });
    assert_eq!(early, Offence::NoVersion(MessageKind::TIME_SYNC));
}

#[test]
fn answers_that_nobody_reads_are_not_kept_for_ever() {
    let deaf = offended(Service::Shutdown, |host| {
        host.be_deaf(true);
        // More than the ring holds.
        (0..12).for_each(|_| host.shut_down(8));
    });
    assert_eq!(deaf, Offence::NoRoom);
}
