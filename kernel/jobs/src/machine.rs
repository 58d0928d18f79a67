//! What jobs need from the machine they run on.

use crate::io::ChannelTable;
use crate::power::{Era, MemoryHash, PowerAsk, PowerFuture};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{DiskId, DiskInfo, Queue, Stats};
use firn_task::Time;

/// The machine as jobs see it. A handle: small, cloned freely.
///
/// Jobs live in job memory, so an implementor must not point into boot memory:
/// a type without fields that finds the kernel's statics by itself, or an `Rc`
/// that a test made.
///
/// The main loop owns the disks. It reaps every queue that has something to
/// hand out and gives each completion to [`ChannelTable::deliver`]; in
/// [`Mode::Poll`] a job also reaps its own queue, through
/// [`Machine::with_queue`].
pub trait Machine: Time + Clone + Unpin + 'static {
    /// Prints text to the console as it is. Lines end in `\n`; a console that
    /// needs `\r\n` adds the `\r`. Long text may wait for the host, and what
    /// the host does not take within a deadline is dropped.
    fn print(&self, text: fmt::Arguments<'_>);

    /// The next byte typed on the console. When there is none, the context's
    /// waker is kept and woken by the next one.
    fn poll_input(&self, context: &mut Context<'_>) -> Poll<u8>;

    /// Every disk there is, connected or not, in the order of their names.
    fn disks(&self) -> Vec<DiskReport>;

    /// Runs `work` on a disk's queue, and moves `value` into it.
    ///
    /// A disk that closed or failed keeps its (refusing) queue at least until
    /// its last registered buffer was given back, so that jobs can do that.
    /// `work` may call [`ChannelTable::deliver`], and never calls `with_queue`.
    ///
    /// # Errors
    /// `value` itself when there is no such disk.
    fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T>;

    /// Where completions are routed to; lives as long as the jobs do.
    fn channels(&self) -> &ChannelTable;

    /// How a disk's completions are noticed; [`Mode::Event`] for an unknown one.
    fn mode(&self, disk: DiskId) -> Mode;

    /// Changes how a disk's completions are noticed.
    fn set_mode(&self, disk: DiskId, mode: Mode);

    /// Fresh pages of job memory to register with a queue; they need not be
    /// zero. `None` when memory has run out.
    fn alloc_pages(&self, count: usize) -> Option<Region>;

    /// Takes back what [`Machine::alloc_pages`] gave.
    fn free_pages(&self, region: Region);

    /// The machine's counters now. Cheap, and allocates nothing.
    fn counters(&self) -> Counters;

    /// Hands the lines of a report to `line`, without line ends.
    fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>));

    /// Asks xenstore. The answer, or the reason why there is none, comes within
    /// the store's own deadline.
    fn store(&self, ask: StoreAsk) -> StoreFuture;

    /// Ends the machine, after everything printed has reached the host. On a
    /// real machine it does not return, except with the reason why it cannot;
    /// after `Ok` (tests) no further job runs.
    ///
    /// # Errors
    /// What the machine says when it cannot.
    fn power(&self, power: Power) -> Result<(), String>;

    /// Asks the power code. All jobs stand still while it works; afterwards
    /// every wake may be spurious, and the clock has not gone back.
    fn ask_power(&self, ask: PowerAsk) -> PowerFuture;

    /// Hashes all memory that a freeze would save, as it is now.
    fn memory_hash(&self) -> MemoryHash;

    /// Which stretch of the machine's life this is; cheap.
    fn era(&self) -> Era;

    /// Runs one more job beside those there are. It must have been made in job
    /// memory, as everything is that a job makes.
    fn spawn(&self, job: JobFuture);
}

/// A job that runs beside others.
pub type JobFuture = Pin<Box<dyn Future<Output = ()>>>;

/// The answer of xenstore: names of [`StoreAsk::List`], or one value of
/// [`StoreAsk::Read`]; or what went wrong, in words.
pub type StoreFuture = Pin<Box<dyn Future<Output = Result<Vec<String>, String>>>>;

/// A question to xenstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAsk {
    /// The names below a path.
    List(String),
    /// The value at a path; bytes that are not text arrive replaced.
    Read(String),
}

/// How a disk's completions are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By looking again and again; the event is masked.
    Poll,
    /// By the host's event; the machine may halt meanwhile.
    Event,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poll => "poll",
            Self::Event => "event",
        })
    }
}

/// What is known of one disk; plain data.
#[derive(Clone, Debug)]
pub struct DiskReport {
    /// Its name.
    pub id: DiskId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// What it is, once connected.
    pub info: Option<DiskInfo>,
    /// What was negotiated, in a few words such as `persistent indirect=256
    /// ring=16 flush discard`; for a disk that failed, the reason.
    pub features: String,
    /// Its queue's counters.
    pub stats: Stats,
}

/// Counts since boot, for differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Time stamp counter.
    pub cycles: u64,
    /// Nanoseconds spent halted.
    pub halted: u64,
    /// Hypercalls made.
    pub hypercalls: u64,
    /// Events received from the host, whatever for.
    pub events: u64,
    /// Heap allocations, in both memories.
    pub allocations: u64,
}

/// A report that the kernel writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Every live grant.
    Grants,
    /// The last driver events.
    Trace,
    /// Memory by use.
    Memory,
}

/// A way to end the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Off, in good order.
    Off,
    /// Off, and on again.
    Reboot,
    /// Off as after a crash, so that the host sees one.
    Crash,
}
