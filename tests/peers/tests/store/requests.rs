//! Requests and their replies.

use crate::puppet::{Puppet, Request};
use crate::world::{World, friendly};
use firn_peers::{CallKind, FakeMachine, StoreOffence as Trick, XenStored};
use firn_xen::store::{Permission, Rights, Store, StoreError};
use firn_xen::wire::DomId;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::hvm::{PARAM_STORE_EVTCHN, PARAM_STORE_PFN};
use firn_xen::wire::xs::MessageType;
use firn_xen::{StartPageError, Xen};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const HOME: &str = "/local/domain/1";

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let world = friendly();
    world.with(async |store| {
        store.write("data/a/b", "one").await.unwrap();
        store.mkdir("data/a/c").await.unwrap();
        assert_eq!(store.read("data/a/b").await.unwrap(), "one");
        assert_eq!(store.read("data/a/c").await.unwrap(), "");
        assert_eq!(store.directory("data/a").await.unwrap(), ["b", "c"]);
        assert!(store.directory("data/a/c").await.unwrap().is_empty());
        store.rm("data/a/b").await.unwrap();
        assert!(store.read("data/a/b").await.unwrap_err().is_missing());
        assert_eq!(store.domain_path(DomId(1)).await.unwrap(), HOME);
    });
    assert_eq!(world.daemon().list("/local/domain/1/data/a"), ["c"]);
}

#[test]
fn an_error_names_number_request_and_path() {
    let error = friendly().with(async |store| store.write("/tool/x", "1").await.unwrap_err());
    let expected = StoreError::Errno {
        errno: Errno::EACCES,
        what: MessageType::WRITE,
        path: "/tool/x".into(),
    };
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), "xenstore write /tool/x: EACCES");
}

#[test]
fn permissions_come_and_go() {
    let list = [
        Permission {
            rights: Rights::None,
            domain: DomId(1),
        },
        Permission {
            rights: Rights::Both,
            domain: DomId(0),
        },
        Permission {
            rights: Rights::Read,
            domain: DomId(5),
        },
    ];
    friendly().with(async move |store| {
        store.write("data/p", "").await.unwrap();
        store.set_permissions("data/p", &list).await.unwrap();
        assert_eq!(store.permissions("data/p").await.unwrap(), list);
    });
}

#[test]
fn many_requests_share_the_ring_and_each_gets_its_own_reply() {
    let world = friendly();
    let results: Vec<_> = (0..100)
        .map(|i| {
            let (store, path) = (world.store.clone(), format!("data/{i}"));
            let value = i.to_string().repeat(20);
            world.spawn(async move {
                store.write(&path, &value).await.unwrap();
                assert_eq!(store.read(&path).await.unwrap(), value);
            })
        })
        .collect();
    world.settle();
    assert!(results.iter().all(|result| result.borrow().is_some()));
}

#[test]
fn the_largest_messages_pass_a_ring_a_quarter_of_their_size() {
    let world = friendly();
    let value = "x".repeat(4096 - "data/big".len() - 1);
    world.with(async move |store| {
        store.write("data/big", &value).await.unwrap();
        assert_eq!(store.read("data/big").await.unwrap(), value);
        let error = store.write("data/big", &(value + "x")).await.unwrap_err();
        assert!(matches!(error, StoreError::TooLong { .. }), "{error}");
    });
}

#[test]
fn a_byte_at_a_time_is_slow_but_right() {
    let world = friendly();
    world.daemon().offend(Trick::OneBytePerStep);
    let name = world.with(async |store| store.read("name").await.unwrap());
    assert_eq!(name, "guest");
}

#[test]
fn what_is_no_path_never_reaches_the_wire() {
    let world = friendly();
    world.with(async |store| {
        let long = "x".repeat(2049);
        let longer = format!("/{}", "x".repeat(3072));
        for path in ["", "data\0x", &long, &longer] {
            let error = store.read(path).await.unwrap_err();
            assert_eq!(error, StoreError::BadPath(path.into()));
        }
    });
    assert_eq!(world.daemon().requests(), 0);
}

#[test]
fn a_long_directory_is_read_in_parts() {
    let world = friendly();
    let names: Vec<String> = (0..900).map(|i| format!("entry-{i:04}")).collect();
    for name in &names {
        world.daemon().write(&format!("{HOME}/data/{name}"), "");
    }
    let listed = world.with(async |store| store.directory("data").await.unwrap());
    assert_eq!(listed, names);
}

#[test]
fn a_directory_that_changes_between_parts_is_listed_again() {
    let tries = Rc::new(Cell::new(0));
    let count = tries.clone();
    let world = World::new(|machine| {
        Puppet::new(machine, move |request: &Request| {
            if request.what == MessageType::DIRECTORY {
                return request.error(b"E2BIG\0");
            }
            count.set(count.get() + 1);
            // The list changes after the second part, and is stable then.
            match (request.text().as_str(), count.get()) {
                ("d|0|", 1) => request.reply(b"1\0a\0b\0"),
                ("d|4|", 2) => request.reply(b"2\0c\0\0"),
                ("d|0|", 3) => request.reply(b"2\0a\0"),
                ("d|2|", 4) => request.reply(b"2\0c\0\0"),
                other => panic!("{other:?}"),
            }
        })
    });
    let names = world.with(async |store| store.directory("d").await.unwrap());
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_directory_that_never_stands_still_is_given_up() {
    let world = friendly();
    for i in 0..900 {
        world.daemon().write(&format!("{HOME}/data/entry-{i}"), "");
    }
    world.daemon().offend(Trick::DirectoryKeepsChanging);
    let error = world.with(async |store| store.directory("data").await.unwrap_err());
    assert_eq!(error, StoreError::Unstable("data".into()));
    assert_eq!(world.store.is_failed(), None);
}

#[test]
fn a_silent_daemon_is_given_five_seconds() {
    for trick in [Trick::Silence, Trick::Deaf] {
        let world = friendly();
        world.daemon().offend(trick);
        let start = firn_xen::Hal::now(&world.machine);
        let error = world.with(async |store| store.read("name").await.unwrap_err());
        let expected = StoreError::Timeout {
            what: MessageType::READ,
            path: "name".into(),
        };
        assert_eq!(error, expected, "{trick:?}");
        let waited = firn_xen::Hal::now(&world.machine).since(start);
        assert_eq!(waited, Duration::from_secs(5));
        assert_eq!(world.store.is_failed(), None, "it may wake up");
    }
}

#[test]
fn the_deadline_can_be_set() {
    let world = friendly();
    world.daemon().offend(Trick::Silence);
    world.store.set_deadline(Duration::from_millis(100));
    let start = firn_xen::Hal::now(&world.machine);
    let error = world.with(async |store| store.read("name").await.unwrap_err());
    assert!(matches!(error, StoreError::Timeout { .. }), "{error}");
    let waited = firn_xen::Hal::now(&world.machine).since(start);
    assert_eq!(waited, Duration::from_millis(100));
}

#[test]
fn a_late_reply_harms_nobody() {
    let first = Rc::new(Cell::new(None));
    let held = first.clone();
    let world = World::new(|machine| {
        Puppet::new(machine, move |request: &Request| match held.take() {
            None => {
                held.set(Some(request.reply(b"late")));
                Vec::new()
            }
            Some(late) => [late, request.reply(b"in time")].concat(),
        })
    });
    let (late, in_time) = world.with(async |store| (store.read("a").await, store.read("b").await));
    assert!(matches!(late, Err(StoreError::Timeout { .. })), "{late:?}");
    assert_eq!(in_time.as_deref(), Ok("in time"));
}

/// Found by the fuzzer: the ring is full, and the server was never told.
#[test]
fn a_server_that_no_event_reached_is_told_once_events_can_be_sent() {
    let world = friendly();
    world.settle();
    let refuse = |errno| world.machine.refuse(CallKind::SendEvent, errno);
    refuse(Some(Errno::EINVAL));
    for _ in 0..8 {
        let path = "p".repeat(300);
        let error = world.with(async move |store| store.read(&path).await.unwrap_err());
        assert!(matches!(error, StoreError::Timeout { .. }), "{error}");
    }
    refuse(None);
    let name = world.with(async |store| store.read("name").await);
    assert!(name.is_ok(), "{name:?}");
}

#[test]
fn unanswered_requests_are_limited() {
    let world = friendly();
    world.daemon().offend(Trick::Silence);
    let results: Vec<_> = (0..200)
        .map(|_| {
            let store = world.store.clone();
            world.spawn(async move { store.read("name").await })
        })
        .collect();
    world.settle();
    let refused = results
        .iter()
        .filter(|it| *it.borrow() == Some(Err(StoreError::TooManyRequests)))
        .count();
    assert_eq!(refused, 200 - 128);
}

#[test]
fn a_value_that_is_no_text_fails_only_its_reader() {
    let world = friendly();
    let path = format!("{HOME}/data/binary");
    world.daemon().write_bytes(&path, b"\xff\xfe");
    world.with(async |store| {
        let error = store.read("data/binary").await.unwrap_err();
        assert_eq!(error, StoreError::NotText("data/binary".into()));
        assert_eq!(store.read("name").await.unwrap(), "guest");
    });
}

#[test]
fn an_error_with_a_name_of_its_own_fails_only_its_request() {
    let world = World::new(|machine| {
        Puppet::new(machine, |request: &Request| match request.text().as_str() {
            "full|1" => request.error(b"EQUOTA\0"),
            // Without the final zero, as some servers have it.
            "gone|1" => request.error(b"ENOENT"),
            _ => request.reply(b"OK"),
        })
    });
    world.with(async |store| {
        let error = store.write("full", "1").await.unwrap_err();
        assert_eq!(error.to_string(), "xenstore write full: EQUOTA");
        assert!(store.write("gone", "1").await.unwrap_err().is_missing());
        store.write("fine", "1").await.unwrap();
    });
}

#[test]
fn an_idle_store_costs_no_hypercall() {
    let world = friendly();
    world.with(async |store| store.read("name").await.unwrap());
    world.settle();
    let before = world.machine.all_calls();
    for _ in 0..100 {
        assert!(!world.store.poll());
    }
    assert_eq!(world.machine.all_calls(), before);
}

#[test]
fn a_request_costs_one_event() {
    let world = friendly();
    world.settle();
    let before = world.machine.calls(CallKind::SendEvent);
    world.with(async |store| store.read("name").await.unwrap());
    assert_eq!(world.machine.calls(CallKind::SendEvent) - before, 1);
}

#[test]
fn a_missing_or_late_store_is_told_apart() {
    let attach = |index, value| {
        let machine = FakeMachine::new();
        machine.set_param_by_toolstack(index, value);
        let xen = Xen::new(machine).expect("pages");
        Store::attach(&xen).err().expect("no store")
    };
    let absent = |name| StoreError::Page(StartPageError::Absent(name));
    assert_eq!(attach(PARAM_STORE_PFN, 0), absent("STORE_PFN"));
    assert_eq!(attach(PARAM_STORE_EVTCHN, 0), absent("STORE_EVTCHN"));
    assert_eq!(attach(PARAM_STORE_PFN, u64::MAX), StoreError::NotYet);
    let nowhere = StartPageError::Unreachable("STORE_PFN", 0x1234);
    assert_eq!(attach(PARAM_STORE_PFN, 0x1234), StoreError::Page(nowhere));
    assert!(matches!(
        attach(PARAM_STORE_EVTCHN, 4096),
        StoreError::Port(_)
    ));
    assert!(matches!(
        attach(PARAM_STORE_EVTCHN, 1 << 33),
        StoreError::Port(_)
    ));
}

#[test]
fn a_parameter_that_cannot_be_read_is_named() {
    let machine = FakeMachine::new();
    let _daemon = XenStored::new(&machine);
    let xen = Xen::new(machine.clone()).expect("pages");
    machine.fail_next(CallKind::GetParam, Errno::ENOSYS);
    let error = Store::attach(&xen).err().expect("no store");
    assert_eq!(
        error.to_string(),
        "xenstore: Xen did not tell STORE_PFN: ENOSYS"
    );
}
