//! What an omniscient observer knows, and what must never be.

use crate::writer;
use firn_block::DiskId;
use firn_jobs::ledger_format::Acks;
use firn_peers::DiskOp;
use firn_power::Step;
use std::collections::VecDeque;
use std::fmt;

/// Sectors that hold header slots: a machine that decides whether to restore
/// writes nowhere else.
const HEADER_SECTORS: u64 = 16;
/// Lines of a trace that are kept.
const TRACE: usize = 400;

/// One image that was about to be committed.
#[derive(Clone, Copy, Debug)]
struct Image {
    hash: u64,
    /// Writes that the data disks had seen.
    data_writes: u64,
    went_on: bool,
}

/// Counts of what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Freezes begun.
    pub freezes: u64,
    /// Freezes that ended with the power off.
    pub frozen: u64,
    /// Restores that went on.
    pub restored: u64,
    /// Of those, the ones on another hypervisor than the freeze.
    pub crossed: u64,
    /// Boots without an image.
    pub cold: u64,
    /// Boots that stood at the shell.
    pub refused: u64,
    /// Freezes after which the machine went on.
    pub live_again: u64,
    /// Freezes after which it stood still.
    pub stopped: u64,
    /// Power cuts in the middle of something.
    pub cuts: u64,
    /// Records acknowledged.
    pub acked: u64,
}

impl Tally {
    /// Adds another's counts.
    pub const fn add(&mut self, other: &Self) {
        self.freezes += other.freezes;
        self.frozen += other.frozen;
        self.restored += other.restored;
        self.crossed += other.crossed;
        self.cold += other.cold;
        self.refused += other.refused;
        self.live_again += other.live_again;
        self.stopped += other.stopped;
        self.cuts += other.cuts;
        self.acked += other.acked;
    }
}

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Which property: P1 to P6 of the protocol, or a word.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// Something that happened below the queue, or that the outside saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A disk wrote these sectors into its cache.
    Wrote {
        /// Which disk.
        disk: DiskId,
        /// The first sector.
        sector: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A disk emptied its cache.
    Flushed(DiskId),
    /// A record was acknowledged.
    Acked(u64),
    /// A freeze ended with the power off.
    Off,
    /// A restore began to use the image up.
    Consuming,
    /// Gates opened.
    Opened,
}

/// The observer of one life: it outlives every boot.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// What happened so far.
    pub tally: Tally,
    /// What was wrong; the first counts.
    pub wrong: Option<Wrong>,
    /// The newest records acknowledged, as many as the disk holds.
    pub acked: VecDeque<u64>,
    /// What the real ledger's console said.
    pub acks: Acks,
    images: Vec<Image>,
    /// Of the image that this boot adopted.
    adopted: Option<usize>,
    /// An image whose freeze ended with the power off, and that nothing has
    /// used up since.
    promised: Option<usize>,
    /// Nothing may be written but headers.
    pub shut: bool,
    data_writes: u64,
    /// Everything that happened, if that is wanted.
    pub events: Option<Vec<Event>>,
    /// Whether lines are kept.
    pub tracing: bool,
    trace: VecDeque<String>,
}

impl Witness {
    /// Notes an offence.
    pub fn offend(&mut self, property: &'static str, what: impl Into<String>) {
        let what = what.into();
        let wrong = Wrong { property, what };
        self.note(|| format!("WRONG {wrong}"));
        self.wrong.get_or_insert(wrong);
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() == TRACE {
                self.trace.pop_front();
            }
            self.trace.push_back(line());
        }
    }

    /// The last lines.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.trace.iter().cloned().collect()
    }

    /// An observer who knows of one image, and whether it went on already.
    #[must_use]
    pub fn of_image(hash: u64, went_on: bool) -> Self {
        let image = Image {
            hash,
            data_writes: 0,
            went_on,
        };
        Self {
            images: vec![image],
            ..Self::default()
        }
    }

    /// The hash of the last image that was about to be committed.
    #[must_use]
    pub fn last_hash(&self) -> Option<u64> {
        self.images.last().map(|image| image.hash)
    }

    fn record(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.events {
            events.push(event());
        }
    }

    /// A machine is switched on.
    pub const fn boot(&mut self) {
        self.adopted = None;
        self.shut = true;
    }

    /// A step is about to be taken.
    pub fn step(&mut self, step: Step, disk: Option<DiskId>, hash: impl FnOnce() -> u64) {
        self.note(|| match disk {
            Some(disk) => format!("  {step} {disk}"),
            None => format!("  {step}"),
        });
        match step {
            Step::WriteHeader => {
                let image = Image {
                    hash: hash(),
                    data_writes: self.data_writes,
                    went_on: false,
                };
                self.images.push(image);
            }
            // From here on the session may be used up without having gone on,
            // or somebody decided so.
            Step::Consume | Step::Abandon | Step::Retire => {
                self.record(|| Event::Consuming);
                self.promised = None;
            }
            _ => {}
        }
    }

    /// A disk did something; `content` reads sectors of it.
    pub fn did(
        &mut self,
        disk: DiskId,
        is_data: bool,
        op: DiskOp,
        content: impl FnOnce(u64, u64) -> Vec<u8>,
    ) {
        let (sector, sectors) = match op {
            DiskOp::Write { sector, sectors }
            | DiskOp::Discard {
                sector, sectors, ..
            } => (sector, sectors),
            DiskOp::Flush => return self.record(|| Event::Flushed(disk)),
            DiskOp::Read { .. } => return,
        };
        self.record(|| Event::Wrote {
            disk,
            sector,
            data: content(sector, sectors),
        });
        if self.shut && (is_data || sector + sectors > HEADER_SECTORS) {
            let what = format!("sector {sector} of {disk} was written before a decision");
            self.offend("P6", what);
        }
        if is_data {
            self.data_writes += 1;
        }
    }

    /// The power went off at the end of a freeze.
    pub fn off(&mut self) {
        self.record(|| Event::Off);
        self.tally.frozen += 1;
        self.promised = self.images.len().checked_sub(1);
    }

    /// Memory was adopted.
    pub fn adopt(&mut self, hash: u64) {
        let found = self.images.iter().rposition(|image| image.hash == hash);
        if found.is_none() {
            self.offend("P3", "the memory that was adopted is none that was frozen");
        }
        self.adopted = found;
    }

    /// Gates open: the world sees this machine from now on.
    pub fn open(&mut self) {
        if !std::mem::take(&mut self.shut) {
            return;
        }
        self.record(|| Event::Opened);
        let writes = self.data_writes;
        let Some(image) = self.adopted.and_then(|at| self.images.get_mut(at)) else {
            if self.promised.take().is_some() {
                self.offend("lost image", "a machine went on cold over a promised image");
            }
            return;
        };
        let twice = std::mem::replace(&mut image.went_on, true);
        let (then, now) = (image.data_writes, writes);
        if twice {
            self.offend("P2", "an image went on twice");
        } else if then != now {
            let others = now - then;
            self.offend(
                "P2",
                format!("an image went on after {others} other writes"),
            );
        }
    }

    /// A freeze came back: whatever image it wrote may never go on.
    pub fn thawed(&mut self) {
        if let Some(last) = self.images.last_mut() {
            last.went_on = true;
        }
    }

    /// A line on the console.
    pub fn console(&mut self, line: &str) {
        let before = self.acks.upto;
        self.acks.line(writer::LEDGER, line);
        self.tally.acked += self.acks.upto - before;
        self.note(|| format!("  > {}", line.trim_end()));
        if line.contains("firn-result") && line.contains("mismatch") {
            self.offend("P1", line.trim_end());
        }
    }

    /// A record was acknowledged.
    pub fn ack(&mut self, seq: u64) {
        self.tally.acked += 1;
        self.record(|| Event::Acked(seq));
        let last = self.acked.back().copied().unwrap_or(0);
        if seq <= last {
            self.offend("P1", format!("record {seq} was acknowledged after {last}"));
        }
        if self.acked.len() == writer::ROOM as usize {
            self.acked.pop_front();
        }
        self.acked.push_back(seq);
    }

    /// Whether a promised image has not gone on yet.
    #[must_use]
    pub const fn is_promised(&self) -> bool {
        self.promised.is_some()
    }
}
