//! The host's own count of a ledger: what the consoles of all its boots
//! acknowledged, against what is in the disk's file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use firn_jobs::lang::{Extent, Job, Ledger};
pub use firn_jobs::ledger_format::Tally;
use firn_jobs::ledger_format::{Acks, Audit, Layout};

use crate::verify;

/// A ledger as its job line makes it.
#[derive(Debug, Clone)]
pub struct LedgerAt {
    layout: Layout,
}

impl LedgerAt {
    /// The ledger that a line of jobs writes.
    ///
    /// # Errors
    /// The line has a mistake, or not exactly one `ledger` of a fixed size.
    pub fn of(line: &str) -> Result<Self> {
        let jobs = verify::parse(line)?;
        let mut ledgers = jobs.iter().filter_map(|job| match job {
            Job::Ledger(ledger) => Some(ledger),
            _ => None,
        });
        let (Some(ledger), None) = (ledgers.next(), ledgers.next()) else {
            bail!("expected one ledger in `{line}`");
        };
        let layout = layout(ledger).with_context(|| format!("no ledger by `{line}`"))?;
        Ok(Self { layout })
    }

    /// Counts: `console` is everything that all its boots printed, in order.
    ///
    /// # Errors
    /// The file cannot be read, or is too short.
    pub fn tally(&self, file: &Path, console: &str) -> Result<Tally> {
        let mut acks = Acks::default();
        for line in console.lines() {
            acks.line(self.layout.ledger, line);
        }
        Ok(self.audit(file)?.tally(&acks))
    }

    /// The highest record that `console` acknowledges.
    #[must_use]
    pub fn acked(&self, console: &str) -> u64 {
        let mut acks = Acks::default();
        for line in console.lines() {
            acks.line(self.layout.ledger, line);
        }
        acks.upto
    }

    fn audit(&self, file: &Path) -> Result<Audit> {
        let disk = File::open(file).with_context(|| file.display().to_string())?;
        let layout = &self.layout;
        let mut audit = Audit::new(*layout);
        let mut record = vec![0; layout.record as usize];
        for slot in 0..layout.slots {
            disk.read_exact_at(&mut record, layout.sector(slot) * 512)
                .with_context(|| format!("{} ends in the ledger", file.display()))?;
            audit.look(slot, &record);
        }
        Ok(audit)
    }
}

fn layout(ledger: &Ledger) -> Option<Layout> {
    let Extent::Bytes(bytes) = ledger.size else {
        return None;
    };
    Layout::new(ledger.id, ledger.at.0 / 512, bytes, ledger.bs.0)
}

/// Turns a count into a verdict.
///
/// # Errors
/// A record is lost or doubled.
pub fn judge(tally: &Tally) -> Result<()> {
    ensure!(
        tally.is_whole(),
        "{} records acknowledged, {} lost (the first is {:?}), {} doubled",
        tally.acknowledged,
        tally.lost,
        tally.first_lost,
        tally.doubled
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use firn_jobs::ledger_format::Record;

    const LINE: &str = "ledger disk=xvda at=1M size=1M bs=1k id=9 &; freeze xvdb";

    #[test]
    fn a_disk_file_is_counted_against_the_console() {
        let ledger = LedgerAt::of(LINE).unwrap();
        let mut bytes = vec![0; 2 << 20];
        let mut chain = 0;
        for seq in 1..=40 {
            let record = Record {
                seq,
                boot: 1,
                restores: 0,
                resumes: 0,
                time: 0,
                chain,
            };
            let at = (1 << 20) + (usize::try_from(seq).unwrap() - 1) * 1024;
            chain = record.fill(&ledger.layout, &mut bytes[at..at + 1024]).link;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let console = "firn-ack {\"ledger\":9,\"upto\":25}\nfirn-ack {\"ledger\":9,\"upto\":33}\n";
        assert_eq!(ledger.acked(console), 33);
        let tally = ledger.tally(file.path(), console).unwrap();
        judge(&tally).unwrap();
        assert_eq!((tally.present, tally.newest), (33, 40));
        bytes[(1 << 20) + 5000] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        let tally = ledger.tally(file.path(), console).unwrap();
        let error = judge(&tally).unwrap_err().to_string();
        assert!(error.contains("1 lost (the first is Some(5))"), "{error}");
    }

    #[test]
    fn a_line_without_a_ledger_is_told() {
        assert!(LedgerAt::of("disks").is_err());
        assert!(LedgerAt::of("ledger xvda size=all").is_err());
    }
}
