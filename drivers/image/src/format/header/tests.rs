use super::*;

extern crate std;
use std::vec;
use std::vec::Vec;

/// A record with every field in use.
fn full() -> RawHeader {
    let header = Header {
        generation: Generation(7),
        state: State::Valid,
        build: BuildId([3; 32]),
        heap: Heap {
            address: 1 << 44,
            bytes: 3 * CHUNK as u64 - 4096,
        },
        cpu: Cpu([1, 2, 3, 4]),
        time: 5,
        reason: Reason::new("x"),
        chunks: 3,
        disks: 2,
        pages: 700,
        stored: 600 * 4096,
        area_sectors: 1 << 20,
        sealed: true,
        layout: Layout {
            table_sum: [1; 16],
            salt: [2; 12],
            tag: [3; 16],
        },
    };
    header.to_raw(SlotId::B)
}

fn judge(raw: RawHeader) -> Slot {
    let mut block = [0; SLOT_BYTES];
    block[..RECORD_BYTES].copy_from_slice(raw.as_bytes());
    parse(&block, SlotId::B)
}

/// The record with a right checksum, as a hostile host would make it.
fn forged(mut raw: RawHeader) -> Slot {
    raw.checksum = sum::of_header(&raw);
    judge(raw)
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let Slot::Header(header) = judge(full()) else {
        panic!("sound");
    };
    assert_eq!(header.to_raw(SlotId::B).as_bytes(), full().as_bytes());
}

/// A change, and what is said about it.
type Lie = (fn(&mut RawHeader), &'static str);

#[test]
fn a_right_checksum_makes_no_field_true() {
    let lies: Vec<Lie> = vec![
        (|r| r.bytes = 511, "its length is wrong"),
        (|r| r.slot = 0, "it is the other slot's"),
        (|r| r.state = 6, "its state is unknown"),
        (|r| r.flags = 3, "it has unknown flags"),
        (|r| r.chunk_bytes = 4096, "its chunk size is unknown"),
        (|r| r.pad = 1, "its reserved bytes are not zero"),
        (|r| r.reserved[231] = 1, "its reserved bytes are not zero"),
        (|r| r.generation = u64::MAX, "its generation is the last"),
        (|r| r.heap_bytes = 0, "it has no memory"),
        (|r| r.heap_bytes = u64::MAX - 4095, "its memory cannot be"),
        (|r| r.heap_bytes += 1, "its memory cannot be"),
        (|r| r.heap_address = 1, "its memory cannot be"),
        (|r| r.heap_address = !4095, "its memory cannot be"),
        (|r| r.chunks = 4, "its number of chunks is wrong"),
        (|r| r.disks = 65, "it has too many disks"),
        (|r| r.disks = u32::MAX, "it has too many disks"),
        (|r| r.pages = 768, "its number of pages is wrong"),
        (|r| r.table_place = 0, "its places are wrong"),
        (|r| r.table_bytes += 64, "its places are wrong"),
        (|r| r.data_place = 0, "its places are wrong"),
        (|r| r.data_bytes = 701 * 4096, "its data cannot be"),
        (|r| r.data_bytes = 1, "its data cannot be"),
        (|r| r.area_sectors = 128, "its data cannot be"),
        (|r| r.flags = 0, "it has a seal's fields, but no seal"),
    ];
    for (number, (lie, what)) in lies.into_iter().enumerate() {
        let mut raw = full();
        lie(&mut raw);
        assert_eq!(forged(raw), Slot::Damaged(what), "lie {number}");
    }
}

#[test]
fn another_version_is_named_and_a_damaged_version_is_not() {
    let mut raw = full();
    raw.version = 2;
    assert_eq!(judge(raw), Slot::Damaged("its checksum is wrong"));
    assert_eq!(forged(raw), Slot::Version(2));
    raw.magic = *b"firn-imG";
    assert_eq!(forged(raw), Slot::Foreign);
}

#[test]
fn any_forged_record_is_refused_or_possible() {
    let mut state = 1_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    for _ in 0..200_000 {
        let mut raw = full();
        for _ in 0..=random() % 3 {
            let at = 12 + random() as usize % 492;
            raw.as_mut_bytes()[at] = random() as u8;
        }
        let Slot::Header(header) = forged(raw) else {
            continue;
        };
        // What the loader relies on.
        assert_eq!(
            u64::from(header.chunks),
            super::super::chunks(header.heap.bytes)
        );
        assert!(header.disks as usize <= Meta::MAX_DISKS);
        let end = header.data_place() + header.stored;
        assert!(end.div_ceil(SECTOR) <= header.area_sectors || header.chunks == 0);
    }
}
