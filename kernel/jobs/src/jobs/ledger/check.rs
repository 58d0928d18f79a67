//! The ledger's look at its disk: at the start, and whenever it was away.

use super::Run;
use crate::error::JobError;
use crate::io::Channel;
use crate::ledger_format::{Audit, NoRecord, Record};
use crate::machine::Machine;
use crate::stream::stream;
use crate::task::{Progress, Range};
use alloc::vec;
use firn_block::{Op, SECTOR};

/// Bytes read at a time, and how many such reads are in flight.
const LOOK: usize = 256 << 10;
const LOOKS: usize = 4;

impl<M: Machine> Run<'_, M> {
    /// Goes on after the records that are on the disk, if there are any: the
    /// memory that knew of them is lost.
    pub(super) async fn recover(&mut self) -> Result<(), JobError> {
        let audit = self.look_at_all().await?;
        let Some((record, seal)) = audit.chain_end() else {
            return Ok(());
        };
        let book = &mut self.book;
        book.next = record.seq + 1;
        book.link = seal.link;
        book.written = record.seq;
        // They have survived whatever ended the last run, and so are durable.
        book.acked = record.seq;
        self.first = book.next;
        for seq in self.layout.kept(record.seq) {
            if let Some((_, seal)) = audit.record(seq) {
                book.index[self.layout.slot(seq) as usize] = seal.checksum;
            }
        }
        self.task.say(format_args!(
            "goes on after record {}, the last that is on the disk",
            record.seq
        ));
        // Their continuation must not be told from an unfinished tail by luck.
        self.flush_due = self.task.machine.now();
        Ok(())
    }

    /// The machine was frozen or suspended: compares the disk with what this
    /// memory knows.
    pub(super) async fn came_back(&mut self) -> Result<(), JobError> {
        let audit = self.look_at_all().await?;
        let written = self.book.written;
        let mut same = 0u64;
        for seq in self.layout.kept(written) {
            let known = self.book.index[self.layout.slot(seq) as usize];
            match audit.record(seq) {
                Some((_, seal)) if seal.checksum == known => same += 1,
                Some(_) => return Err(self.differs(seq, "is not the one that memory knows")),
                None => return Err(self.differs(seq, "is not on the disk")),
            }
        }
        // A record that follows from ours and that we have not written: this
        // memory went on before.
        let ahead = audit.record(self.book.next);
        if ahead.is_some_and(|(record, _)| record.chain == self.book.link) {
            return Err(self.differs(self.book.next, "was written by another life of this memory"));
        }
        self.checked += same;
        let was = core::mem::replace(&mut self.era, self.task.machine.era());
        let era = self.era;
        let how = match era.restores == was.restores {
            true => "resume",
            false => "restore",
        };
        self.task.say(format_args!(
            "after the {how}: all {same} records on the disk are those that memory knows; goes on with {}",
            self.book.next
        ));
        self.flush_due = self.task.machine.now();
        Ok(())
    }

    /// Compares a record that was read with what memory knows of it.
    pub(super) fn compare(&mut self, seq: u64) -> Result<(), JobError> {
        let slot = self.layout.slot(seq);
        match Record::read(&self.layout, slot, &self.scratch) {
            // While it was read, the next round may have reached its place.
            Ok((record, seal)) if record.seq == seq => {
                if seal.checksum != self.book.index[slot as usize]
                    && self.layout.kept(self.book.written).contains(&seq)
                {
                    return Err(self.differs(seq, "is not the one that memory knows"));
                }
                self.checked += 1;
                Ok(())
            }
            Ok(_) | Err(NoRecord::Misplaced { .. } | NoRecord::Damaged | NoRecord::Foreign)
                if !self.layout.kept(self.book.written).contains(&seq) =>
            {
                Ok(())
            }
            Ok(_) => Err(self.differs(seq, "was overwritten")),
            Err(_) => Err(self.differs(seq, "is damaged")),
        }
    }

    async fn look_at_all(&mut self) -> Result<Audit, JobError> {
        let mut audit = Audit::new(self.layout);
        let layout = self.layout;
        let range = Range {
            sector: layout.first,
            sectors: layout.slots * u64::from(layout.record) / SECTOR,
        };
        let progress = Progress::new(self.task, "looking at all records", range.bytes());
        // Many records at a time: whoever waits for a restore waits for this.
        let record = layout.record as usize;
        let block = (LOOK / record).max(1) * record;
        let mut scratch = vec![0; block];
        let mut channel = Channel::open(&self.task.machine, self.args.disk, LOOKS, block)?;
        let job = (Op::Read, range, block);
        stream(
            self.task,
            &mut channel,
            progress,
            job,
            |sector, bytes, buffer| {
                let scratch = &mut scratch[..bytes];
                buffer.region().copy_out(0, scratch);
                let slot = (sector - layout.first) * SECTOR / record as u64;
                for (slot, bytes) in (slot..).zip(scratch.chunks(record)) {
                    audit.look(slot, bytes);
                }
                Ok(())
            },
        )
        .await?;
        Ok(audit)
    }

    fn differs(&self, seq: u64, how: &'static str) -> JobError {
        JobError::Ledger {
            disk: self.args.disk,
            sector: self.layout.sector(self.layout.slot(seq)),
            seq,
            how,
        }
    }
}
