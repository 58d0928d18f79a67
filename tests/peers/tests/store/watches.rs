//! Watches.

use crate::puppet::{Puppet, Request, message};
use crate::world::{World, friendly};
use firn_xen::store::StoreError;
use firn_xen::wire::xs::MessageType;
use std::time::Duration;

const HOME: &str = "/local/domain/1";

#[test]
fn a_watch_fires_at_first_and_at_every_change() {
    let world = friendly();
    let daemon = world.daemon();
    let mut watch = world.with(async |store| store.watch("device").await.unwrap());
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("device"));
    assert_eq!(watch.try_changed(), None);
    daemon.write(&format!("{HOME}/device/vbd/1/state"), "1");
    let changed = world.run(async move { (watch.changed().await, watch) });
    assert_eq!(changed.0, "device/vbd/1/state");
}

#[test]
fn the_same_path_is_told_once_and_many_become_the_watched_one() {
    let world = friendly();
    let daemon = world.daemon();
    let mut watch = world.with(async |store| store.watch("device").await.unwrap());
    world.settle();
    while watch.try_changed().is_some() {}
    for value in 0..50 {
        daemon.write(&format!("{HOME}/device/a"), &value.to_string());
    }
    daemon.write(&format!("{HOME}/device/b"), "");
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("device/a"));
    assert_eq!(watch.try_changed().as_deref(), Some("device/b"));
    assert_eq!(watch.try_changed(), None);
    for i in 0..1000 {
        daemon.write(&format!("{HOME}/device/{i}"), "");
    }
    world.settle();
    let mut told = Vec::new();
    while let Some(path) = watch.try_changed() {
        told.push(path);
    }
    assert!(told.len() <= 33, "bounded: {}", told.len());
    assert_eq!(told[0], "device", "everything may have changed");
}

#[test]
fn the_watched_path_stands_for_all_others() {
    let world = friendly();
    let daemon = world.daemon();
    let mut watch = world.with(async |store| store.watch("device").await.unwrap());
    world.settle();
    while watch.try_changed().is_some() {}
    for path in ["device/a", "device", "device/b"] {
        daemon.write(&format!("{HOME}/{path}"), "");
    }
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("device"));
    assert_eq!(watch.try_changed(), None, "told by that");
    daemon.write(&format!("{HOME}/device/a"), "");
    world.settle();
    assert_eq!(watch.try_changed().as_deref(), Some("device/a"));
    // The same when the connection is lost.
    daemon.write(&format!("{HOME}/device/a"), "");
    world.settle();
    world.with(async |store| store.reconnect().await.unwrap());
    assert_eq!(watch.try_changed().as_deref(), Some("device"));
    world.settle();
    while let Some(path) = watch.try_changed() {
        assert_eq!(path, "device");
    }
}

#[test]
fn a_dropped_watch_is_over_and_its_last_events_are_no_offence() {
    let world = friendly();
    let daemon = world.daemon();
    let watch = world.with(async |store| store.watch("device").await.unwrap());
    assert_eq!(daemon.guest_watches(), 1);
    // An event is on its way while the watch ends.
    daemon.write(&format!("{HOME}/device/a"), "1");
    drop(watch);
    world.settle();
    assert_eq!(daemon.guest_watches(), 0);
    daemon.write(&format!("{HOME}/device/b"), "1");
    world.settle();
    assert_eq!(world.store.is_failed(), None);
}

#[test]
fn a_watch_whose_acknowledgement_is_late_is_taken_back() {
    let mut held = Vec::new();
    let world = World::new(|machine| {
        Puppet::new(machine, move |request: &Request| match request.what {
            MessageType::WATCH => {
                held = request.plain_reply();
                held.extend(message(MessageType::WATCH_EVENT, 0, 0, b"device\x000\0"));
                Vec::new()
            }
            _ => [std::mem::take(&mut held), request.plain_reply()].concat(),
        })
    });
    let error = world.with(async |store| store.watch("device").await.err());
    assert!(
        matches!(error, Some(StoreError::Timeout { .. })),
        "{error:?}"
    );
    world.settle();
    let said: Vec<String> = world
        .peer
        .borrow()
        .requests
        .iter()
        .map(Request::text)
        .collect();
    assert_eq!(said, ["device|0|", "device|0|"]);
    assert_eq!(world.store.is_failed(), None);
}

#[test]
fn a_lost_store_wakes_who_watches() {
    let world = friendly();
    let mut watch = world.with(async |store| store.watch("device").await.unwrap());
    world.settle();
    while watch.try_changed().is_some() {}
    let waiter = world.spawn(async move { watch.changed().await });
    world.settle();
    assert_eq!(*waiter.borrow(), None);
    world
        .daemon()
        .offend(firn_peers::StoreOffence::ReplyIndexRunsAway);
    world.settle();
    assert_eq!(waiter.borrow().as_deref(), Some("device"));
}

#[test]
fn waiting_for_a_change_has_no_deadline() {
    let world = friendly();
    let daemon = world.daemon();
    let mut watch = world.with(async |store| store.watch("data").await.unwrap());
    world.settle();
    while watch.try_changed().is_some() {}
    let waiter = world.spawn(async move { watch.changed().await });
    world.settle();
    world.machine.advance(Duration::from_secs(100_000));
    world.settle();
    daemon.write(&format!("{HOME}/data/x"), "");
    world.settle();
    assert_eq!(waiter.borrow().as_deref(), Some("data/x"));
}
