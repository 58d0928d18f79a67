//! Transactions.

use crate::puppet::{Puppet, Request};
use crate::world::{World, friendly};
use firn_peers::StoreOffence as Trick;
use firn_xen::store::StoreError;
use firn_xen::wire::xs::MessageType;
use std::cell::Cell;
use std::rc::Rc;

const HOME: &str = "/local/domain/1";

#[test]
fn changes_are_seen_when_they_are_committed() {
    let world = friendly();
    let daemon = world.daemon();
    world.with(async move |store| {
        let tx = store.transaction().await.unwrap();
        tx.write("data/x", "1").await.unwrap();
        tx.mkdir("data/y").await.unwrap();
        assert_eq!(tx.read("data/x").await.unwrap(), "1");
        assert_eq!(tx.directory("data").await.unwrap(), ["x", "y"]);
        assert!(store.read("data/x").await.unwrap_err().is_missing());
        tx.commit().await.unwrap();
        assert_eq!(daemon.read(&format!("{HOME}/data/x")).as_deref(), Some("1"));
    });
}

#[test]
fn a_dropped_transaction_changes_nothing_and_is_closed() {
    let world = friendly();
    let daemon = world.daemon();
    world.with(async |store| {
        // More than the daemon allows to be open at once.
        for _ in 0..40 {
            let tx = store.transaction().await.unwrap();
            tx.write("data/x", "1").await.unwrap();
        }
    });
    assert_eq!(daemon.read(&format!("{HOME}/data/x")), None);
}

#[test]
fn a_lost_race_is_run_again() {
    let world = friendly();
    let (daemon, runs) = (world.daemon(), Rc::new(Cell::new(0)));
    let count = runs.clone();
    let value = world.with(async move |store| {
        store.write("data/n", "0").await.unwrap();
        let body = async |tx: &firn_xen::store::Transaction<_>| {
            let old: u32 = tx.read("data/n").await?.parse().unwrap();
            count.set(count.get() + 1);
            if count.get() < 4 {
                daemon.write(&format!("{HOME}/data/n"), &(old + 10).to_string());
            }
            tx.write("data/n", &(old + 1).to_string()).await?;
            Ok(old + 1)
        };
        store.transact(body).await.unwrap()
    });
    assert_eq!((value, runs.get()), (31, 4));
    let stored = world.daemon().read(&format!("{HOME}/data/n"));
    assert_eq!(stored.as_deref(), Some("31"));
}

#[test]
fn a_race_that_is_always_lost_ends() {
    let world = friendly();
    world.daemon().offend(Trick::CommitNeverSucceeds);
    let runs = Rc::new(Cell::new(0));
    let count = runs.clone();
    let error = world.with(async move |store| {
        let body = async |_: &firn_xen::store::Transaction<_>| {
            count.set(count.get() + 1);
            Ok(())
        };
        store.transact(body).await.unwrap_err()
    });
    assert_eq!((error, runs.get()), (StoreError::Again, 32));
}

#[test]
fn a_body_that_fails_gives_the_transaction_up() {
    let world = friendly();
    let error = world.with(async move |store| {
        let body = async |tx: &firn_xen::store::Transaction<_>| {
            tx.write("data/x", "1").await?;
            tx.read("data/missing").await
        };
        store.transact(body).await.unwrap_err()
    });
    assert!(error.is_missing(), "{error}");
    world.settle();
    assert_eq!(world.daemon().read(&format!("{HOME}/data/x")), None);
}

#[test]
fn a_transaction_that_opens_too_late_is_closed_again() {
    let mut held = Vec::new();
    let world = World::new(|machine| {
        Puppet::new(machine, move |request: &Request| {
            if request.what == MessageType::TRANSACTION_START {
                held = request.reply(b"23\0");
                return Vec::new();
            }
            [std::mem::take(&mut held), request.plain_reply()].concat()
        })
    });
    let (late, value) =
        world.with(async |store| (store.transaction().await.err(), store.read("x").await));
    assert!(matches!(late, Some(StoreError::Timeout { .. })), "{late:?}");
    assert_eq!(value.as_deref(), Ok("value"));
    world.settle();
    let peer = world.peer.borrow();
    let last = peer.requests.last().expect("requests");
    assert_eq!((last.what, last.tx), (MessageType::TRANSACTION_END, 23));
    assert_eq!(last.text(), "F|");
}
