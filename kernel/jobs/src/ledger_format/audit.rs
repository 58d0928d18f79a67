//! Counting the records of a ledger: by the job after a restore, by the host
//! from the disk's file and the console.

use super::{ACK_PREFIX, Layout, NoRecord, Record, Seal};
use alloc::vec;
use alloc::vec::Vec;
use serde_json::Value;

/// The acknowledgements that a console printed, line by line, over all boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Every record up to this one was acknowledged.
    pub upto: u64,
    /// How many acknowledgements there were.
    pub lines: u64,
    /// Records that were acknowledged again: two machines went on from one
    /// memory, or one forgot what it had said.
    pub doubled: u64,
    /// Lines that broke off.
    pub garbled: u64,
}

impl Acks {
    /// Reads one console line; lines of other kinds and of other ledgers are
    /// left out.
    pub fn line(&mut self, ledger: u64, line: &str) {
        let Some((_, json)) = line.split_once(ACK_PREFIX) else {
            return;
        };
        // A guest that was destroyed may have been in the middle of a line.
        let Ok(ack) = serde_json::from_str::<Value>(json.trim_end()) else {
            self.garbled += 1;
            return;
        };
        let number = |name: &str| ack.get(name).and_then(Value::as_u64);
        if number("ledger") != Some(ledger) {
            return;
        }
        let Some(upto) = number("upto") else {
            self.garbled += 1;
            return;
        };
        self.lines += 1;
        match upto.checked_sub(self.upto) {
            Some(1..) => self.upto = upto,
            // The whole stretch back to `upto` is said a second time.
            _ => self.doubled += self.upto - upto + 1,
        }
    }
}

/// What lies at every place of a ledger.
#[derive(Clone, Debug)]
pub struct Audit {
    layout: Layout,
    found: Vec<Option<(Record, Seal)>>,
    damaged: u64,
    misplaced: u64,
}

/// What an audit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Every record up to this one was acknowledged.
    pub acknowledged: u64,
    /// Acknowledged records that must still be on the disk.
    pub due: u64,
    /// Those of them that are.
    pub present: u64,
    /// Those of them that are not.
    pub lost: u64,
    /// The first that is not.
    pub first_lost: Option<u64>,
    /// Records that were acknowledged twice, that lie in two places, or that
    /// do not follow from the record before them.
    pub doubled: u64,
    /// Places whose record is damaged: of an unacknowledged one that is
    /// allowed, and a lost one is counted as such.
    pub damaged: u64,
    /// The newest record.
    pub newest: u64,
    /// Boots that wrote records that are still there.
    pub boots: u64,
}

impl Tally {
    /// Whether nothing is lost and nothing doubled.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }
}

impl Audit {
    /// An audit that has looked at nothing.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            found: vec![None; layout.slots as usize],
            damaged: 0,
            misplaced: 0,
        }
    }

    /// Looks at the bytes of one place.
    pub fn look(&mut self, slot: u64, bytes: &[u8]) {
        match Record::read(&self.layout, slot, bytes) {
            Ok(found) => self.found[slot as usize] = Some(found),
            Err(NoRecord::Foreign) => {}
            Err(NoRecord::Damaged) => self.damaged += 1,
            Err(NoRecord::Misplaced { .. }) => self.misplaced += 1,
        }
    }

    /// What was found at the place of record `seq`, if it is that one.
    #[must_use]
    pub fn record(&self, seq: u64) -> Option<(Record, Seal)> {
        let found = self.found[self.layout.slot(seq) as usize];
        found.filter(|(record, _)| record.seq == seq)
    }

    /// The newest record that was found, whether acknowledged or not.
    #[must_use]
    pub fn newest(&self) -> u64 {
        let numbers = self.found.iter().flatten().map(|(record, _)| record.seq);
        numbers.max().unwrap_or(0)
    }

    /// The end of the longest chain without a gap from the oldest record on:
    /// what a ledger whose memory was lost goes on from. Everything that was
    /// acknowledged is before it.
    #[must_use]
    pub fn chain_end(&self) -> Option<(Record, Seal)> {
        // The unfinished ones may have damaged as many of the oldest.
        let mut end: Option<(Record, Seal)> = None;
        for seq in self.layout.kept(self.newest()) {
            let next = self.record(seq);
            match (end, next) {
                (None, next) => end = next,
                (Some((_, seal)), Some((record, _))) if record.chain == seal.link => end = next,
                (Some(_), _) => break,
            }
        }
        end
    }

    /// Compares with what was acknowledged.
    #[must_use]
    pub fn tally(&self, acks: &Acks) -> Tally {
        let mut tally = Tally {
            acknowledged: acks.upto,
            doubled: acks.doubled + self.misplaced,
            damaged: self.damaged,
            newest: self.newest(),
            ..Tally::default()
        };
        let mut last: Option<(Record, Seal)> = None;
        for seq in self.layout.kept(acks.upto) {
            tally.due += 1;
            let Some((record, seal)) = self.record(seq) else {
                tally.lost += 1;
                tally.first_lost.get_or_insert(seq);
                last = None;
                continue;
            };
            tally.present += 1;
            // A record whose predecessor is another than the one on the disk:
            // two memories wrote here.
            let follows = last.is_none_or(|(_, before)| record.chain == before.link);
            tally.doubled += u64::from(!follows);
            last = Some((record, seal));
        }
        let mut boots: Vec<u64> = self.found.iter().flatten().map(|(r, _)| r.boot).collect();
        boots.sort_unstable();
        boots.dedup();
        tally.boots = boots.len() as u64;
        tally
    }
}
