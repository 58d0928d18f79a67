//! A reader written from docs/image-format.md alone: what it says is what lies
//! on the disk.

use crate::guest::{Memory, frozen};
use crate::seed::seeds;
use firn_image::How;
use xxhash_rust::xxh64::xxh64;

const PAGE: usize = 4096;

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four"))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight"))
    }
}

fn seed(generation: u64, place: u64) -> u64 {
    generation.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place
}

/// The memory in the image whose header is in slot A.
fn read(disk: &[u8]) -> Vec<u8> {
    let header = Bytes(&disk[..512]);
    assert_eq!(&header.0[..8], b"firn-img");
    assert_eq!((header.u32(8), header.u32(12)), (1, 512));
    let magic = header.u64(0);
    assert_eq!(header.u64(504), xxh64(&header.0[..504], magic));
    let (generation, state, slot) = (header.u64(16), header.u32(24), header.u32(28));
    assert_eq!((generation, state, slot), (1, 1, 0), "VALID, in slot A");
    assert_eq!((header.u32(36), header.u32(40)), (0, 1 << 20));
    let (chunks, disks) = (header.u32(44) as usize, header.u32(48) as usize);
    assert_eq!(&header.0[64..79], b"a build of firn");
    assert_eq!(header.u64(96), 0x1000_0000_0000);
    let mut memory = vec![0; header.u64(104) as usize];
    assert_eq!([112, 120, 128, 136].map(|at| header.u64(at)), [1, 2, 4, 8]);
    assert_eq!(header.u64(144), 1_700_000_000_000_000_000);
    assert_eq!(&header.0[152..159], b"a test\0");
    assert_eq!(header.u64(184), disk.len() as u64 / 512);

    let (place, length) = (header.u64(192) as usize, header.u64(200) as usize);
    assert_eq!((place, length), (65_536, (disks + chunks) * 64));
    let padded = length.next_multiple_of(PAGE);
    let table = &disk[place..place + padded];
    let sum = xxh64(table, seed(generation, 1 << 32));
    assert_eq!((header.u64(208), header.u64(216)), (sum, 0));
    let data = header.u64(224) as usize;
    assert_eq!(data, place + padded);

    assert_eq!(disks, 2);
    let first = Bytes(&table[..64]);
    assert_eq!(
        (first.u32(0), first.u32(4), first.u64(8)),
        (0, 512, 1 << 20)
    );
    assert_eq!((first.u32(16), first.u32(20)), (2, 0));
    assert_eq!(first.u64(24), 0x1234_5678_9abc_def0);
    let second = Bytes(&table[64..128]);
    assert_eq!((second.u32(0), second.u32(16), second.u32(20)), (3, 1, 1));
    assert_eq!(second.0[24..40], [7; 16]);

    let (mut pages, mut end) = (0, 0);
    for index in 0..chunks {
        let entry = Bytes(&table[(disks + index) * 64..][..64]);
        let (at, stored, coding) = (entry.u64(16) as usize, entry.u32(24), entry.u32(28));
        if coding == 0 {
            assert_eq!(entry.0, [0; 64]);
            continue;
        }
        assert_eq!(at, end, "packed");
        let bytes = &disk[data + at..][..stored as usize];
        let sum = xxh64(bytes, seed(generation, index as u64));
        assert_eq!((entry.u64(0), entry.u64(8)), (sum, 0));
        let has = |page: &usize| entry.0[32 + page / 8] >> (page % 8) & 1 != 0;
        let numbers: Vec<usize> = (0..256).filter(has).collect();
        let plain = match coding {
            1 => bytes.to_vec(),
            _ => lz4_flex::block::decompress(bytes, numbers.len() * PAGE).expect("LZ4"),
        };
        assert_eq!(plain.len(), numbers.len() * PAGE);
        for (page, bytes) in numbers.iter().zip(plain.chunks(PAGE)) {
            memory[index * (1 << 20) + page * PAGE..][..PAGE].copy_from_slice(bytes);
        }
        pages += numbers.len() as u64;
        end += (stored as usize).next_multiple_of(PAGE);
    }
    assert_eq!((header.u64(56), header.u64(232)), (pages, end as u64));
    memory
}

#[test]
fn the_image_is_what_its_description_says() {
    seeds(10, |seed| {
        let memory = Memory::random(1 + seed as usize * 77, seed);
        let compress = seed % 2 == 1;
        let how = How {
            compress,
            ..How::default()
        };
        let disk = frozen(&memory.0, how).data();
        assert!(read(&disk) == memory.bytes());
    });
}
