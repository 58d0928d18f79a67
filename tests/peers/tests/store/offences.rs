//! Every rule that a daemon can break, and the name of the offence.

use crate::puppet::{CONNECTION, FEATURES, Puppet, REQ_CONS, RSP_PROD, Request, message};
use crate::world::{TestStore, World, friendly, is_masked};
use firn_peers::{Peer, StoreOffence as Trick};
use firn_xen::store::{StoreError, StoreOffence};
use firn_xen::trace::Source;
use firn_xen::wire::xs::{FEATURE_RECONNECTION, MessageType};

/// The store has failed for good, and told everybody.
#[track_caller]
fn assert_failed(world: &World<impl Peer>, expected: &StoreOffence) {
    let failed = world.store.is_failed();
    assert_eq!(failed, Some(StoreError::Protocol(*expected)));
    assert!(is_masked(world), "no more events");
    let traced = world.xen.trace.events();
    let offences = traced
        .iter()
        .filter(|event| (event.source, event.what) == (Source::Store, "offence"));
    assert_eq!(offences.count(), 1);
    let before = world.machine.all_calls();
    let error = world.with(async |store| store.read("name").await.unwrap_err());
    assert_eq!(error, StoreError::Protocol(*expected));
    assert_eq!(
        world.machine.all_calls(),
        before,
        "nothing is sent any more"
    );
}

/// A daemon that gives `answer` to the first request that `task` makes.
#[track_caller]
fn answered(
    answer: impl FnMut(&Request) -> Vec<u8> + 'static,
    task: impl AsyncFnOnce(TestStore) -> Option<StoreError> + 'static,
    expected: StoreOffence,
) {
    let world = World::new(|machine| Puppet::new(machine, answer));
    let error = world.with(task);
    assert_eq!(error, Some(StoreError::Protocol(expected)));
    assert_failed(&world, &expected);
}

async fn read(store: TestStore) -> Option<StoreError> {
    store.read("name").await.err()
}

async fn directory(store: TestStore) -> Option<StoreError> {
    store.directory("data").await.err()
}

async fn transaction(store: TestStore) -> Option<StoreError> {
    store.transaction().await.err()
}

#[test]
fn reply_index_runs_away() {
    for distance in [1025, u32::MAX, 1 << 31] {
        let world = World::new(Puppet::plain);
        world.peer.borrow().set(RSP_PROD, distance);
        world.peer.borrow().channel.notify();
        world.settle();
        let expected = StoreOffence::ResponseIndex {
            prod: distance,
            cons: 0,
        };
        assert_failed(&world, &expected);
    }
}

#[test]
fn request_index_runs_away_or_goes_back() {
    for (cons, prod) in [(22, 21), (20, 21), (21_u32.wrapping_sub(1025), 21)] {
        let world = World::new(Puppet::plain);
        // One request of 16 + 5 bytes is read and answered.
        world.with(async |store| store.read("name").await.unwrap());
        world.peer.borrow().set(REQ_CONS, cons);
        world.store.poll();
        let expected = StoreOffence::RequestIndex { cons, prod };
        world.peer.borrow().set(REQ_CONS, prod);
        assert_failed(&world, &expected);
    }
}

#[test]
fn every_trick_of_the_peer_ends_in_a_named_error() {
    let tricks = [
        Trick::ReplyIndexRunsAway,
        Trick::ReplyIndexGoesBack,
        Trick::RequestIndexRunsAway,
        Trick::RequestIndexGoesBack,
        Trick::OversizedReply,
        Trick::EndlessReply,
        Trick::UnknownRequestId,
        Trick::WrongTransaction,
        Trick::WrongType,
        Trick::UnknownType,
        Trick::DuplicatedReply,
        Trick::UnsolicitedReply,
        Trick::EmptyError,
        Trick::GarbledError,
        Trick::UnendedDirectory,
        Trick::GarbledTransaction,
        Trick::WatchWithoutToken,
        Trick::GarbledWatch,
        Trick::UnknownToken,
    ];
    for trick in tricks {
        let world = friendly();
        world.daemon().offend(trick);
        world.settle();
        let error = world.with(async |store| {
            let _watch = store.watch("data").await?;
            store.write("data/x", "1").await?;
            store.directory("data").await?;
            store.transaction().await?.commit().await?;
            store.read("data/x").await
        });
        let failed = world.store.is_failed();
        // This peer confuses itself with that index, too, and may say so first.
        let index = [Trick::RequestIndexRunsAway, Trick::RequestIndexGoesBack];
        let gave_up = index.contains(&trick) && failed == Some(StoreError::Server(2));
        assert!(
            gave_up || matches!(failed, Some(StoreError::Protocol(_))),
            "{trick:?}: {failed:?}, {error:?}"
        );
    }
}

#[test]
fn a_storm_of_events_without_work_is_only_noise() {
    let world = friendly();
    world.daemon().offend(Trick::EventStorm);
    let name = world.with(async |store| store.read("name").await.unwrap());
    assert_eq!(name, "guest");
}

#[test]
fn payload_too_long() {
    for len in [4097, u32::MAX] {
        let lie = move |request: &Request| {
            let mut bytes = request.plain_reply();
            bytes[12..16].copy_from_slice(&len.to_le_bytes());
            bytes
        };
        answered(lie, read, StoreOffence::PayloadTooLong { len });
    }
}

#[test]
fn reply_to_nobody() {
    for req_id in [0, 2, 500, u32::MAX] {
        let answer = move |request: &Request| message(MessageType::READ, req_id, request.tx, b"");
        answered(answer, read, StoreOffence::ReplyToNobody { req_id });
    }
}

#[test]
fn duplicate_reply() {
    // Both in one go, and the second after the first was taken.
    let twice = |request: &Request| request.plain_reply().repeat(2);
    let world = World::new(|machine| Puppet::new(machine, twice));
    world.with(async |store| store.read("name").await.ok());
    world.settle();
    assert_failed(&world, &StoreOffence::DuplicateReply { req_id: 1 });

    let world = World::new(Puppet::plain);
    world.with(async |store| store.read("name").await.unwrap());
    let again = message(MessageType::READ, 1, 0, b"value");
    world.peer.borrow_mut().say(&again);
    world.settle();
    assert_failed(&world, &StoreOffence::DuplicateReply { req_id: 1 });
}

#[test]
fn wrong_type() {
    for got in [
        MessageType::WRITE,
        MessageType(0),
        MessageType(0xffff),
        MessageType(0xdead),
    ] {
        let answer = move |request: &Request| message(got, request.id, 0, b"OK\0");
        let asked = MessageType::READ;
        answered(answer, read, StoreOffence::WrongType { asked, got });
    }
}

#[test]
fn wrong_transaction() {
    let answer = |request: &Request| message(request.what, request.id, 9, b"value");
    answered(
        answer,
        read,
        StoreOffence::WrongTransaction { asked: 0, got: 9 },
    );
    let in_transaction = |request: &Request| match request.tx {
        0 => request.plain_reply(),
        _ => message(request.what, request.id, 0, b"value"),
    };
    let task = async |store: TestStore| store.transaction().await.unwrap().read("x").await.err();
    let expected = StoreOffence::WrongTransaction { asked: 7, got: 0 };
    answered(in_transaction, task, expected);
}

#[test]
fn error_without_a_name() {
    for name in [
        &b""[..],
        b"\0",
        b"\xff\xfe\0",
        b"ENO ENT\0",
        b"enoent\0",
        b"EAVERYLONGNAMEOFANERROR\0",
        b"ENOENT\0\0",
    ] {
        answered(
            move |request: &Request| request.error(name),
            read,
            StoreOffence::NoErrorName,
        );
    }
}

#[test]
fn no_acknowledgement() {
    for payload in [&b""[..], b"ok\0", b"OK\0\0", b"OKAY\0"] {
        let asked = MessageType::WRITE;
        answered(
            move |request: &Request| request.reply(payload),
            async |store| store.write("data/x", "1").await.err(),
            StoreOffence::NoAcknowledgement { asked },
        );
    }
}

#[test]
fn lists_that_are_none() {
    let asked = MessageType::DIRECTORY;
    let cases = [
        (&b"one\0two"[..], StoreOffence::MissingNul { asked }),
        (b"\xff\0", StoreOffence::NotText { asked }),
        (b"one\0\0two\0", StoreOffence::ChildName),
        (b"one/two\0", StoreOffence::ChildName),
        (b"\0", StoreOffence::ChildName),
    ];
    for (payload, expected) in cases {
        answered(
            move |request: &Request| request.reply(payload),
            directory,
            expected,
        );
    }
}

#[test]
fn parts_of_a_directory_that_are_none() {
    let asked = MessageType::DIRECTORY_PART;
    let cases = [
        (&b""[..], StoreOffence::Generation),
        (b"new\0a\0", StoreOffence::Generation),
        (b"-1\0a\0", StoreOffence::Generation),
        (b"\0a\0", StoreOffence::Generation),
        (b"99999999999999999999\0a\0", StoreOffence::Generation),
        (b"5\0", StoreOffence::EmptyPart),
        (b"5\0a\0b", StoreOffence::MissingNul { asked }),
        (b"5\0a\0\0b\0", StoreOffence::ChildName),
        (b"5\0a\0", StoreOffence::EndlessDirectory),
    ];
    for (payload, expected) in cases {
        let answer = move |request: &Request| match request.what {
            MessageType::DIRECTORY => request.error(b"E2BIG\0"),
            _ => request.reply(payload),
        };
        answered(answer, directory, expected);
    }
}

#[test]
fn permissions_that_are_none() {
    let asked = MessageType::GET_PERMS;
    let cases = [
        (&b"x0\0"[..], StoreOffence::Permission),
        (b"r\0", StoreOffence::Permission),
        (b"r70000\0", StoreOffence::Permission),
        (b"r+1\0", StoreOffence::Permission),
        (b"\0", StoreOffence::Permission),
        (b"r0", StoreOffence::MissingNul { asked }),
    ];
    for (payload, expected) in cases {
        answered(
            move |request: &Request| request.reply(payload),
            async |store| store.permissions("data").await.err(),
            expected,
        );
    }
}

#[test]
fn transactions_that_are_none() {
    for payload in [
        &b""[..],
        b"0\0",
        b"-1\0",
        b"x\0",
        b"4294967296\0",
        b"1 \0",
        b"\xff\0",
    ] {
        let answer = move |request: &Request| request.reply(payload);
        answered(answer, transaction, StoreOffence::TransactionId);
    }
    let task = async |store: TestStore| {
        let _first = store.transaction().await.unwrap();
        store.transaction().await.err()
    };
    answered(Request::plain_reply, task, StoreOffence::TransactionId);
}

#[test]
fn domain_paths_that_are_none() {
    for payload in [&b""[..], b"\0", b"local/domain/1\0", b"/a\0/b\0"] {
        answered(
            move |request: &Request| request.reply(payload),
            async |store| store.domain_path(firn_xen::wire::DomId(1)).await.err(),
            StoreOffence::DomainPath,
        );
    }
}

#[test]
fn watch_events_that_are_none() {
    let asked = MessageType::WATCH_EVENT;
    let cases = [
        (&b""[..], StoreOffence::NoToken),
        (b"data\0", StoreOffence::NoToken),
        (b"data\x000", StoreOffence::MissingNul { asked }),
        (b"\xff\x000\0", StoreOffence::NotText { asked }),
        (b"data\0\0", StoreOffence::UnknownWatch),
        (b"data\x001\0", StoreOffence::UnknownWatch),
        (b"data\0nobody\0", StoreOffence::UnknownWatch),
    ];
    for (payload, expected) in cases {
        let world = World::new(Puppet::plain);
        let _watch = world.with(async |store| store.watch("data").await.unwrap());
        let event = message(MessageType::WATCH_EVENT, 0, 0, payload);
        world.peer.borrow_mut().say(&event);
        world.settle();
        assert_failed(&world, &expected);
    }
}

#[test]
fn an_event_after_the_end_of_a_watch_is_acknowledged() {
    let world = World::new(Puppet::plain);
    let watch = world.with(async |store| store.watch("data").await.unwrap());
    drop(watch);
    world.settle();
    let event = message(MessageType::WATCH_EVENT, 0, 0, b"data\x000\0");
    world.peer.borrow_mut().say(&event);
    world.settle();
    assert_failed(&world, &StoreOffence::UnknownWatch);
}

#[test]
fn connection_states_that_are_none() {
    let world = World::new(Puppet::plain);
    world.peer.borrow().set(CONNECTION, 2);
    world.peer.borrow().channel.notify();
    world.settle();
    assert_failed(&world, &StoreOffence::ConnectionState(2));
}

#[test]
fn a_reset_that_leaves_something_behind() {
    let world = World::new(|machine| {
        let puppet = Puppet::plain(machine);
        puppet.set(FEATURES, FEATURE_RECONNECTION);
        puppet
    });
    let store = world.store.clone();
    let reset = world.spawn(async move { store.reconnect().await });
    world.settle();
    world.peer.borrow_mut().connect();
    world.peer.borrow().set(RSP_PROD, 1);
    world.settle();
    let expected = StoreOffence::NotEmptied;
    assert_eq!(*reset.borrow(), Some(Err(StoreError::Protocol(expected))));
    assert_failed(&world, &expected);
}

#[test]
fn everybody_who_waits_learns_of_the_offence() {
    let world = World::new(|machine| Puppet::new(machine, |_: &Request| Vec::new()));
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let store = world.store.clone();
            world.spawn(read(store))
        })
        .collect();
    world.settle();
    let stray = message(MessageType::READ, 77, 0, b"");
    world.peer.borrow_mut().say(&stray);
    world.settle();
    let expected = StoreError::Protocol(StoreOffence::ReplyToNobody { req_id: 77 });
    for reader in readers {
        assert_eq!(*reader.borrow(), Some(Some(expected.clone())));
    }
}
