//! Every rule that a host can break, and the named error that it ends in: on the
//! bus, on the ring, in storvsp, in SCSI. None of them panics, and the machine's
//! rules are kept in each case.

use crate::io::live;
use crate::subchannels::{live_with, storvsp};
use firn_block::gate::Lifecycle;
use firn_block::{IoError, Op, Queue, Request, Token, Why};
use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::VmbusConfig;
use firn_hyperv::wire::vmbus::Version;
use firn_peers::hyperv::{HostConfig, HvOffence, HvWorld, Lun, StorvspConfig};
use firn_peers::{Disk, Peer, SECTORS, completions, pattern};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(1000);

/// A guest whose host misbehaves from the beginning; what becomes of bus and
/// controller.
fn from_the_beginning(offence: HvOffence) -> String {
    let host = HostConfig::default().offending(offence);
    let mut world = HvWorld::with_disk(host, StorvspConfig::default(), SECTORS);
    world.run_for(LONG);
    assert!(!world.is_live(0));
    assert_eq!(world.machine.violations(), []);
    match world.guest().contact.get() {
        Some(Err(error)) => error.to_string(),
        _ => world.failure(),
    }
}

/// The same of a controller that has further channels.
fn of_subchannels(offence: HvOffence) -> String {
    let host = HostConfig::default().offending(offence);
    let mut world = HvWorld::with_disk(host, storvsp(2), SECTORS);
    world.run_for(LONG);
    assert!(!world.is_live(0));
    assert_eq!(world.machine.violations(), []);
    world.failure()
}

/// Some requests on the way, of which the host has answered none.
fn load(world: &HvWorld, count: u64) -> Vec<Token> {
    let submit = |i| {
        let buffer = world.buffer(0, 16);
        let request = Request::data(Op::Write, i * 128, buffer, 65536);
        world.submit(0, request).expect("room")
    };
    (0..count).map(submit).collect()
}

/// An offence while requests are on the way: all of them end, the disk fails by
/// that name, and nothing that comes later is accepted.
fn on_the_ring(offence: HvOffence) -> String {
    in_flight(live(), 4, offence)
}

/// The same of a controller with several channels, with something on each.
fn on_channels(offence: HvOffence) -> String {
    in_flight(live_with(3), 24, offence)
}

fn in_flight(mut world: HvWorld, count: u64, offence: HvOffence) -> String {
    let mut tokens = load(&world, count);
    world.host.offend(offence);
    let mut done = world.drain(0);
    let unit = world.unit(0);
    if unit.front.borrow().offence().is_none() {
        // It shows when the guest sends the next one.
        world.settle();
        tokens.extend(load(&world, 1));
    }
    world.settle();
    done.extend(world.drain(0));
    let named = unit.front.borrow().offence().expect("an offence");
    assert_eq!(done.len(), tokens.len(), "{named}");
    done.sort_by_key(|done| done.token);
    for (token, done) in tokens.into_iter().zip(&done) {
        token.settle(done).expect("its own");
        let failed = Err(IoError::DeviceFailed(named.rule()));
        assert!(done.result.is_ok() || done.result == failed);
        let kept = done.result.is_err() && done.request.buffer.is_none();
        assert!(kept || done.request.buffer.is_some());
    }
    assert_eq!(unit.state(), Lifecycle::Failed);
    let late = world.submit(0, Request::flush()).expect_err("failed");
    assert_eq!(late.why, Why::NotLive(Lifecycle::Failed));
    world.run_for(LONG);
    assert_eq!(world.machine.violations(), []);
    assert_eq!(world.machine.shared_pages(), 0, "the channel was closed");
    named.to_string()
}

/// The answer to one request is an error, and the disk goes on.
fn answered(offence: HvOffence, op: Op) -> String {
    let mut world = live();
    world.host.offend(offence);
    let request = match op {
        Op::Flush => Request::flush(),
        op => Request::data(op, 0, world.buffer(0, 1), 4096),
    };
    let done = world.io(0, request).expect("accepted");
    assert!(world.is_live(0));
    assert_eq!(world.write(0, 8, &pattern(1, 4096)), Ok(()));
    world.assert_clean();
    done.result.expect_err("an error").to_string()
}

/// The answer to a request of a broken sector, with such sense data.
fn sensed(offence: HvOffence) -> String {
    let mut world = live();
    world.disk(0, 0).break_sector(0);
    world.host.offend(offence);
    world.read(0, 0, 4096).expect_err("broken").to_string()
}

/// A single disk that cannot be used: why.
fn unusable(offence: HvOffence) -> String {
    let mut world = HvWorld::new(HostConfig::default().offending(offence));
    let storvsp = world.plug(StorvspConfig::default());
    storvsp.plug(0, Lun::new(Disk::new(SECTORS)).named(1));
    storvsp.plug(1, Lun::new(Disk::new(SECTORS)).named(2));
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.settle();
    assert!(world.is_live(0), "the other disk is not bothered");
    let unusable = world.controller(0).unusable();
    assert_eq!(unusable.len(), 1);
    unusable[0].1.to_string()
}

/// Requests that are never answered, not even after a reset.
fn never_answered() -> String {
    let mut world = live();
    world.host.offend(HvOffence::NeverAnswersIo);
    let tokens = load(&world, 3);
    world.settle();
    assert!(world.drain(0).is_empty());
    world.run_for(LONG);
    let done = world.drain(0);
    assert_eq!(done.len(), tokens.len());
    tokens.into_iter().for_each(Token::abandon);
    // Nobody knows what the host does with the memory.
    assert!(done.iter().all(|done| done.request.buffer.is_none()));
    assert_eq!(world.machine.violations(), []);
    world
        .unit(0)
        .front
        .borrow()
        .offence()
        .expect("named")
        .to_string()
}

/// A host that takes back what it wrote while the guest reads it.
fn goes_back() -> String {
    let world = live();
    let tokens = load(&world, 3);
    let (unit, mut host) = (world.unit(0), world.host.clone());
    host.step();
    assert_eq!(unit.front.borrow_mut().poll(1, &mut drop), 1);
    world.host.offend(HvOffence::WriteIndexGoesBack);
    world.host.offend(HvOffence::NeverAnswersIo);
    host.step();
    let done = completions(&mut *unit.front.borrow_mut());
    assert_eq!(done.len(), 2, "the others failed");
    tokens.into_iter().for_each(Token::abandon);
    let offence = unit.front.borrow().offence();
    offence.expect("an offence").to_string()
}

/// A storm of events without work.
fn storm() -> String {
    let mut world = live();
    world.host.offend(HvOffence::EventStorm);
    let turns = (0..20_000).take_while(|_| world.is_live(0) && world.turn());
    assert!(turns.count() < 20_000, "borne for ever");
    world
        .unit(0)
        .front
        .borrow()
        .offence()
        .expect("named")
        .to_string()
}

/// A number that is offered anew before the guest has given it back.
fn offered_early() -> String {
    let host = HostConfig::default().offending(O::RefusesBegin);
    let mut world = HvWorld::with_disk(host, StorvspConfig::default(), SECTORS);
    assert_eq!(world.host.open_channels(), 0, "nobody uses the channel");
    world.host.offend(O::OffersTooEarly);
    world.host.rescind(0);
    world.settle();
    world.failure()
}

/// A host that has no room for messages, ever.
fn no_room() -> String {
    let mut world = HvWorld::new(HostConfig::default());
    world.machine.refuse_posts(u32::MAX);
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.run_for(LONG);
    contact_error(&world)
}

/// No version that both speak.
fn too_new() -> String {
    let host = HostConfig::only(Version::V2_4);
    let mut world = HvWorld::new(HostConfig {
        newest: Version(1 << 16),
        oldest: Version(1 << 16),
        ..host
    });
    world.start(VmbusConfig::default(), ControllerConfig::default());
    world.run_for(LONG);
    contact_error(&world)
}

fn contact_error(world: &HvWorld) -> String {
    let contact = world.guest().contact.get();
    contact
        .expect("it has ended")
        .expect_err("no contact")
        .to_string()
}

macro_rules! offences {
    ($($name:ident: $expected:literal = $run:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let error = $run;
                assert!(error.contains($expected), "{error}");
            }
        )*

        /// Prints what each offence ends in.
        #[test]
        fn the_table() {
            let mut rows: Vec<(&str, &str)> = vec![$((stringify!($name), $expected)),*];
            rows.sort_unstable();
            for (name, expected) in &rows {
                println!("{:<50} {expected}", name.replace('_', " "));
            }
            assert!(rows.len() >= 60, "{} offences", rows.len());
        }
    };
}

use HvOffence as O;

offences! {
    message_too_long: "message longer than its slot" = from_the_beginning(O::MessageTooLong);
    message_without_head: "message without a head" = from_the_beginning(O::MessageWithoutHead);
    offer_too_short: "message shorter than its kind (OFFER)" = from_the_beginning(O::OfferTooShort);
    open_result_too_short: "message shorter than its kind (OPEN_RESULT)"
        = from_the_beginning(O::OpenResultTooShort);
    gpadl_created_too_short: "message shorter than its kind (GPADL_CREATED)"
        = from_the_beginning(O::GpadlCreatedTooShort);
    version_too_short: "message shorter than its kind (VERSION_RESPONSE)"
        = from_the_beginning(O::VersionTooShort);
    unknown_message: "message that hosts do not send" = from_the_beginning(O::UnknownMessage);
    guest_message: "message that hosts do not send (OPEN)" = from_the_beginning(O::GuestMessage);
    version_twice: "nobody waits for (VERSION_RESPONSE)" = from_the_beginning(O::VersionTwice);
    all_offers_twice: "nobody waits for (ALL_OFFERS_DELIVERED)" = from_the_beginning(O::AllOffersTwice);
    open_result_twice: "nobody waits for (OPEN_RESULT)" = from_the_beginning(O::OpenResultTwice);
    gpadl_created_twice: "nobody waits for (GPADL_CREATED)" = from_the_beginning(O::GpadlCreatedTwice);
    gpadl_created_foreign: "nobody waits for (GPADL_CREATED)" = from_the_beginning(O::GpadlCreatedForeign);
    open_result_of_other: "nobody waits for (OPEN_RESULT)" = from_the_beginning(O::OpenResultOfOther);
    open_id_foreign: "reply to something else (OPEN_RESULT)" = from_the_beginning(O::OpenIdForeign);
    unload_unasked: "nobody waits for (UNLOAD_RESPONSE)" = from_the_beginning(O::UnloadUnasked);
    no_connection_id: "without a connection for messages" = from_the_beginning(O::NoConnectionId);
    zero_connection_id: "without a connection for messages" = from_the_beginning(O::ZeroConnectionId);
    not_connectable: "refuses to connect" = from_the_beginning(O::NotConnectable);
    speaks_nothing: "speaks no version from 2.4 on" = from_the_beginning(O::SpeaksNothing);
    speaks_only_older_versions: "speaks no version from 2.4 on" = too_new();
    never_answers_contact: "no VERSION_RESPONSE" = from_the_beginning(O::NeverAnswersContact);
    never_delivers_offers: "no ALL_OFFERS_DELIVERED" = from_the_beginning(O::NeverDeliversOffers);
    no_room_for_messages: "took no message until the deadline (insufficient buffers" = no_room();
    relid_zero: "relid out of range (relid 0)" = from_the_beginning(O::RelidZero);
    relid_too_high: "relid out of range (relid 2048)" = from_the_beginning(O::RelidTooHigh);
    offers_twice: "relid offered twice" = from_the_beginning(O::OffersTwice);
    instance_twice: "device offered twice" = from_the_beginning(O::InstanceTwice);
    subchannel_twice: "device offered twice" = of_subchannels(O::SubchannelTwice);
    offer_without_connection: "offer without a connection" = from_the_beginning(O::OfferWithoutConnection);
    monitor_too_high: "monitor bit out of range (relid" = from_the_beginning(O::MonitorTooHigh);
    rescinds_unknown: "rescind of an unknown relid" = from_the_beginning(O::RescindsUnknown);
    offers_too_early: "relid offered before it was released" = offered_early();
    rescinds_at_open: "took the offer back" = from_the_beginning(O::RescindsAtOpen);
    rescinds_at_gpadl: "took the offer back" = from_the_beginning(O::RescindsAtGpadl);
    refuses_gpadl: "GPADL_CREATED says 0xc000009a" = from_the_beginning(O::RefusesGpadl);
    never_creates_gpadl: "no GPADL_CREATED" = from_the_beginning(O::NeverCreatesGpadl);
    refuses_open: "OPEN_RESULT says 0xc0000001" = from_the_beginning(O::RefusesOpen);
    never_opens: "no OPEN_RESULT" = from_the_beginning(O::NeverOpens);

    read_index_outside: "read index outside the ring" = on_the_ring(O::ReadIndexOutside);
    read_index_odd: "read index within a packet" = on_the_ring(O::ReadIndexOdd);
    read_index_runs_away: "read index beyond what was written" = on_the_ring(O::ReadIndexRunsAway);
    write_index_outside: "write index outside the ring" = on_the_ring(O::WriteIndexOutside);
    write_index_odd: "write index within a packet" = on_the_ring(O::WriteIndexOdd);
    write_index_goes_back: "write index went back" = goes_back();
    packet_head_short: "packet with a wrong head (offset8 1" = on_the_ring(O::PacketHeadShort);
    packet_head_long: "packet with a wrong head" = on_the_ring(O::PacketHeadLong);
    packet_torn: "packet longer than what was written" = on_the_ring(O::PacketTorn);
    packet_too_long: "packet longer than any" = on_the_ring(O::PacketTooLong);
    transfer_pages: "packet of an unknown kind (transfer pages)" = on_the_ring(O::TransferPages);
    unknown_packet: "packet of an unknown kind" = on_the_ring(O::UnknownPacket);

    unknown_transaction: "completion with an unknown id" = on_the_ring(O::UnknownTransaction);
    doubled_completion: "completion of a request that is not in flight" = on_the_ring(O::DoubledCompletion);
    completion_too_short: "completion that ends too early" = on_the_ring(O::CompletionTooShort);
    wrong_operation: "completion with the wrong operation (QUERY_PROTOCOL_VERSION)"
        = on_the_ring(O::WrongOperation);
    moves_too_much: "more bytes moved than asked for" = on_the_ring(O::MovesTooMuch);
    moves_too_little: "fewer bytes were moved" = answered(O::MovesTooLittle, Op::Write);
    sense_too_long: "more sense data than there is room for (63 bytes)" = on_the_ring(O::SenseTooLong);
    sense_unknown: "an error without an explanation" = sensed(O::SenseUnknown);
    sense_too_short: "an error without an explanation" = sensed(O::SenseTooShort);
    unknown_srb_status: "request ended in an unknown way" = on_the_ring(O::UnknownSrbStatus);
    unknown_notice: "unknown notice" = on_the_ring(O::UnknownNotice);
    completes_elsewhere: "completion on another channel (channel 0)" = on_channels(O::CompletesElsewhere);
    doubled_on_channels: "completion of a request that is not in flight"
        = on_channels(O::DoubledCompletion);
    index_outside_of_a_subchannel: "write index outside the ring" = on_channels(O::WriteIndexOutside);
    event_storm: "events without work" = storm();
    never_answers_io: "requests without an answer at the deadline (3 requests)" = never_answered();

    never_begins: "no answer to a packet of the handshake" = from_the_beginning(O::NeverBegins);
    refuses_begin: "refuses BEGIN_INITIALIZATION: unsuccessful" = from_the_beginning(O::RefusesBegin);
    refuses_versions: "no version of storvsc from 2.0 on" = from_the_beginning(O::RefusesVersions);
    refuses_properties: "refuses QUERY_PROPERTIES: unsuccessful" = from_the_beginning(O::RefusesProperties);
    zero_transfer: "requests of 0 bytes are too small" = from_the_beginning(O::ZeroTransfer);
    refuses_end: "refuses END_INITIALIZATION: unsuccessful" = from_the_beginning(O::RefusesEnd);
    odd_luns: "REPORT LUNS: list of units has an impossible length 11" = from_the_beginning(O::OddLuns);
    zero_block: "READ CAPACITY: blocks of 0 bytes" = unusable(O::ZeroBlock);
    huge_disk: "READ CAPACITY: a last block" = unusable(O::HugeDisk);
    capacity_too_short: "READ CAPACITY: capacity ends after 11 bytes" = unusable(O::CapacityTooShort);
    modes_too_short: "MODE SENSE: MODE SENSE ends after 2 bytes" = unusable(O::ModesTooShort);
    wrong_page: "asked for VPD page 0x00, got 0x01" = unusable(O::WrongPage);
}

/// Offences in the end of a connection, and those that only live hosts can do.
#[test]
fn a_second_rescind_fails_the_bus() {
    let mut world = live();
    world.host.offend(O::RescindsTwice);
    world.host.rescind(0);
    world.settle();
    let failure = world.failure();
    assert!(failure.contains("second rescind"), "{failure}");
    assert_eq!(world.machine.violations(), []);
}

#[test]
fn memory_that_another_was_told_of_is_not_used_again() {
    let mut world = live();
    world.host.offend(O::TorndownForeign);
    let (controller, unit) = (world.controller(0), world.unit(0));
    unit.shut().expect("live");
    let (closed, _) = world.finish(async move { controller.disconnect().await });
    let error = closed.expect_err("not ours").to_string();
    assert!(
        error.contains("nobody waits for (GPADL_TORNDOWN)"),
        "{error}"
    );
    assert_eq!(world.machine.violations(), []);
}
