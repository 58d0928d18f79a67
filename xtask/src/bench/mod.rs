//! What `cargo xtask bench` measures, and with whom.

pub(crate) mod firn;
pub(crate) mod linux;
pub(crate) mod report;
pub(crate) mod start;

use anyhow::Result;
use firn_lab::{GuestDisk, GuestSpec, Lab};
use serde::Serialize;

/// One access pattern, in the words that fio and firn's `bench` share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Workload {
    pub(crate) rw: &'static str,
    pub(crate) bs: &'static str,
    pub(crate) qd: u32,
    /// How many times as fast as Linux firn is meant to be.
    pub(crate) aim: Option<f64>,
}

/// What is compared; the first two have a goal.
pub(crate) const WORKLOADS: [Workload; 3] = [
    Workload {
        rw: "randread",
        bs: "4k",
        qd: 1,
        aim: Some(1.5),
    },
    Workload {
        rw: "randread",
        bs: "4k",
        qd: 32,
        aim: Some(2.0),
    },
    Workload {
        rw: "read",
        bs: "128k",
        qd: 8,
        aim: None,
    },
];

/// Who does the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    /// Linux's xen-blkfront under fio.
    Linux,
    /// firn, looking at the ring all the time.
    FirnPoll,
    /// firn, woken by events.
    FirnEvent,
}

/// In the order of a round.
pub(crate) const SIDES: [Side; 3] = [Side::Linux, Side::FirnPoll, Side::FirnEvent];

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::FirnPoll => "firn poll",
            Self::FirnEvent => "firn event",
        }
    }
}

/// One measurement. What cannot be seen from outside Linux is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) iops: f64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Events that the guest received, per I/O.
    pub(crate) events: f64,
    /// Events that the guest sent, per I/O, as its backend counts them.
    pub(crate) notifications: f64,
    pub(crate) hypercalls: Option<f64>,
    pub(crate) cycles: Option<f64>,
}

/// The guests share one disk and one CPU, and dom0 has the other for itself:
/// nobody is moved about while he is measured. They read the time stamp counter
/// themselves, as on real machines; Xen would not let them on an emulated one,
/// and each look at the clock would cost an exit.
fn spec(name: &str, kernel: std::path::PathBuf, disk: &str) -> GuestSpec {
    let mut spec = GuestSpec::new(name, kernel).with_disk(GuestDisk::new(disk, "xvda"));
    let lines = ["cpus = \"1\"", "tsc_mode = \"native\""];
    spec.extra.extend(lines.map(str::to_owned));
    spec
}

/// How many events the block backend has received from all guests.
pub(crate) fn backend_events(lab: &Lab) -> Result<u64> {
    let sum = "awk '/blkif-backend/ { sum += $2 } END { print sum + 0 }' /proc/interrupts";
    Ok(lab.run(sum)?.trim().parse()?)
}
