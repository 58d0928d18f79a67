//! What was frozen is what comes back.

use crate::disk::Host;
use crate::guest::{Failed, Memory, Session, frozen, run, sealed};
use crate::seed::{Random, seeds};
use firn_block::PAGE;
use firn_image::{Generation, How, Key, Source, State, Verdict, WhyNot};

fn key(secret: u8) -> Key {
    sealed(secret).key.expect("a key")
}

fn compressed() -> How {
    How {
        compress: true,
        ..How::default()
    }
}

#[test]
fn every_memory_comes_back_whichever_way_it_is_written() {
    seeds(60, |seed| {
        let mut rng = Random::new(seed);
        let pages = 1 + rng.below(900) as usize;
        let memory = Memory::random(pages, seed);
        let (how, key) = match seed % 4 {
            0 | 1 => (How::default(), None),
            2 => (compressed(), None),
            _ => {
                let compress = rng.below(2) == 0;
                (
                    How {
                        compress,
                        ..sealed(3)
                    },
                    Some(key(3)),
                )
            }
        };
        let host = Host::with(vec![0; memory.0.len() + (1 << 20)], seed);
        host.disk.borrow_mut().info.logical_block = if seed % 3 == 0 { 4096 } else { 512 };
        host.disk.borrow_mut().moods.depth = 1 + rng.below(64) as usize;
        let chunks = 1 + rng.below(3) as usize;
        let kept = [0, 1].map(|_| rng.below(2) == 0);
        host.disk.borrow_mut().moods.keeps_pages = kept[0];
        run(Session::new(&host, chunks).freeze(&memory.0, &[], how)).expect("it fits");
        assert_eq!(host.disk.borrow().registered, 0, "all buffers are back");

        let again = Host::with(host.data(), seed);
        again.disk.borrow_mut().info.logical_block = host.disk.borrow().info.logical_block;
        again.disk.borrow_mut().moods.keeps_pages = kept[1];
        let into = Memory::random(pages, seed + 1);
        let mut session = Session::new(&again, chunks);
        run(session.load(&into.0, key.as_ref())).expect("it is whole");
        assert!(into.bytes() == memory.bytes(), "the same memory");
        assert_eq!(firn_block::lost_tokens(), 0);
    });
}

#[test]
fn only_pages_that_say_something_are_stored() {
    let memory = Memory::new(1000);
    for page in [0, 1, 2, 300, 301, 600, 999] {
        memory.0.copy_in(page * PAGE, &[1; PAGE]);
    }
    let host = Host::new(8 << 20);
    let free = [1..2, 300..500, 999..2000];
    let written = run(Session::new(&host, 1).freeze(&memory.0, &free, How::default()));
    let written = written.expect("it fits");
    assert_eq!(written.pages, 3);
    assert_eq!(written.free, 202);
    assert_eq!(written.zero, 795);
    assert_eq!(written.bytes, 3 * PAGE as u64);
    assert_eq!((written.in_place, written.staged), (3, 0));

    let into = Memory::random(1000, 5);
    run(Session::new(&host, 1).load(&into.0, None)).expect("it is whole");
    let mut expected = memory.bytes();
    for page in [1, 300, 301, 999] {
        expected[page * PAGE..][..PAGE].fill(0);
    }
    assert!(into.bytes() == expected);
}

#[test]
fn a_host_that_keeps_memory_mapped_sees_the_scratch_memory_alone() {
    let memory = Memory::random(1000, 3);
    for page in 0..600 {
        memory.0.copy_in(page * PAGE, &[1]);
    }
    let host = Host::new(8 << 20);
    host.disk.borrow_mut().moods.keeps_pages = true;
    let mut session = Session::new(&host, 3);
    let lanes = host.disk.borrow().registered;
    let written = run(session.freeze(&memory.0, &[], How::default())).expect("it fits");
    assert_eq!((written.in_place, written.staged), (0, 4));
    let most = |host: &Host| std::mem::take(&mut host.disk.borrow_mut().most_registered);
    assert_eq!((lanes, most(&host)), (4, 4));
    drop(session);

    let into = Memory::random(1000, 5);
    run(Session::new(&host, 50).load(&into.0, None)).expect("it is whole");
    assert!(into.bytes() == memory.bytes());
    assert_eq!(most(&host), 1 + 4, "no more than Linux keeps");
}

#[test]
fn a_host_that_keeps_memory_mapped_has_mapped_it_before_the_image_moves() {
    let memory = Memory::random(1000, 3);
    let host = Host::new(8 << 20);
    host.disk.borrow_mut().moods.keeps_pages = true;
    let seen = || host.disk.borrow().seen.len();

    let mut session = Session::new(&host, 3);
    let mut plan = run(session.plan(&memory.0, &[], How::default())).expect("it fits");
    let (area, before) = (run(session.look()).expect("readable").0, host.data());
    run(session.store.map_lanes(&area, 1000)).expect("readable");
    assert!(host.data() == before, "nothing was written");
    let mapped = seen();
    let source = Source {
        memory: &memory.0,
        free: &[],
    };
    run(session.store.write_chunks(&mut plan, &source)).expect("it fits");
    assert_eq!(seen(), mapped, "no page was new to the host");
    run(session.store.write_table(&mut plan)).expect("it fits");
    run(session.commit(&mut plan)).expect("it is written");
    drop(session);

    let mut session = Session::new(&host, 3);
    let slots = session.slots();
    let table = run(session.store.read_table(area, &slots, None)).expect("it is whole");
    run(session.store.map_lanes(table.area(), 1000)).expect("readable");
    let mapped = seen();
    run(session.store.verify(&table)).expect("it is whole");
    assert_eq!(seen(), mapped, "no page was new to the host");
}

#[test]
fn lanes_are_mapped_on_the_smallest_area() {
    let host = Host::new(64 << 10);
    host.disk.borrow_mut().moods.keeps_pages = true;
    let mut session = Session::new(&host, 3);
    assert!(session.store.keeps_mapped());
    let (area, _) = run(session.look()).expect("readable");
    let before = host.served();
    run(session.store.map_lanes(&area, 1)).expect("readable");
    assert_eq!(host.served() - before, 1, "one chunk needs one lane");
    run(session.store.map_lanes(&area, 1000)).expect("readable");
    assert_eq!(host.served() - before, 1 + 3, "there are three");
}

#[test]
fn writing_and_reading_keep_the_disk_busy() {
    let memory = Memory::new(64 * 256);
    for page in 0..memory.0.page_count() {
        memory.0.copy_in(page * PAGE, &[1]);
    }
    let host = Host::new(80 << 20);
    host.disk.borrow_mut().moods.depth = 100;
    host.disk.borrow_mut().moods.pace = 1;
    host.disk.borrow_mut().moods.lazy = 3;
    run(Session::new(&host, 1).freeze(&memory.0, &[], How::default())).expect("it fits");
    let writing = std::mem::take(&mut host.disk.borrow_mut().most_in_flight);
    let into = Memory::new(64 * 256);
    run(Session::new(&host, 1).load(&into.0, None)).expect("it is whole");
    let reading = host.disk.borrow().most_in_flight;
    assert!(writing >= 32 && reading >= 32, "{writing} {reading}");
}

#[test]
fn compression_is_used_only_where_it_wins() {
    let memory = Memory::new(512);
    let text: Vec<u8> = b"snow ".iter().copied().cycle().take(1 << 20).collect();
    memory.0.copy_in(0, &text);
    let mut rng = Random::new(1);
    let noise: Vec<u8> = (0..1 << 17)
        .flat_map(|_| rng.next().to_le_bytes())
        .collect();
    memory.0.copy_in(1 << 20, &noise);
    let host = Host::new(4 << 20);
    let written = run(Session::new(&host, 2).freeze(&memory.0, &[], compressed()));
    let written = written.expect("it fits");
    assert_eq!(written.compressed, 1);
    assert!(written.bytes < (1 << 20) + (1 << 16), "{written:?}");
    let into = Memory::new(512);
    run(Session::new(&host, 1).load(&into.0, None)).expect("it is whole");
    assert!(into.bytes() == memory.bytes());
}

#[test]
fn an_image_is_not_written_over_while_it_may_be_restored() {
    let memory = Memory::random(300, 1);
    let host = frozen(&memory.0, How::default());
    let before = host.data();
    let mut session = Session::new(&host, 1);
    let refused = run(session.freeze(&memory.0, &[], How::default()));
    let Err(Failed::Asked(why)) = refused else {
        panic!("refused: {refused:?}");
    };
    assert_eq!(why, WhyNot::HasImage(Generation(1)));
    assert!(host.data() == before, "untouched");
}

#[test]
fn generations_count_on_over_freezes_and_restores() {
    let host = Host::new(4 << 20);
    for generation in 1..6 {
        let memory = Memory::random(300, generation);
        let mut session = Session::new(&host, 1);
        run(session.freeze(&memory.0, &[], How::default())).expect("it fits");
        let (area, slots) = run(session.look()).expect("readable");
        let table = run(session.store.read_table(area, &slots, None)).expect("whole");
        assert_eq!(table.header().generation, Generation(generation));
        // As often as one likes: it leaves no trace.
        let before = host.data();
        for _ in 0..3 {
            let into = Memory::new(300);
            run(session.load(&into.0, None)).expect("whole");
            assert!(into.bytes() == memory.bytes());
        }
        assert!(host.data() == before, "untouched");
        run(session.store.consume(&table)).expect("written");
        if generation % 2 == 0 {
            run(session.store.retire(&table)).expect("written");
        }
        let Verdict::Ended(header, _) = session.slots().verdict() else {
            panic!("consumed");
        };
        assert_eq!(header.state, State::Consumed);
        assert_eq!(header.generation, Generation(generation));
    }
}
