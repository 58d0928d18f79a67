//! Connections that are set up late, lost and reset.

use crate::puppet::{
    CONNECTION, ERROR, FEATURES, Puppet, REQ_PROD, RSP_CONS, RSP_PROD, Request, message,
};
use crate::world::{World, friendly, is_masked};
use firn_peers::{Peer, StoreOffence as Trick};
use firn_task::Signal;
use firn_xen::store::{StoreError, StoreOffence};
use firn_xen::wire::xs::{FEATURE_ERROR, FEATURE_RECONNECTION, MessageType, RECONNECT};
use std::rc::Rc;
use std::time::Duration;

const HOME: &str = "/local/domain/1";

fn plain(machine: &firn_peers::FakeMachine) -> Puppet {
    let puppet = Puppet::new(machine, Request::plain_reply);
    puppet.set(FEATURES, FEATURE_RECONNECTION | FEATURE_ERROR);
    puppet
}

#[test]
fn reconnecting_keeps_the_watches() {
    let world = friendly();
    let daemon = world.daemon();
    let mut watch = world.with(async |store| store.watch("data").await.unwrap());
    world.settle();
    while watch.try_changed().is_some() {}
    world.with(async |store| {
        let tx = store.transaction().await.unwrap();
        store.reconnect().await.unwrap();
        assert_eq!(tx.read("name").await, Err(StoreError::Reset));
        assert_eq!(tx.commit().await, Err(StoreError::Reset));
        assert_eq!(store.read("name").await.unwrap(), "guest");
    });
    assert_eq!(daemon.guest_watches(), 1);
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("data"));
    daemon.write(&format!("{HOME}/data/x"), "");
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("data/x"));
}

#[test]
fn reconnecting_looks_for_the_port_anew() {
    let world = friendly();
    let (daemon, old) = (world.daemon(), world.store.port());
    daemon.move_port(&world.machine);
    world.with(async |store| {
        store.reconnect().await.unwrap();
        assert_eq!(store.read("name").await.unwrap(), "guest");
    });
    assert_ne!(world.store.port(), old);
    assert!(!world.machine.open_ports().contains(&old), "closed");
}

#[test]
fn requests_in_flight_end_with_the_reset() {
    let world = friendly();
    world.daemon().offend(Trick::Silence);
    let store = world.store.clone();
    let reader = world.spawn(async move { store.read("name").await });
    world.settle();
    world.daemon().behave();
    world.with(async |store| store.reconnect().await.unwrap());
    assert_eq!(*reader.borrow(), Some(Err(StoreError::Reset)));
}

#[test]
fn a_transaction_whose_id_came_before_a_reset_is_not_used_after_it() {
    let world = World::new(plain);
    let (go, store) = (Rc::new(Signal::new()), world.store.clone());
    let signal = go.clone();
    world.spawn(async move {
        signal.changed(0).await;
        store.reconnect().await
    });
    let store = world.store.clone();
    let opened = world.spawn(async move { store.transaction().await.err() });
    world.executor.poll_ready();
    // The reply is here, but the reset comes before its task looks.
    assert!(world.peer.borrow_mut().step());
    world.store.poll();
    go.notify();
    world.executor.poll_ready();
    assert_eq!(*opened.borrow(), Some(Some(StoreError::Reset)));
}

#[test]
fn a_watch_that_ends_during_a_reset_is_forgotten() {
    let world = World::new(|machine| {
        let answer = |request: &Request| match request.what {
            MessageType::UNWATCH => Vec::new(),
            _ => request.plain_reply(),
        };
        let puppet = Puppet::new(machine, answer);
        puppet.set(FEATURES, FEATURE_RECONNECTION);
        puppet
    });
    drop(world.with(async |store| store.watch("data").await.unwrap()));
    world.settle();
    let store = world.store.clone();
    let reset = world.spawn(async move { store.reconnect().await });
    world.settle();
    world.peer.borrow_mut().connect();
    world.settle();
    assert_eq!(*reset.borrow(), Some(Ok(())));
    let requests = world.peer.borrow().requests.clone();
    let asked: Vec<_> = requests.iter().map(|request| request.what).collect();
    assert_eq!(asked, [MessageType::WATCH, MessageType::UNWATCH]);
    let event = message(MessageType::WATCH_EVENT, 0, 0, b"data\x000\0");
    world.peer.borrow_mut().say(&event);
    world.settle();
    let expected = StoreError::Protocol(StoreOffence::UnknownWatch);
    assert_eq!(world.store.is_failed(), Some(expected));
}

#[test]
fn a_reset_by_the_host_is_noticed_and_mended() {
    // With and without a look at the ring between its beginning and its end.
    for look in [true, false] {
        let world = friendly();
        let daemon = world.daemon();
        let watch = world.with(async |store| store.watch("data").await.unwrap());
        world.settle();
        daemon.reset();
        if look {
            world.store.poll();
            assert_eq!(world.store.is_failed(), Some(StoreError::Reset));
        }
        assert!(world.peer.borrow_mut().step(), "the reset is over");
        world.settle();
        assert_eq!(world.store.is_failed(), Some(StoreError::Reset));
        let error = world.with(async |store| store.read("name").await.unwrap_err());
        assert!(error.is_lost_connection(), "{error}");
        world.with(async |store| store.reconnect().await.unwrap());
        assert_eq!((daemon.guest_watches(), world.store.is_failed()), (1, None));
        drop(watch);
    }
}

#[test]
fn a_connection_that_the_server_gave_up_is_mended_by_a_reset() {
    let world = World::new(plain);
    world.peer.borrow().set(ERROR, 2);
    world.peer.borrow().channel.notify();
    world.settle();
    assert_eq!(world.store.is_failed(), Some(StoreError::Server(2)));
    let store = world.store.clone();
    let again = world.spawn(async move { store.reconnect().await });
    world.settle();
    assert_eq!(world.peer.borrow().word(CONNECTION), RECONNECT);
    world.peer.borrow_mut().connect();
    world.settle();
    assert_eq!(*again.borrow(), Some(Ok(())));
    let value = world.with(async |store| store.read("x").await);
    assert_eq!(value.as_deref(), Ok("value"));
}

#[test]
fn the_error_field_counts_only_when_the_server_has_it() {
    let world = World::new(Puppet::plain);
    world.peer.borrow().set(ERROR, 2);
    let value = world.with(async |store| store.read("x").await);
    assert_eq!(value.as_deref(), Ok("value"));
}

#[test]
fn a_server_that_does_not_reset_is_given_five_seconds() {
    let world = friendly();
    world.daemon().offend(Trick::NeverReconnects);
    let start = firn_xen::Hal::now(&world.machine);
    let error = world.with(async |store| store.reconnect().await.unwrap_err());
    assert_eq!(error, StoreError::ReconnectTimeout);
    let waited = firn_xen::Hal::now(&world.machine).since(start);
    assert_eq!(waited, Duration::from_secs(5));
    assert_eq!(world.store.is_failed(), Some(StoreError::ReconnectTimeout));
    world.daemon().behave();
    world.with(async |store| store.reconnect().await.unwrap());
}

#[test]
fn a_server_without_the_feature_is_not_asked() {
    let world = World::new(Puppet::plain);
    let error = world.with(async |store| store.reconnect().await.unwrap_err());
    assert_eq!(error, StoreError::NoReconnect);
    assert_eq!(world.store.is_failed(), None, "nothing was lost");
}

#[test]
fn an_offence_is_not_mended() {
    let world = friendly();
    world.daemon().offend(Trick::ReplyIndexRunsAway);
    world.settle();
    let error = world.with(async |store| store.reconnect().await.unwrap_err());
    assert!(matches!(error, StoreError::Protocol(_)), "{error}");
    assert!(is_masked(&world));
}

#[test]
fn a_reset_that_is_dropped_half_way_leaves_the_connection_lost() {
    let world = friendly();
    world.daemon().offend(Trick::NeverReconnects);
    let store = world.store.clone();
    let task = async move {
        {
            let reset = std::pin::pin!(store.reconnect());
            firn_task::race(reset, firn_task::yield_now()).await;
        }
        store.is_failed()
    };
    assert_eq!(world.run(task), Some(StoreError::Reset));
}

#[test]
fn requests_wait_for_a_connection_that_comes_later() {
    let world = World::new(|machine| {
        let puppet = plain(machine);
        puppet.set(CONNECTION, RECONNECT);
        puppet
    });
    let store = world.store.clone();
    let reader = world.spawn(async move { store.read("x").await });
    world.settle();
    assert_eq!(world.peer.borrow().word(REQ_PROD), 0);
    world.peer.borrow_mut().connect();
    world.settle();
    assert_eq!(*reader.borrow(), Some(Ok("value".into())));
}

#[test]
fn a_ring_left_in_the_middle_of_something_is_reset_first() {
    let world = World::new(|machine| {
        let puppet = plain(machine);
        puppet.set(RSP_PROD, 40);
        puppet.set(RSP_CONS, 17);
        puppet
    });
    assert_eq!(world.peer.borrow().word(CONNECTION), RECONNECT);
    world.peer.borrow_mut().connect();
    let value = world.with(async |store| store.read("x").await);
    assert_eq!(value.as_deref(), Ok("value"));
}

#[test]
fn a_ring_in_use_that_cannot_be_reset_is_refused() {
    let world = World::try_new(|machine| {
        let puppet = Puppet::plain(machine);
        puppet.set(REQ_PROD, 16);
        puppet
    });
    assert_eq!(world.err(), Some(StoreError::RingInUse));
}

#[test]
fn an_idle_ring_of_an_earlier_user_is_taken_over() {
    let world = World::new(|machine| {
        let puppet = Puppet::plain(machine);
        for at in [REQ_PROD, crate::puppet::REQ_CONS] {
            puppet.set(at, u32::MAX - 5);
        }
        for at in [RSP_PROD, RSP_CONS] {
            puppet.set(at, 1_000_003);
        }
        puppet
    });
    let value = world.with(async |store| store.read("x").await);
    assert_eq!(value.as_deref(), Ok("value"));
}
