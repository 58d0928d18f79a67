//! States: what the two slots say after every step, and after a power cut at
//! any request.

use crate::disk::Host;
use crate::guest::{Failed, Memory, Session, frozen, run};
use crate::seed::seeds;
use firn_block::{Durability, Op};
use firn_image::{Generation, How, Slot, State, Verdict, WhyNot};

/// A disk with a consumed image of generation 1 on it.
fn consumed(retired: bool) -> Host {
    let host = frozen(&Memory::random(300, 7).0, How::default());
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let table = run(session.store.read_table(area, &slots, None)).expect("whole");
    run(session.store.consume(&table)).expect("written");
    if retired {
        run(session.store.retire(&table)).expect("written");
    }
    drop(session);
    host
}

#[test]
fn nothing_overlaps_a_flush_and_the_header_comes_between_two() {
    let host = Host::new(4 << 20);
    let memory = Memory::random(600, 3);
    run(Session::new(&host, 2).freeze(&memory.0, &[], How::default())).expect("it fits");
    let log = host.disk.borrow().log.clone();
    let writes: Vec<_> = log.iter().filter(|(op, ..)| *op != Op::Read).collect();
    let [.., flush1, header, flush2] = writes[..] else {
        panic!("too short: {writes:?}");
    };
    assert_eq!((flush1.0, flush2.0), (Op::Flush, Op::Flush));
    assert_eq!(*header, (Op::Write, 0, 8), "one write, into slot A");
    let data = writes
        .iter()
        .filter(|(op, at, _)| *op == Op::Write && *at >= 128);
    assert!(data.count() > 2);
}

#[test]
fn after_a_power_cut_at_any_request_there_is_a_whole_image_or_none() {
    let memory = Memory::random(290, 11);
    for retired in [false, true] {
        let start = consumed(retired).data();
        let whole = Host::with(start.clone(), 1);
        run(Session::new(&whole, 2).freeze(&memory.0, &[], How::default())).expect("it fits");
        let (mut none, mut valid) = (0, 0);
        for cut in 1..=whole.served() {
            seeds(8, |seed| {
                let host = Host::with(start.clone(), seed);
                host.disk.borrow_mut().moods.gone = Some(cut);
                let _ = run(Session::new(&host, 2).freeze(&memory.0, &[], How::default()));
                let next = host.after_power_cut(seed);
                let mut session = Session::new(&next, 2);
                match session.slots().verdict() {
                    Verdict::Ended(header, _) => assert_eq!(header.generation, Generation(1)),
                    Verdict::Valid(header, _) => {
                        assert_eq!(header.generation, Generation(2));
                        let into = Memory::new(290);
                        run(session.load(&into.0, None)).expect("a whole image");
                        assert!(into.bytes() == memory.bytes());
                    }
                    other => panic!("cut at request {cut}: {other:?}"),
                }
            });
            let host = Host::with(start.clone(), 1);
            host.disk.borrow_mut().moods.gone = Some(cut);
            let _ = run(Session::new(&host, 2).freeze(&memory.0, &[], How::default()));
            match Session::new(&host.after_power_cut(1), 2).slots().verdict() {
                Verdict::Valid(..) => valid += 1,
                _ => none += 1,
            }
        }
        assert!(none > 0 && valid > 0, "{none} {valid}");
    }
}

#[test]
fn a_restore_that_is_cut_off_repeats_until_it_is_consumed_and_never_after() {
    let memory = Memory::random(300, 5);
    let start = frozen(&memory.0, How::default()).data();
    let restore = |host: &Host| -> Option<()> {
        let mut session = Session::new(host, 1);
        let (area, slots) = run(session.look()).ok()?;
        let table = run(session.store.read_table(area, &slots, None)).ok()?;
        run(session.place(&table, &Memory::new(300).0)).ok()?;
        run(session.store.consume(&table)).ok()?;
        Some(())
    };
    let whole = Host::with(start.clone(), 1);
    restore(&whole).expect("a friendly disk");
    let (mut again, mut never) = (0, 0);
    for cut in 1..=whole.served() + 3 {
        seeds(8, |seed| {
            let host = Host::with(start.clone(), seed);
            host.disk.borrow_mut().moods.gone = Some(cut);
            let resumed = restore(&host).is_some();
            let next = host.after_power_cut(seed);
            let verdict = Session::new(&next, 1).slots().verdict();
            match verdict {
                Verdict::Valid(..) => assert!(!resumed, "cut at {cut}: resumed twice"),
                Verdict::Ended(header, _) => assert_eq!(header.state, State::Consumed),
                other => panic!("cut at request {cut}: {other:?}"),
            }
        });
        let host = Host::with(start.clone(), 1);
        host.disk.borrow_mut().moods.gone = Some(cut);
        match restore(&host) {
            Some(()) => never += 1,
            None => again += 1,
        }
    }
    assert!(again > 0 && never > 0);
}

#[test]
fn a_commit_of_unknown_outcome_is_made_void_whatever_became_of_it() {
    let memory = Memory::random(300, 5);
    for (what, retired) in [
        ("lost", true),
        ("done", true),
        ("lost", false),
        ("done", false),
    ] {
        let host = consumed(retired);
        let mut session = Session::new(&host, 1);
        let mut plan = run(session.plan(&memory.0, &[], How::default())).expect("it fits");
        run(session.prepare(&mut plan, &memory.0, &[])).expect("a friendly disk");
        let served = host.served();
        match what {
            "lost" => host.disk.borrow_mut().moods.fail = Some(served),
            _ => host.disk.borrow_mut().moods.fail = Some(served + 1),
        }
        let failed = run(session.commit(&mut plan));
        assert!(matches!(failed, Err(Failed::Unknown(_))), "{failed:?}");
        run(session.store.void(&plan)).expect("the disk works again");
        for next in [Host::with(host.data(), 1), host.after_power_cut(3)] {
            let Verdict::Ended(header, _) = Session::new(&next, 1).slots().verdict() else {
                panic!("void");
            };
            assert_eq!(header.state, State::Void);
            assert_eq!(header.generation, Generation(2));
        }
        run(session.freeze(&memory.0, &[], How::default())).expect("the next one works");
    }
}

#[test]
fn a_void_that_fails_half_way_is_void_if_its_first_half_is_durable() {
    let memory = Memory::random(300, 5);
    for cut in 0..6 {
        let host = consumed(true);
        let mut session = Session::new(&host, 1);
        let mut plan = run(session.plan(&memory.0, &[], How::default())).expect("it fits");
        run(session.prepare(&mut plan, &memory.0, &[])).expect("a friendly disk");
        run(session.commit(&mut plan)).expect("a friendly disk");
        let served = host.served();
        host.disk.borrow_mut().moods.gone = Some(served + cut);
        let voided = run(session.store.void(&plan));
        assert_eq!(voided.is_ok(), cut == 5, "{cut}");
        drop(session);
        seeds(8, |seed| {
            let next = host.after_power_cut(seed);
            let verdict = Session::new(&next, 1).slots().verdict();
            let ended = matches!(verdict, Verdict::Ended(..));
            assert!(ended || cut < 2, "{cut}: {verdict:?}");
        });
    }
}

#[test]
fn going_on_without_it_ends_an_image_for_good() {
    let host = frozen(&Memory::random(300, 5).0, How::default());
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let ended = run(session.store.abandon(area, &slots));
    assert_eq!(ended, Ok(Generation(1)));
    let slots = session.slots();
    for slot in [slots.a, slots.b] {
        let Slot::Header(header) = slot else {
            panic!("both slots say so: {slot:?}");
        };
        assert_eq!(header.state, State::Abandoned);
        assert_eq!(header.chunks, 2, "it can still be looked at");
    }
    let before = host.data();
    assert_eq!(run(session.store.abandon(area, &slots)), Ok(Generation(1)));
    assert!(host.data() == before, "it has ended already");
}

#[test]
fn damaged_headers_can_be_given_up_and_the_disk_used_again() {
    let memory = Memory::random(300, 5);
    for slot in 0..2 {
        let host = frozen(&memory.0, How::default());
        host.disk.borrow_mut().data[slot * 4096 + 30] ^= 4;
        let mut session = Session::new(&host, 1);
        let refused = run(session.freeze(&memory.0, &[], How::default()));
        assert!(matches!(refused, Err(Failed::Asked(WhyNot::Damaged(_)))));
        let (area, slots) = run(session.look()).expect("readable");
        run(session.store.abandon(area, &slots)).expect("written");
        assert!(matches!(session.slots().verdict(), Verdict::Ended(..)));
        run(session.freeze(&memory.0, &[], How::default())).expect("usable again");
    }
}

#[test]
fn a_freeze_asks_first() {
    let memory = Memory::random(600, 5);
    let why = |host: &Host, free: &[std::ops::Range<usize>]| {
        let before = host.data();
        let plan = run(Session::new(host, 1).plan(&memory.0, free, How::default()));
        assert!(host.data() == before, "asking changes nothing");
        match plan {
            Ok(_) => None,
            Err(Failed::Asked(why)) => Some(why),
            Err(other) => panic!("{other:?}"),
        }
    };
    let small = Host::new(600 * 4096);
    let Some(WhyNot::NoSpace { needs, have }) = why(&small, &[]) else {
        panic!("it does not fit");
    };
    assert_eq!((needs, have), (600 * 8 + 128 + 8, 600 * 8));
    let free = std::slice::from_ref(&(0..17));
    assert_eq!(why(&small, free), None, "free pages need no room");

    let host = Host::new(8 << 20);
    host.disk.borrow_mut().info.read_only = true;
    assert_eq!(why(&host, &[]), Some(WhyNot::ReadOnly));
    let host = Host::new(8 << 20);
    host.disk.borrow_mut().info.durability = Durability::None;
    assert_eq!(why(&host, &[]), Some(WhyNot::NoFlush));
    let mut data = vec![0; 8 << 20];
    data[1080] = 0x53; // what a file system has there
    assert_eq!(
        why(&Host::with(data.clone(), 1), &[]),
        Some(WhyNot::Foreign)
    );
    data[1080] = 0;
    data[40_000] = 1;
    assert_eq!(why(&Host::with(data, 1), &[]), Some(WhyNot::Foreign));
}

#[test]
fn formatting_makes_any_disk_an_empty_image_disk() {
    let host = Host::with(vec![0xa5; 4 << 20], 1);
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    assert_eq!(slots.verdict(), Verdict::Foreign);
    run(session.store.format(area)).expect("written");
    let Verdict::Ended(header, _) = session.slots().verdict() else {
        panic!("empty");
    };
    assert_eq!(header.state, State::Empty);
    run(session.freeze(&Memory::random(300, 1).0, &[], How::default())).expect("usable");
}
