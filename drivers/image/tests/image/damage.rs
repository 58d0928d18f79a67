//! What is wrong on the disk is refused by name, whatever it is.

use crate::disk::Host;
use crate::guest::{Memory, Session, frozen, machine, run, sealed};
use crate::seed::{Random, seeds};
use firn_block::PAGE;
use firn_image::{BuildId, Cpu, Damage, Error, How, Key, Refusal, SlotId, State, Verdict, check};

/// What a restore says about a disk with these bytes.
fn judge(data: Vec<u8>, pages: usize, key: Option<&Key>) -> Result<Vec<u8>, Refusal> {
    let host = Host::with(data, 1);
    let before = host.data();
    let into = Memory::new(pages);
    let outcome = run(Session::new(&host, 1).load(&into.0, key));
    assert!(host.data() == before, "the image disk is untouched");
    outcome.map(|()| into.bytes())
}

#[test]
fn every_flipped_byte_of_headers_and_table_is_noticed() {
    let memory = Memory::random(5, 2);
    for how in [How::default(), sealed(1)] {
        let key = how.key.clone();
        let data = frozen(&memory.0, how).data();
        let host = Host::with(data, 1);
        let mut session = Session::new(&host, 1);
        let into = Memory::new(5);
        run(session.load(&into.0, key.as_ref())).expect("whole");
        let (mut headers, mut tables) = (0, 0);
        for at in (0..8192).chain(65_536..65_536 + 4096) {
            for flip in [1, 0x80, 0xff] {
                host.disk.borrow_mut().data[at] ^= flip;
                let outcome = run(session.load(&into.0, key.as_ref()));
                host.disk.borrow_mut().data[at] ^= flip;
                match outcome {
                    Err(Refusal::Damaged(Damage::Header { slot, .. })) => {
                        headers += 1;
                        let right = if at < 4096 { SlotId::A } else { SlotId::B };
                        assert_eq!(slot, right, "byte {at}");
                    }
                    Err(Refusal::Damaged(Damage::Table(_))) => {
                        tables += 1;
                        assert!(at >= 65_536, "byte {at}");
                    }
                    other => panic!("byte {at} ^ {flip}: {other:?}"),
                }
            }
        }
        assert_eq!((headers, tables), (3 * 8192, 3 * 4096));
    }
}

#[test]
fn a_flipped_bit_of_any_chunk_is_noticed() {
    let memory = Memory::random(60, 9);
    let all = [
        How::default(),
        How {
            compress: true,
            ..How::default()
        },
        sealed(1),
    ];
    for how in all {
        let key = how.key.clone();
        let host = frozen(&memory.0, how);
        let mut session = Session::new(&host, 2);
        let (area, slots) = run(session.look()).expect("readable");
        let table = run(session.store.read_table(area, &slots, key.as_ref())).expect("whole");
        run(session.store.verify(&table)).expect("whole");
        let header = *table.header();
        let start = 65_536 + 4096;
        let mut rng = Random::new(1);
        for _ in 0..3400 {
            let at = start + rng.below(header.stored) as usize;
            let bit = 1 << rng.below(8);
            host.disk.borrow_mut().data[at] ^= bit;
            let verified = run(session.store.verify(&table));
            let noticed = matches!(verified, Err(Error::Damaged(Damage::Chunk { .. })));
            assert!(noticed, "byte {at}: {verified:?}");
            host.disk.borrow_mut().data[at] ^= bit;
        }
    }
}

#[test]
fn a_bad_chunk_is_named() {
    let memory = Memory::new(3 * 256);
    for page in 0..memory.0.page_count() {
        memory.0.copy_in(page * PAGE, &[page as u8 | 1]);
    }
    let mut data = frozen(&memory.0, How::default()).data();
    data[65_536 + 4096 + (2 << 20) + 77] ^= 1;
    let Err(Refusal::Damaged(damage)) = judge(data, 3 * 256, None) else {
        panic!("refused");
    };
    let what = "its checksum is wrong";
    assert_eq!(damage, Damage::Chunk { index: 2, what });
}

#[test]
fn an_older_images_chunk_and_another_places_chunk_are_noticed() {
    // All chunks alike, so that only their seeds tell them apart.
    let memory = Memory::new(3 * 256);
    for page in 0..memory.0.page_count() {
        memory.0.copy_in(page * PAGE, &[7; PAGE]);
    }
    let old = frozen(&memory.0, How::default());
    let start = 65_536;
    let entry = |index: usize| start + 128 + index * 64..start + 128 + (index + 1) * 64;
    let data = old.data();
    let sums: Vec<&[u8]> = (0..3).map(|i| &data[entry(i)][..8]).collect();
    assert!(
        sums[0] != sums[1] && sums[1] != sums[2],
        "sums know their place"
    );

    // The same memory again, in the next generation.
    let mut session = Session::new(&old, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let table = run(session.store.read_table(area, &slots, None)).expect("whole");
    run(session.store.consume(&table)).expect("written");
    run(session.freeze(&memory.0, &[], How::default())).expect("it fits");
    let new = old.data();
    assert!(
        new[entry(0)] != data[entry(0)],
        "sums know their generation"
    );
    let mut stale = new.clone();
    stale[start..start + 4096].copy_from_slice(&data[start..start + 4096]);
    let refused = judge(stale, 3 * 256, None);
    let what = "its checksum is wrong";
    assert_eq!(refused, Err(Refusal::Damaged(Damage::Table(what))));
}

#[test]
fn chunks_that_changed_places_are_noticed() {
    let memory = Memory::new(2 * 256);
    for page in 0..512 {
        memory
            .0
            .copy_in(page * PAGE, &[1 + (page / 256) as u8; PAGE]);
    }
    for how in [How::default(), sealed(1)] {
        let key = how.key.clone();
        let mut data = frozen(&memory.0, how).data();
        let (_, chunks) = data.split_at_mut(65_536 + 4096);
        let (a, b) = chunks.split_at_mut(1 << 20);
        a.swap_with_slice(&mut b[..1 << 20]);
        let refused = judge(data, 512, key.as_ref());
        assert!(
            matches!(refused, Err(Refusal::Damaged(Damage::Chunk { .. }))),
            "{refused:?}"
        );
    }
}

#[test]
fn a_write_that_was_lost_is_noticed() {
    let memory = Memory::random(1000, 3);
    let full = frozen(&memory.0, How::default()).data();
    seeds(50, |seed| {
        let mut rng = Random::new(seed);
        let mut bad = full.clone();
        let page = (65_536 + 4096) / PAGE + rng.below(100) as usize;
        bad[page * PAGE..][..PAGE].fill(0);
        let refused = judge(bad, 1000, None);
        assert!(
            matches!(refused, Err(Refusal::Damaged(Damage::Chunk { .. }))),
            "{refused:?}"
        );
    });
}

#[test]
fn a_truncated_disk_is_refused_and_a_grown_one_is_not() {
    let memory = Memory::random(600, 3);
    let data = frozen(&memory.0, How::default()).data();
    let was = (data.len() / 512) as u64;
    for cut in [512, 1 << 20, data.len() - 65_536] {
        let short = data[..data.len() - cut].to_vec();
        let is = (short.len() / 512) as u64;
        assert_eq!(judge(short, 600, None), Err(Refusal::Truncated { was, is }));
    }
    let mut grown = data;
    grown.resize(grown.len() + (1 << 20), 0xff);
    assert!(judge(grown, 600, None) == Ok(memory.bytes()));
}

#[test]
fn keys_open_only_what_they_sealed() {
    let memory = Memory::random(300, 3);
    let key = |secret| sealed(secret).key;
    let open = frozen(&memory.0, How::default()).data();
    let shut = frozen(&memory.0, sealed(1)).data();
    let text = memory.bytes();
    assert!(judge(shut.clone(), 300, key(1).as_ref()) == Ok(text.clone()));
    let other = judge(shut.clone(), 300, key(2).as_ref());
    assert_eq!(other, Err(Refusal::Damaged(Damage::Seal)));
    assert_eq!(judge(shut.clone(), 300, None), Err(Refusal::NoKey));
    let downgraded = judge(open.clone(), 300, key(1).as_ref());
    assert_eq!(downgraded, Err(Refusal::NotSealed));
    let page = text.chunks(PAGE).max_by_key(|page| page[1]).expect("pages");
    assert!(open.windows(PAGE).step_by(PAGE).any(|w| w == page));
    assert!(
        !shut.windows(PAGE).step_by(PAGE).any(|w| w == page),
        "encrypted"
    );
}

#[test]
fn two_chunks_of_one_image_share_no_byte_stream() {
    let memory = Memory::new(512);
    for page in [0, 256] {
        memory.0.copy_in(page * PAGE, &[7; PAGE]);
    }
    let data = frozen(&memory.0, sealed(1)).data();
    let (one, two) = data[65_536 + 4096..].split_at(PAGE);
    assert!(one != &two[..PAGE], "the same page looks different");
}

#[test]
fn two_images_under_one_key_share_no_byte_stream() {
    let memory = Memory::random(300, 3);
    let a = frozen(&memory.0, sealed(1)).data();
    let salted = How {
        salt: [10; 12],
        ..sealed(1)
    };
    let b = frozen(&memory.0, salted).data();
    let data = 65_536 + 4096..65_536 + 8192;
    assert!(a[data.clone()] != b[data]);
}

#[test]
fn every_difference_of_the_machine_has_its_own_refusal() {
    let memory = Memory::random(300, 3);
    let host = frozen(&memory.0, How::default());
    let mut session = Session::new(&host, 1);
    let (area, slots) = run(session.look()).expect("readable");
    let Verdict::Valid(header, _) = slots.verdict() else {
        panic!("an image");
    };
    let ours = machine(&memory.0);
    assert_eq!(check(&header, area, &ours), Ok(()));
    let mut more = ours;
    more.heap.bytes += 1 << 20;
    more.cpu = Cpu([u64::MAX; 4]);
    assert_eq!(check(&header, area, &more), Ok(()));

    let mut words = Vec::new();
    let mut refused = |change: fn(&mut firn_image::Machine)| {
        let mut other = ours;
        change(&mut other);
        let refusal = check(&header, area, &other).expect_err("a difference");
        assert!(!refusal.hint().is_empty());
        words.push(refusal.word());
    };
    refused(|m| m.build = BuildId::from_bytes(b"another"));
    refused(|m| m.heap.address += 4096);
    refused(|m| m.heap.bytes -= 4096);
    refused(|m| m.cpu = Cpu([1, 2, 4, 0]));
    refused(|m| m.has_key = true);
    assert_eq!(words, ["build", "address", "memory", "cpu", "not-sealed"]);
}

#[test]
fn two_sound_slots_always_mean_something() {
    // Every pair of states and generations that can lie in the slots.
    let host = frozen(&Memory::random(300, 3).0, How::default());
    let slots = Session::new(&host, 1).slots();
    let firn_image::Slot::Header(header) = slots.a else {
        panic!("the first image is in slot A");
    };
    let states = [
        State::Empty,
        State::Valid,
        State::Consumed,
        State::Abandoned,
        State::Void,
    ];
    for (a, b) in states.iter().flat_map(|a| states.map(|b| (*a, b))) {
        for (one, two) in [(5, 5), (5, 6), (6, 5)] {
            let with = |state, generation| {
                let mut header = header;
                header.state = state;
                header.generation.0 = generation;
                firn_image::Slot::Header(header)
            };
            let slots = firn_image::Slots {
                a: with(a, one),
                b: with(b, two),
                ..slots
            };
            let newest: Vec<State> = [(a, one), (b, two)]
                .into_iter()
                .filter(|(_, generation)| *generation == one.max(two))
                .map(|(state, _)| state)
                .collect();
            let ended = newest.iter().any(|state| state.is_end());
            let valid = newest.contains(&State::Valid);
            match slots.verdict() {
                Verdict::Ended(header, _) => {
                    assert!(
                        ended || newest.iter().all(|s| *s == State::Empty),
                        "{a} {b}"
                    );
                    assert_eq!(header.generation.0, one.max(two));
                }
                Verdict::Valid(..) => assert!(valid && !ended, "{a} {b}"),
                Verdict::Damaged(_) => assert!(!ended, "{a} {b}"),
                other => panic!("{a} {b}: {other:?}"),
            }
        }
    }
}
