//! A store daemon that breaks the rules, seen by a whole guest: while it
//! looks for its disks, and while a disk is at work. Nothing panics, nothing
//! hangs, the error has a name, and requests go on ending once each. What the
//! client makes of each offence by itself is tested beside it.

use firn_block::gate::Lifecycle;
use firn_peers::{Config, SECTORS, StoreOffence, World, live, pattern};
use firn_xen::blkfront::VbdConfig;
use std::time::Duration;

/// More than all deadlines of the store and of a device together.
const LONG: Duration = Duration::from_secs(120);

/// Why the guest's bus, its store or its disk gave up, if one did.
fn trouble(world: &World) -> Option<String> {
    let guest = world.guest();
    let bus = guest.bus_error.borrow().clone().or(guest.bus.trouble());
    let bus = bus.map(|error| error.to_string());
    let store = guest.store.is_failed().map(|error| error.to_string());
    let vbds = guest.bus.vbds();
    let disk = vbds.first().and_then(|vbd| vbd.to_report().error);
    store.or(bus).or(disk.map(|error| error.to_string()))
}

/// The offence happens at some turn of the guest's start. What came of it.
fn while_starting(offence: StoreOffence, turns: usize) -> Option<String> {
    let mut world = World::new();
    for i in 0..300 {
        // So many devices that they are listed in parts.
        let junk = format!("/local/domain/1/device/vbd/none-{i:020}");
        world.store.write(&junk, "");
    }
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig::default());
    for _ in 0..turns {
        world.turn();
    }
    world.store.offend(offence);
    if offence == StoreOffence::EventStorm {
        // Never at rest, by design: it works all the same.
        for _ in 0..2_000 {
            world.turn();
        }
        world.store.behave();
    }
    if offence == StoreOffence::NeverReconnects {
        world.store.reset();
    }
    world.run_for(LONG);
    if !world.guest().bus.vbds().is_empty() && world.is_live(0) {
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        assert_eq!(world.read(0, 0, 4096), Ok(pattern(1, 4096)));
    }
    assert_eq!(world.machine.violations(), []);
    trouble(&world)
}

/// The offence happens while a disk is at work and the store is talked to.
fn while_live(offence: StoreOffence) -> Option<String> {
    let mut world = live(Config::default());
    world.store.offend(offence);
    // Something to talk about: a new size, and a new device.
    world.backends[0].resize(2 * SECTORS);
    world.plug(Config::default().disk(1), SECTORS);
    if offence == StoreOffence::EventStorm {
        for _ in 0..2_000 {
            world.turn();
        }
        world.store.behave();
    }
    if offence == StoreOffence::NeverReconnects {
        world.store.reset();
    }
    world.run_for(LONG);
    let state = world.report(0).state;
    if state == Lifecycle::Live {
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        assert_eq!(world.read(0, 0, 4096), Ok(pattern(1, 4096)));
    } else {
        assert_eq!(state, Lifecycle::Failed);
    }
    assert_eq!(world.machine.violations(), []);
    trouble(&world)
}

/// The offence at several moments; it must end in the expected error at one of
/// them at least, and in that or none at the others.
fn check(offence: StoreOffence, expected: &str) {
    let mut seen = Vec::new();
    for turns in [0, 1, 2, 3, 5, 8, 13] {
        seen.push(while_starting(offence, turns));
    }
    seen.push(while_live(offence));
    if expected == "none" {
        assert!(seen.iter().all(Option::is_none), "{offence:?}: {seen:?}");
        return;
    }
    let named = seen.iter().flatten().any(|text| text.contains(expected));
    assert!(named, "{offence:?}: {seen:?}");
}

macro_rules! offences {
    ($($name:ident: $offence:ident = $expected:literal;)*) => {
        $(
            #[test]
            fn $name() {
                check(StoreOffence::$offence, $expected);
            }
        )*

        /// Prints what each offence ends in.
        #[test]
        fn the_table() {
            for (name, expected) in [$((stringify!($name), $expected)),*] {
                println!("{:<60} {expected}", name.replace('_', " "));
            }
        }
    };
}

offences! {
    reply_index_runs_away: ReplyIndexRunsAway = "rsp_prod is";
    reply_index_goes_back: ReplyIndexGoesBack = "rsp_prod is";
    request_index_runs_away: RequestIndexRunsAway = "req_cons is";
    request_index_goes_back: RequestIndexGoesBack = "req_cons is";
    reply_of_4097_bytes: OversizedReply = "a payload of 4097 bytes";
    reply_of_4_gibibytes: EndlessReply = "a payload of 4294967295 bytes";
    reply_to_an_unknown_request: UnknownRequestId = "a reply to unknown request";
    reply_in_another_transaction: WrongTransaction = "a reply in transaction";
    reply_of_another_type: WrongType = "as the reply to";
    reply_of_a_type_that_does_not_exist: UnknownType = "unknown (57005) as the reply to";
    second_reply_to_a_request: DuplicatedReply = "a second reply to request";
    reply_that_nobody_asked_for: UnsolicitedReply = "a reply to unknown request";
    error_with_an_unknown_name: UnknownErrorName = "EWHAT";
    error_without_a_name: EmptyError = "an error without a name";
    error_that_is_no_text: GarbledError = "an error without a name";
    value_that_is_no_text: GarbledValue = "is no text";
    directory_without_an_end: UnendedDirectory = "the payload of directory has no final zero";
    transaction_without_a_number: GarbledTransaction = "a transaction id that is none";
    watch_event_without_a_token: WatchWithoutToken = "a watch event without token";
    watch_event_that_is_no_text: GarbledWatch = "the payload of watch-event is no text";
    watch_event_of_nobody: UnknownToken = "an event of a watch that does not exist";
    commit_that_never_succeeds: CommitNeverSucceeds = "lost a race";
    directory_part_without_end: DirectoryNeverEnds = "a directory without end";
    directory_that_changes_all_the_time: DirectoryKeepsChanging = "changed at every try";
    silence: Silence = "no answer in time";
    deafness: Deaf = "no answer in time";
    one_byte_at_a_time: OneBytePerStep = "none";
    storm_of_events: EventStorm = "none";
    reset_without_end: NeverReconnects = "did not reset the connection in time";
}
