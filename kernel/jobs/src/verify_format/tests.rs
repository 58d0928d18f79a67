use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const PATTERN: Pattern = Pattern {
    seed: 0x5eed,
    generation: 7,
    block: 4096,
};

fn blocks(pattern: &Pattern, sector: u64, count: usize) -> Vec<u8> {
    let mut data = vec![0xee; pattern.block as usize * count];
    pattern.fill(sector, &mut data);
    data
}

fn found(data: &[u8]) -> Mismatch {
    PATTERN.check(800, data).expect_err("it was changed")
}

/// The bytes of `docs/verify-format.md`.
#[test]
fn the_layout_is_the_documented_one() {
    let bytes = PATTERN.sector(803, 3);
    assert_eq!(&bytes[..8], b"FRNV\x01\0\0\0");
    assert_eq!(bytes[8..16], 0x5eed_u64.to_le_bytes());
    assert_eq!(bytes[16..24], 803_u64.to_le_bytes());
    assert_eq!(bytes[24..32], 7_u64.to_le_bytes());
    assert_eq!(bytes[32..40], [0, 16, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[504..508], [3, 0, 0, 0]);
    // The check value of CRC-32C for the digits 1 to 9.
    assert_eq!(CRC32C.checksum(b"123456789"), 0xe306_9283);
    assert_eq!(
        bytes[508..512],
        CRC32C.checksum(&bytes[..508]).to_le_bytes()
    );
}

#[test]
fn what_was_written_is_found_right() {
    for block in [512, 1024, 4096, 65536] {
        let pattern = Pattern { block, ..PATTERN };
        let data = blocks(&pattern, 96, 3);
        assert_eq!(pattern.check(96, &data), Ok(()));
        // The last block of a disk may be shorter.
        assert_eq!(pattern.check(96, &data[..data.len() - 512]), Ok(()));
    }
}

#[test]
fn every_single_flipped_bit_of_a_block_is_found_and_named() {
    let good = blocks(&PATTERN, 800, 1);
    let mut data = good.clone();
    for bit in 0..data.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        data[byte] ^= mask;
        let mismatch = found(&data);
        assert_eq!(mismatch.sector, 800 + byte as u64 / 512);
        assert_eq!((mismatch.bad, mismatch.of), (1, 8));
        let expected = Difference::Damaged {
            at: (byte % 512) as u16,
            expected: good[byte],
            found: data[byte],
            differing: 1,
        };
        assert_eq!(mismatch.what, expected);
        data[byte] ^= mask;
    }
}

#[test]
fn every_kind_of_mismatch_is_named() {
    let good = blocks(&PATTERN, 800, 2);
    let with = |sector: usize, bytes: &[u8]| {
        let mut data = good.clone();
        data[sector * 512..][..bytes.len()].copy_from_slice(bytes);
        found(&data)
    };
    let older = Pattern {
        generation: 6,
        ..PATTERN
    };
    let run = Pattern { seed: 9, ..PATTERN };
    let small = Pattern {
        block: 512,
        ..PATTERN
    };
    let mut version = PATTERN.sector(805, 5);
    version[4] = 2;
    let checksum = CRC32C.checksum(&version[..508]).to_le_bytes();
    version[508..].copy_from_slice(&checksum);
    let mut payload = PATTERN.sector(805, 5);
    payload[40..48].fill(0x11);
    let checksum = CRC32C.checksum(&payload[..508]).to_le_bytes();
    payload[508..].copy_from_slice(&checksum);

    let cases: [(Mismatch, u64, &str); 11] = [
        (with(5, &[0; 512]), 805, "zero"),
        (with(5, &[0xa5; 512]), 805, "foreign"),
        (with(5, &version), 805, "version"),
        (with(5, &payload), 805, "damaged"),
        (with(5, &run.sector(805, 5)), 805, "other-seed"),
        (with(5, &PATTERN.sector(813, 5)), 805, "misdirected"),
        (with(5, &older.sector(805, 5)), 805, "torn"),
        (with(5, &small.sector(805, 0)), 805, "block-size"),
        (with(8, &blocks(&older, 808, 1)), 808, "generation"),
        (with(8, &blocks(&PATTERN, 800, 1)), 808, "misdirected"),
        (with(15, &older.sector(815, 7)), 815, "torn"),
    ];
    for (mismatch, sector, name) in cases {
        assert_eq!(mismatch.what.name(), name, "{mismatch}");
        assert_eq!(mismatch.sector, sector, "{mismatch}");
        assert_eq!(mismatch.of, 8);
    }
}

#[test]
fn a_torn_block_is_told_from_an_old_one() {
    let older = Pattern {
        generation: 6,
        ..PATTERN
    };
    let mut data = blocks(&older, 800, 1);
    assert_eq!(found(&data).what, Difference::Generation { found: 6 });
    assert_eq!(found(&data).bad, 8);
    data[..1024].copy_from_slice(&blocks(&PATTERN, 800, 1)[..1024]);
    let mismatch = found(&data);
    assert_eq!(mismatch.what, Difference::Torn { found: 6 });
    assert_eq!((mismatch.sector, mismatch.bad), (802, 6));
}

proptest! {
    /// Whatever is done to one sector, it is the one that is named.
    #[test]
    fn any_change_is_found(
        seed: u64,
        generation: u64,
        sector in 0u64..1 << 40,
        at in 0usize..8192,
        change in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let pattern = Pattern { seed, generation, block: 4096 };
        let good = blocks(&pattern, sector, 2);
        prop_assert_eq!(pattern.check(sector, &good), Ok(()));
        let mut data = good.clone();
        for (byte, change) in data[at..].iter_mut().zip(&change) {
            *byte ^= change;
        }
        let first = good.iter().zip(&data).position(|(a, b)| a != b);
        match (first, pattern.check(sector, &data)) {
            (None, outcome) => prop_assert_eq!(outcome, Ok(())),
            (Some(first), outcome) => {
                let mismatch = outcome.expect_err("bytes differ");
                prop_assert_eq!(mismatch.sector, sector + first as u64 / 512);
            }
        }
    }

    /// Any bytes at all can be checked.
    #[test]
    fn checking_never_panics(
        data in prop::collection::vec(any::<u8>(), 0..2048),
        block in 0u32..8192,
        sector: u64,
    ) {
        let pattern = Pattern { seed: 1, generation: 1, block };
        let full = data.len() / 512 > 0;
        prop_assert_eq!(pattern.check(sector, &data).is_err(), full);
    }
}
