//! Disks that fail, stall, vanish, or answer late.

use crate::disk::Host;
use crate::guest::{Failed, Memory, Session, frozen, run};
use firn_block::{Op, PAGE};
use firn_image::{Error, How, Source, Verdict};
use std::future::Future;
use std::task::{Context, Waker};

#[test]
fn an_error_of_any_request_ends_the_freeze_and_leaves_no_image_unknown() {
    let memory = Memory::random(700, 4);
    let whole = Host::new(4 << 20);
    run(Session::new(&whole, 1).freeze(&memory.0, &[], How::default())).expect("it fits");
    let mut unknown = 0;
    for nth in 0..whole.served() {
        let host = Host::new(4 << 20);
        host.disk.borrow_mut().moods.fail = Some(nth);
        let mut session = Session::new(&host, 1);
        let failed = run(session.freeze(&memory.0, &[], How::default()));
        match failed.expect_err("a request failed") {
            Failed::Before(Error::Io { .. }) => {
                let verdict = session.slots().verdict();
                assert!(!matches!(verdict, Verdict::Valid(..)), "{nth}: {verdict:?}");
            }
            Failed::Unknown(Error::Io { .. }) => unknown += 1,
            other => panic!("request {nth}: {other:?}"),
        }
        drop(session);
        assert_eq!(host.disk.borrow().registered, 0, "request {nth}");
    }
    assert_eq!(unknown, 3, "header, flush, reading back");
    assert_eq!(firn_block::lost_tokens(), 0);
}

#[test]
fn a_failed_request_is_one_even_if_the_queue_keeps_its_buffer() {
    let memory = Memory::random(700, 4);
    let good = frozen(&memory.0, How::default());
    for keeps_pages in [false, true] {
        let load = |fail| {
            let host = Host::with(good.data(), 1);
            host.disk.borrow_mut().moods.fail = fail;
            host.disk.borrow_mut().moods.withholds = true;
            host.disk.borrow_mut().moods.keeps_pages = keeps_pages;
            let mut session = Session::new(&host, 3);
            let outcome = run(async {
                let (area, slots) = session.look().await?;
                let table = session.store.read_table(area, &slots, None).await?;
                session.place(&table, &Memory::new(700).0).await
            });
            (outcome, host.served())
        };
        let (whole, requests) = load(None);
        whole.expect("it is whole");
        for nth in 0..requests {
            let (outcome, _) = load(Some(nth));
            assert!(
                matches!(outcome, Err(Error::Io { .. })),
                "{nth}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_host_that_stops_answering_is_not_waited_for_for_ever() {
    let memory = Memory::random(700, 4);
    let whole = Host::new(4 << 20);
    run(Session::new(&whole, 1).freeze(&memory.0, &[], How::default())).expect("it fits");
    for nth in 0..whole.served() {
        let host = Host::new(4 << 20);
        host.disk.borrow_mut().moods.stuck = Some(nth);
        let mut session = Session::new(&host, 1);
        let failed = run(session.freeze(&memory.0, &[], How::default()));
        let (Failed::Before(error) | Failed::Unknown(error)) = failed.expect_err("stuck") else {
            panic!("it was asked first");
        };
        assert!(matches!(error, Error::Stalled { .. }), "{nth}: {error}");
    }
    assert_eq!(firn_block::lost_tokens(), 0);
}

#[test]
fn completions_of_a_given_up_attempt_disturb_no_later_one() {
    let memory = Memory::random(700, 4);
    for nth in [3, 8, 10, 12] {
        let host = Host::new(4 << 20);
        host.disk.borrow_mut().moods.stuck = Some(nth);
        let mut session = Session::new(&host, 1);
        run(session.freeze(&memory.0, &[], How::default())).expect_err("stuck");
        drop(session);
        host.catch_up();
        let mut session = Session::new(&host, 1);
        let again = run(session.freeze(&memory.0, &[], How::default()));
        match again {
            Ok(_) => {}
            // The late header write may have made it valid: it is whole then.
            Err(Failed::Asked(why)) => assert!(matches!(why, firn_image::WhyNot::HasImage(_))),
            Err(other) => panic!("{nth}: {other:?}"),
        }
        let into = Memory::new(700);
        run(session.load(&into.0, None)).expect("whole");
        assert!(into.bytes() == memory.bytes());
        drop(session);
        assert_eq!(
            host.disk.borrow().registered,
            0,
            "late buffers are back, too"
        );
    }
    assert_eq!(firn_block::lost_tokens(), 0);
}

#[test]
fn the_same_store_goes_on_after_a_stall_that_passed() {
    let memory = Memory::random(700, 4);
    let host = frozen(&memory.0, How::default());
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let table = run(session.store.read_table(area, &slots, None)).expect("whole");
    let into = Memory::new(700);
    let served = host.served();
    host.disk.borrow_mut().moods.stuck = Some(served + 2);
    let stalled = run(session.place(&table, &into.0));
    assert!(matches!(stalled, Err(Error::Stalled { .. })), "{stalled:?}");
    host.catch_up();
    run(session.place(&table, &into.0)).expect("it answers again");
    assert!(into.bytes() == memory.bytes());
}

#[test]
fn errors_while_loading_are_named_and_repeatable() {
    let memory = Memory::random(700, 4);
    let host = frozen(&memory.0, How::default());
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let table = run(session.store.read_table(area, &slots, None)).expect("whole");
    let into = Memory::new(700);
    let served = host.served();
    host.disk.borrow_mut().moods.fail = Some(served + 1);
    let failed = run(session.place(&table, &into.0));
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    run(session.place(&table, &into.0)).expect("the second time");
    assert!(into.bytes() == memory.bytes());
}

#[test]
fn a_disk_that_vanishes_ends_every_step() {
    let memory = Memory::random(700, 4);
    let host = frozen(&memory.0, How::default());
    for nth in 1..12 {
        let host = Host::with(host.data(), 1);
        host.disk.borrow_mut().moods.gone = Some(nth);
        let mut session = Session::new(&host, 1);
        let outcome = run(async {
            let (area, slots) = session.look().await?;
            let table = session.store.read_table(area, &slots, None).await?;
            session.place(&table, &Memory::new(700).0).await?;
            Ok::<_, Error>(())
        });
        assert_eq!(outcome, Err(Error::Gone), "{nth}");
    }
    assert_eq!(firn_block::lost_tokens(), 0);
}

#[test]
fn scratch_memory_that_the_host_keeps_is_used_again() {
    let host = Host::new(4 << 20);
    host.disk.borrow_mut().moods.keeps_pages = true;
    let session = Session::new(&host, 0);
    assert!(session.store.close().is_none(), "still mapped");
    let limits = firn_image::Limits::default();
    let Ok(mut store) = firn_image::Store::reopen(&host, limits) else {
        panic!("the queue kept it");
    };
    let area = run(store.area()).expect("readable").expect("a whole disk");
    assert!(matches!(
        run(store.look(area)).expect("readable").verdict(),
        Verdict::Blank
    ));
}

#[test]
fn a_flush_waits_for_what_a_dropped_step_left_behind() {
    let memory = Memory::new(40 * 256);
    for page in 0..memory.0.page_count() {
        memory.0.copy_in(page * PAGE, &[1]);
    }
    let host = Host::new(48 << 20);
    let mut session = Session::new(&host, 1);
    let area = run(session.store.area()).expect("readable").expect("whole");
    run(session.store.format(area)).expect("written");
    let mut plan = run(session.plan(&memory.0, &[], How::default())).expect("it fits");
    let source = Source {
        memory: &memory.0,
        free: &[],
    };
    let mut writing = Box::pin(session.store.write_chunks(&mut plan, &source));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..20 {
        assert!(writing.as_mut().poll(&mut context).is_pending());
    }
    drop(writing);
    let before = host.served();
    run(session.store.flush()).expect("a friendly disk");
    let log = host.disk.borrow().log.clone();
    let after: Vec<Op> = log[before as usize..].iter().map(|(op, ..)| *op).collect();
    assert!(after.len() > 10, "writes were under way");
    assert_eq!(
        after.iter().position(|op| *op == Op::Flush),
        Some(after.len() - 1)
    );
}
