//! The table of jobs: one struct each, whose fields are the arguments.

use super::LangError;
use super::arguments::Arguments;
pub use super::arguments::{Arg, Spec};
use super::choice::{Compress, Content};
use super::value::{Extent, Name, Rw, Size, Text, Value};
use super::words::Word;
use crate::machine::Mode;
use crate::power::{FreezeLevel, FreezeThen};
use core::time::Duration;
use firn_block::DiskId;

/// Makes, from one entry per job, its struct, its row of [`SPECS`], its parser
/// and its variant of [`Job`]. Doc comments are the help texts.
macro_rules! jobs {
    ($(
        #[doc = $summary:literal]
        $job:ident = $name:literal {
            $( #[doc = $help:literal] $key:ident: $value:ty $(= $default:literal)? ),* $(,)?
        }
    )*) => {
        $(
            #[doc = $summary]
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $job {
                $( #[doc = $help] pub $key: $value, )*
            }

            impl $job {
                const SPEC: Spec = Spec {
                    name: $name,
                    summary: $summary,
                    args: &[$( Arg {
                        key: stringify!($key),
                        name: <$value>::NAME,
                        want: <$value>::WANT,
                        help: $help,
                        default: jobs!(@default $($default)?),
                        optional: <$value>::OPTIONAL,
                        bare: <$value>::BARE,
                        fits: |text| <$value>::parse(text).is_some(),
                        flag: <$value>::FLAG,
                    }, )*],
                };
            }
        )*

        /// A job with its arguments.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Job {
            $( #[doc = $summary] $job($job), )*
        }

        /// Every job there is, in the order of `help`.
        pub const SPECS: &[Spec] = &[$( $job::SPEC, )*];

        impl Job {
            /// The job's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $( Self::$job(_) => $name, )*
                }
            }

            fn read(spec: &'static Spec, words: &[Word]) -> Result<Self, LangError> {
                let arguments = &mut Arguments::sort(spec, words)?;
                match spec.name {
                    $( $name => Ok(Self::$job($job {
                        $( $key: arguments.take()?, )*
                    })), )*
                    name => Err(LangError::UnknownJob { word: name.into() }),
                }
            }
        }
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
}

impl Job {
    /// Reads one job's words.
    pub(super) fn parse(words: &[Word]) -> Result<Self, LangError> {
        let (name, words) = match words {
            [name, words @ ..] => (name.text(), words),
            [] => ("", words),
        };
        let spec = SPECS.iter().find(|spec| spec.name == name);
        let unknown = || LangError::UnknownJob { word: name.into() };
        Self::read(spec.ok_or_else(unknown)?, words)
    }
}

jobs! {
    /// List all jobs, or explain one.
    Help = "help" {
        /// The job to explain.
        job: Option<Name>,
    }

    /// List the disks with what was negotiated for each.
    Disks = "disks" {}

    /// Show a disk's partition table, which also names the disk.
    Partitions = "partitions" {
        /// The disk.
        disk: DiskId,
    }

    /// Write self-describing blocks, flush, read them back and check them.
    Verify = "verify" {
        /// The disk.
        disk: DiskId,
        /// Where to start, in bytes.
        at: Size = "0",
        /// How much to write and check.
        size: Extent = "64M",
        /// Bytes per request.
        bs: Size = "64k",
        /// Requests in flight at a time.
        qd: u64 = "32",
        /// Tells this run's blocks from other runs'.
        seed: u64 = "1",
        /// Tells this writing of a block from earlier ones.
        generation: u64 = "1",
        /// Between flush and reading back, wait for a line `go` on the console.
        hold: bool = "no",
        /// How long to wait for that line.
        timeout: Duration = "60s",
        /// Write first; without, only read and check what an earlier run wrote.
        write: bool = "yes",
    }

    /// Measure a disk: IOPS, bandwidth, latency and cost per I/O.
    Bench = "bench" {
        /// The disk.
        disk: DiskId,
        /// Access pattern; one that writes destroys what is on the disk.
        rw: Rw = "randread",
        /// Bytes per request.
        bs: Size = "4k",
        /// Requests in flight at a time.
        qd: u64 = "1",
        /// How long to measure.
        time: Duration = "5s",
        /// How completions are noticed; as `mode` says if left out.
        mode: Option<Mode>,
        /// Where to start, in bytes.
        at: Size = "0",
        /// How much of the disk to use.
        size: Extent = "all",
        /// Start of the random numbers.
        seed: u64 = "1",
    }

    /// Keep a disk busy with checked random traffic until time is over or it goes away.
    Load = "load" {
        /// The disk; what is on it is destroyed if the pattern writes.
        disk: DiskId,
        /// Access pattern.
        rw: Rw = "randrw",
        /// Bytes per request.
        bs: Size = "16k",
        /// Requests in flight at a time.
        qd: u64 = "32",
        /// How long.
        time: Duration = "10s",
        /// Where to start, in bytes.
        at: Size = "0",
        /// How much of the disk to use.
        size: Extent = "64M",
        /// Start of the random numbers, and the seed of the blocks.
        seed: u64 = "1",
    }

    /// Print what is on a disk, as hexadecimal and text.
    Read = "read" {
        /// The disk.
        disk: DiskId,
        /// Where to start, in bytes.
        at: Size = "0",
        /// How much, up to 64k.
        size: Size = "512",
    }

    /// Write a text or one byte over and over.
    Write = "write" {
        /// The disk.
        disk: DiskId,
        /// Where to start, in bytes.
        at: Size,
        /// How much; for a text, as many whole blocks as it needs.
        size: Option<Size>,
        /// The text, followed by zeros.
        text: Option<Text>,
        /// The byte.
        fill: Option<u8>,
        /// Flush afterwards.
        flush: bool = "yes",
    }

    /// Make everything written so far durable.
    Flush = "flush" {
        /// The disk.
        disk: DiskId,
    }

    /// Tell a disk that a range is no longer needed.
    Discard = "discard" {
        /// The disk.
        disk: DiskId,
        /// Where to start, in bytes.
        at: Size,
        /// How much.
        size: Extent,
        /// Make the old content unreadable, too.
        secure: bool = "no",
    }

    /// Choose how a disk's completions are noticed.
    SetMode = "mode" {
        /// The disk.
        disk: DiskId,
        /// By looking all the time, or by the host's events.
        mode: Mode,
    }

    /// Print the counters of the queues.
    Stats = "stats" {
        /// One disk only.
        disk: Option<DiskId>,
    }

    /// List every live grant.
    Grants = "grants" {}

    /// Look into xenstore: `store ls PATH`, `store read PATH`.
    Store = "store" {
        /// `ls` or `read`.
        verb: Name,
        /// The path; a relative one starts at the guest's own directory.
        path: Name = ".",
    }

    /// Print the last driver events.
    Trace = "trace" {}

    /// Print what memory is used for.
    Mem = "mem" {}

    /// Wait.
    Pause = "sleep" {
        /// How long.
        time: Duration,
    }

    /// Wait until a disk is there and live, or gone.
    WaitDisk = "wait-disk" {
        /// The disk.
        disk: DiskId,
        /// How long at most.
        timeout: Duration = "5s",
        /// Wait until it is gone instead.
        gone: bool = "no",
    }

    /// Write numbered records, each acknowledged once a flush has covered it.
    Ledger = "ledger" {
        /// The disk; what is in the ledger's range is destroyed.
        disk: DiskId,
        /// Tells it from other ledgers.
        id: u64 = "1",
        /// Where to start, in bytes.
        at: Size = "0",
        /// Its room; when it is full the oldest records are overwritten.
        size: Extent = "16M",
        /// Bytes of a record.
        bs: Size = "4k",
        /// Requests in flight at a time.
        qd: u64 = "8",
        /// How many records to write; until `stop` if left out.
        records: Option<u64>,
        /// Records per second; as many as possible if zero.
        rate: u64 = "0",
        /// How many of a hundred requests read an older record and check it.
        reads: u64 = "0",
        /// Least time between two flushes, and so between acknowledgements.
        every: Duration = "20ms",
        /// Go on after the records that are on the disk; else begin anew.
        recover: bool = "yes",
    }

    /// Fill job memory with data that `fill-check` finds again; it stays.
    Fill = "fill" {
        /// How much.
        size: Size,
        /// Start of the random numbers.
        seed: u64 = "1",
        /// Data that nothing makes smaller, or that LZ4 does.
        data: Content = "random",
    }

    /// Check all memory that `fill` filled.
    FillCheck = "fill-check" {}

    /// Free all memory that `fill` filled.
    FillFree = "fill-free" {}

    /// Ask the jobs in the background to end, and wait until they have.
    Stop = "stop" {
        /// How long to wait at most.
        timeout: Duration = "60s",
    }

    /// Wait until the jobs in the background have ended.
    Wait = "wait" {
        /// How long at most.
        timeout: Duration = "60s",
    }

    /// Save job memory to an image disk and switch off; the next boot goes on here.
    Freeze = "freeze" {
        /// The image disk; the only one there is if left out.
        image: Option<DiskId>,
        /// Change nothing; say whether it would work, and if not, why.
        check: bool = "no",
        /// Make words that point at this boot unusable, and hash the memory.
        audit: bool = "no",
        /// Make chunks smaller where that wins.
        compress: Compress = "none",
        /// How far to go, for tests.
        level: FreezeLevel = "full",
        /// What follows.
        then: FreezeThen = "poweroff",
        /// Longest wait for requests in flight; the kernel's own if left out.
        deadline: Option<Duration>,
    }

    /// Have the hypervisor suspend the machine; the toolstack wakes it.
    Suspend = "suspend" {}

    /// Give up the image that was refused at boot, for good, and open the disks.
    Cold = "cold" {}

    /// Hash job memory as an image would save it.
    MemHash = "memhash" {}

    /// Leave VMBus and come back, again and again; for a guest without disks.
    Vmbus = "vmbus" {
        /// How often.
        times: u64 = "100",
    }

    /// An image disk: `image show DISK`, `image format DISK`.
    Image = "image" {
        /// `show`, or `format`, which destroys what is on the disk.
        verb: Name,
        /// The disk.
        disk: DiskId,
    }

    /// Switch the machine off.
    Poweroff = "poweroff" {}

    /// Switch the machine off and on again.
    Reboot = "reboot" {}

    /// End the machine as after a crash.
    Crash = "crash" {}
}
