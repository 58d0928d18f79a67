use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const LAYOUT: Layout = Layout {
    ledger: 7,
    first: 16,
    record: 512,
    slots: 1024,
};

/// Records one after the other, as the job writes them.
struct Writer {
    disk: Vec<Vec<u8>>,
    boot: u64,
    seq: u64,
    link: u64,
}

impl Writer {
    fn new() -> Self {
        Self {
            disk: vec![vec![0; 512]; 1024],
            boot: 1,
            seq: 0,
            link: 0,
        }
    }

    fn write(&mut self, count: u64) -> &mut Self {
        for _ in 0..count {
            self.seq += 1;
            let record = self.record();
            let slot = LAYOUT.slot(self.seq) as usize;
            self.link = record.fill(&LAYOUT, &mut self.disk[slot]).link;
        }
        self
    }

    fn record(&self) -> Record {
        Record {
            seq: self.seq,
            boot: self.boot,
            restores: 2,
            resumes: 3,
            time: 4,
            chain: self.link,
        }
    }

    fn audit(&self) -> Audit {
        let mut audit = Audit::new(LAYOUT);
        for (slot, bytes) in (0..).zip(&self.disk) {
            audit.look(slot, bytes);
        }
        audit
    }

    fn tally(&self, upto: u64) -> Tally {
        let acks = Acks {
            upto,
            ..Acks::default()
        };
        self.audit().tally(&acks)
    }
}

#[test]
fn a_record_is_read_as_it_was_written_and_only_at_its_place() {
    let writer = {
        let mut writer = Writer::new();
        writer.write(5);
        writer
    };
    let (record, _) = Record::read(&LAYOUT, 4, &writer.disk[4]).expect("whole");
    assert_eq!((record.seq, record.restores, record.resumes), (5, 2, 3));
    let read = |slot| Record::read(&LAYOUT, slot, &writer.disk[4]);
    assert_eq!(read(3), Err(NoRecord::Misplaced { seq: 5 }));
    let other = Layout {
        ledger: 8,
        ..LAYOUT
    };
    let foreign = Record::read(&other, 4, &writer.disk[4]);
    assert_eq!(foreign, Err(NoRecord::Foreign));
    assert_eq!(Record::read(&LAYOUT, 0, &[0; 512]), Err(NoRecord::Foreign));
}

#[test]
fn every_flipped_bit_is_found() {
    let mut writer = Writer::new();
    writer.write(1);
    for at in 0..512 * 8 {
        let mut bytes = writer.disk[0].clone();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(Record::read(&LAYOUT, 0, &bytes).is_err(), "bit {at}");
    }
}

#[test]
fn all_records_are_counted_also_after_the_ledger_went_round() {
    let mut writer = Writer::new();
    let tally = writer.write(550).tally(500);
    assert!(tally.is_whole(), "{tally:?}");
    assert_eq!((tally.due, tally.present, tally.newest), (500, 500, 550));
    let tally = writer.write(2000).tally(2550);
    assert!(tally.is_whole(), "{tally:?}");
    assert_eq!((tally.due, tally.present), (512, 512));
}

#[test]
fn what_is_missing_is_lost_only_if_it_was_acknowledged() {
    let mut writer = Writer::new();
    writer.write(100);
    writer.disk[59].fill(0);
    writer.disk[89][40] ^= 1;
    assert_eq!(writer.tally(50).lost, 0);
    let tally = writer.tally(100);
    assert_eq!((tally.lost, tally.first_lost), (2, Some(60)));
    assert_eq!((tally.doubled, tally.damaged), (0, 1));
}

#[test]
fn two_continuations_of_one_memory_are_told() {
    let mut first = Writer::new();
    first.write(50);
    let mut second = Writer {
        disk: first.disk.clone(),
        boot: 2,
        ..first
    };
    first.boot = 3;
    second.write(20);
    // The first one goes on as well, on the same disk.
    first.disk = second.disk;
    first.write(5);
    let tally = first.tally(70);
    assert_eq!((tally.lost, tally.doubled), (0, 1), "{tally:?}");
    assert_eq!(tally.boots, 3);
}

#[test]
fn acknowledgements_never_go_back() {
    let mut acks = Acks::default();
    for line in [
        "firn-ack {\"ledger\":7,\"upto\":10}",
        "firn> firn-ack {\"ledger\":7,\"upto\":20}\r",
        "firn-ack {\"ledger\":8,\"upto\":5}",
        "firn-ack {\"ledger\":7,\"up",
        "[    1.0] info  something else",
    ] {
        acks.line(7, line);
    }
    assert_eq!((acks.upto, acks.lines, acks.garbled), (20, 2, 1));
    assert_eq!(acks.doubled, 0);
    acks.line(7, "firn-ack {\"ledger\":7,\"upto\":18}");
    assert_eq!((acks.upto, acks.doubled), (20, 3));
}

#[test]
fn a_chain_ends_at_the_first_gap() {
    let mut writer = Writer::new();
    assert!(writer.audit().chain_end().is_none());
    writer.write(1500);
    let hole = LAYOUT.slot(1400) as usize;
    writer.disk[hole].fill(0);
    let (end, _) = writer.audit().chain_end().expect("a chain");
    assert_eq!(end.seq, 1399);
}

proptest! {
    #[test]
    fn a_layout_keeps_what_its_ledger_may_not_yet_overwrite(
        slots in SLOTS, acked in 0u64..1 << 40, open in 0..=MAX_OPEN,
    ) {
        let layout = Layout { slots, ..LAYOUT };
        let kept = layout.kept(acked);
        prop_assert!(kept.end - kept.start <= slots);
        let newest = acked + open;
        // Nobody overwrites a record that must be there.
        let overwritten = newest.saturating_sub(slots);
        prop_assert!(kept.start > overwritten || kept.is_empty());
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600), slot in 0u64..1024,
        magic in any::<bool>(),
    ) {
        if magic && bytes.len() >= 16 {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
            bytes[8..16].copy_from_slice(&7u64.to_le_bytes());
        }
        prop_assert!(Record::read(&LAYOUT, slot, &bytes).is_err());
    }
}
