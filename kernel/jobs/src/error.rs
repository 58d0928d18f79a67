//! How a job fails: what, where, and what to do.

use crate::lang::LangError;
use crate::power::PowerRefusal;
use crate::units::{Bytes, Span};
use crate::verify_format::Mismatch;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_block::identity::TableError;
use firn_block::{DiskId, IoError, Op, Why};

/// Why a job did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// The line was not understood.
    Line(LangError),
    /// There is no such disk.
    NoSuchDisk {
        /// The one that was asked for.
        disk: DiskId,
        /// Those there are.
        there: Vec<DiskId>,
    },
    /// The disk takes no requests.
    NotLive {
        /// The disk.
        disk: DiskId,
        /// Its state.
        state: Lifecycle,
        /// What the machine knows about the reason; may be empty.
        note: String,
    },
    /// The job would write to a read-only disk.
    ReadOnly(DiskId),
    /// The disk does not offer what the job needs.
    Unsupported {
        /// The disk.
        disk: DiskId,
        /// The operation.
        op: Op,
    },
    /// The range leaves the disk.
    BeyondEnd {
        /// The disk.
        disk: DiskId,
        /// End of the range in bytes.
        end: u64,
        /// Size of the disk in bytes.
        size: u64,
    },
    /// An argument has a value that makes no sense here.
    Argument {
        /// Which.
        key: &'static str,
        /// What it must be.
        want: String,
    },
    /// No memory for a buffer.
    NoMemory {
        /// Its size.
        bytes: usize,
    },
    /// The disk does not take the buffer.
    NotRegistered {
        /// The disk.
        disk: DiskId,
        /// What ran out.
        why: &'static str,
    },
    /// A request was refused before it reached the host.
    Refused {
        /// The disk.
        disk: DiskId,
        /// The operation.
        op: Op,
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// The reason.
        why: Why,
    },
    /// A request failed.
    Io {
        /// The disk.
        disk: DiskId,
        /// The operation.
        op: Op,
        /// First sector, in units of 512 bytes.
        sector: u64,
        /// Length in sectors of 512 bytes.
        sectors: u64,
        /// What the host says.
        error: IoError,
    },
    /// The disk does not answer.
    Stuck {
        /// The disk.
        disk: DiskId,
        /// Requests without an answer.
        waiting: usize,
        /// For how long.
        after: Duration,
    },
    /// What was read is not what was written.
    Mismatch {
        /// The disk.
        disk: DiskId,
        /// Which sector, and what is wrong with it.
        mismatch: Mismatch,
    },
    /// A ledger's disk is not what its memory knows.
    Ledger {
        /// The disk.
        disk: DiskId,
        /// First sector of the record, in units of 512 bytes.
        sector: u64,
        /// The record's number.
        seq: u64,
        /// What is the matter with it.
        how: &'static str,
    },
    /// Memory does not hold what was put there.
    Memory {
        /// How many bytes from the start of the fill.
        at: u64,
    },
    /// Requests failed although the disk stayed.
    Failures {
        /// The disk.
        disk: DiskId,
        /// How many requests failed.
        count: u64,
        /// The first of the errors.
        first: IoError,
    },
    /// Something did not happen in time.
    TimedOut {
        /// What is the case instead.
        what: String,
        /// Where it was waited for.
        place: String,
        /// For how long.
        after: Duration,
    },
    /// The partition table is damaged.
    PartitionTable {
        /// The disk.
        disk: DiskId,
        /// What is wrong with it.
        error: TableError,
    },
    /// Xenstore has no answer.
    Store {
        /// The path.
        path: String,
        /// The reason.
        why: String,
    },
    /// The machine itself said no.
    Machine(PowerRefusal),
    /// The machine cannot be ended.
    Power(String),
    /// A person pressed ^C.
    Interrupted,
}

/// A [`JobError`] as a person and a program read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A short name that does not change: `no-such-disk`, `mismatch`, …
    pub error: &'static str,
    /// What happened.
    pub what: String,
    /// Where: an argument, a disk, a sector.
    pub place: String,
    /// What to do.
    pub hint: String,
}

impl JobError {
    /// The error in the words of a result line.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (error, hint) = self.name_and_hint();
        Failure {
            error,
            what: self.to_string(),
            place: self.place(),
            hint,
        }
    }

    fn name_and_hint(&self) -> (&'static str, String) {
        let (name, hint) = match self {
            Self::Line(error) => return (error.name(), error.hint()),
            Self::NoSuchDisk { there, .. } => return ("no-such-disk", disks_there(there)),
            Self::NotLive { .. } => (
                "disk-not-live",
                "look at `disks` and `trace`; `wait-disk` waits until a disk is live",
            ),
            Self::ReadOnly(_) => (
                "read-only",
                "give the guest a writable disk, or use a job that only reads",
            ),
            Self::Unsupported { .. } => ("unsupported", "`disks` lists what each disk offers"),
            Self::BeyondEnd { .. } => ("beyond-end", "choose a smaller at= or size="),
            Self::Argument { key, .. } => {
                return ("bad-argument", format!("change {key}= and try again"));
            }
            Self::NoMemory { .. } => (
                "no-memory",
                "use a smaller bs= or qd=, or give the guest more memory",
            ),
            Self::NotRegistered { .. } => (
                "not-registered",
                "use a smaller bs= or qd=; `grants` shows what is in use",
            ),
            Self::Refused { .. } => ("refused", "`disks` shows the disk's state and limits"),
            Self::Io { .. } | Self::Failures { .. } => (
                "io-error",
                "look at the backend's log on the host; `trace` has the driver's last events",
            ),
            Self::Stuck { .. } => (
                "stuck",
                "see on the host whether the backend runs; `trace` and `stats` tell what was sent",
            ),
            Self::Mismatch { .. } => (
                "mismatch",
                "the disk, or somebody else who writes to it, changed the data",
            ),
            Self::Ledger { .. } => (
                "ledger",
                "the disk lost what it had flushed, or two machines went on from one memory",
            ),
            Self::Memory { .. } => (
                "memory",
                "the image or the machine's memory is damaged; nothing here can be trusted",
            ),
            Self::PartitionTable { .. } => (
                "partition-table",
                "repair the table on the host; the spare one is at the disk's end",
            ),
            Self::TimedOut { .. } => ("timed-out", "allow more time with timeout="),
            Self::Store { .. } => ("xenstore", "`store ls /` shows where to start"),
            Self::Machine(refusal) => return (refusal.error, refusal.hint.clone()),
            Self::Power(_) => ("power", "end the guest from the host"),
            Self::Interrupted => ("interrupted", "start the job again when you like"),
        };
        (name, hint.into())
    }

    fn place(&self) -> String {
        match self {
            Self::Line(error) => error.place(),
            Self::Argument { key, .. } => format!("{key}="),
            Self::NoSuchDisk { disk, .. }
            | Self::NotLive { disk, .. }
            | Self::ReadOnly(disk)
            | Self::Unsupported { disk, .. }
            | Self::BeyondEnd { disk, .. }
            | Self::NotRegistered { disk, .. }
            | Self::Failures { disk, .. }
            | Self::PartitionTable { disk, .. }
            | Self::Stuck { disk, .. } => disk.to_string(),
            Self::Refused { disk, sector, .. }
            | Self::Io { disk, sector, .. }
            | Self::Ledger { disk, sector, .. } => {
                format!("{disk} sector {sector}")
            }
            Self::Mismatch { disk, mismatch } => format!("{disk} sector {}", mismatch.sector),
            Self::Store { path, .. } => path.clone(),
            Self::NoMemory { .. } | Self::Memory { .. } => "job memory".into(),
            Self::TimedOut { place, .. } => place.clone(),
            Self::Interrupted => "console".into(),
            Self::Machine(refusal) => refusal.place.clone(),
            Self::Power(_) => "machine".into(),
        }
    }
}

fn disks_there(there: &[DiskId]) -> String {
    if there.is_empty() {
        return "there are no disks; attach one on the host, `wait-disk` waits for it".into();
    }
    let names: Vec<String> = there.iter().map(ToString::to_string).collect();
    format!("there is {}", names.join(", "))
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error) => write!(f, "{error}"),
            Self::NoSuchDisk { disk, .. } => write!(f, "there is no disk {disk}"),
            Self::NotLive { disk, state, note } if note.is_empty() => {
                write!(f, "{disk} is {state}")
            }
            Self::NotLive { disk, state, note } => write!(f, "{disk} is {state}: {note}"),
            Self::ReadOnly(disk) => write!(f, "{disk} is read-only"),
            Self::Unsupported { disk, op } => write!(f, "{disk} does not offer {op}"),
            Self::BeyondEnd { disk, end, size } => write!(
                f,
                "the range ends at byte {end}, {disk} at byte {size} ({})",
                Bytes(*size)
            ),
            Self::Argument { key, want } => write!(f, "{key} must be {want}"),
            Self::NoMemory { bytes } => write!(f, "no memory for {}", Bytes(*bytes as u64)),
            Self::NotRegistered { disk, why } => {
                write!(f, "{disk} does not take a buffer: {why}")
            }
            Self::Refused { op, why, .. } => write!(f, "{op} refused: {why}"),
            Self::Io {
                op, sectors, error, ..
            } => write!(f, "{op} of {sectors} sectors failed: {error}"),
            Self::Stuck {
                disk,
                waiting,
                after,
            } => write!(
                f,
                "{disk} answered none of {waiting} requests for {}",
                Span(*after)
            ),
            Self::Mismatch { mismatch, .. } => write!(f, "{mismatch}"),
            Self::Ledger { seq, how, .. } => write!(f, "record {seq} {how}"),
            Self::Memory { at } => write!(f, "byte {at} of the fill is not what was put there"),
            Self::Failures { count, first, .. } => {
                write!(f, "{count} requests failed, the first because {first}")
            }
            Self::TimedOut { what, after, .. } => write!(f, "{what} within {}", Span(*after)),
            Self::PartitionTable { error, .. } => write!(f, "{error}"),
            Self::Store { why, .. } => f.write_str(why),
            Self::Machine(refusal) => f.write_str(&refusal.what),
            Self::Power(why) => write!(f, "the machine does not end: {why}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl core::error::Error for JobError {}

impl From<LangError> for JobError {
    fn from(error: LangError) -> Self {
        Self::Line(error)
    }
}
