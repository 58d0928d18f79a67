//! What jobs ask of the machine as a whole: freeze, suspend, go on cold, and
//! the care of image disks.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::time::Duration;
use firn_block::DiskId;

/// A question to the machine's power code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerAsk {
    /// Save job memory to a disk. The answer of a freeze that ended in a power
    /// off comes after the restore, from the machine that adopted the memory.
    Freeze(FreezeAsk),
    /// Suspend as the hypervisor means it: its toolstack saves the guest.
    Suspend,
    /// Give up the image that a refused restore left valid, and open the disks
    /// for writing.
    Cold,
    /// Make a disk an image disk; what it held is lost.
    FormatImage {
        /// The disk.
        disk: DiskId,
    },
    /// Leave VMBus and come back, so many times, and say what was lost by that.
    CycleBus {
        /// How often.
        times: u64,
    },
    /// Tell what is on an image disk.
    ShowImage {
        /// The disk.
        disk: DiskId,
    },
}

/// How to freeze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeAsk {
    /// The image disk; without, the only one there is.
    pub image: Option<DiskId>,
    /// How far to go before turning back.
    pub level: FreezeLevel,
    /// What to do once the image is valid.
    pub then: FreezeThen,
    /// Compress chunks where that wins.
    pub compress: bool,
    /// Look for pointers into boot memory first, and refuse if there are any.
    pub audit: bool,
    /// Only say whether a freeze would succeed; no side effect.
    pub check: bool,
    /// Longest wait for requests in flight; the kernel's own if none is given.
    pub deadline: Option<Duration>,
}

/// The last step of a freeze that is taken; below [`FreezeLevel::Full`] it is
/// undone afterwards, and no image becomes valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FreezeLevel {
    /// Jobs are parked and gates shut.
    Gate,
    /// Nothing is in flight.
    Drain,
    /// The disks are disconnected.
    Disconnect,
    /// Chunks and table are written.
    Write,
    /// They are read back and compared.
    Verify,
    /// The image is valid.
    Full,
}

/// What follows a valid image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeThen {
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
    /// Go on here: the image is made unusable first.
    Thaw,
}

/// A value in a [`PowerReport`].
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A count or a size.
    Number(u64),
    /// A time.
    Time(Duration),
    /// Text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

/// What came of a [`PowerAsk`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PowerReport {
    /// One line for people.
    pub summary: String,
    /// Lines to print before it, such as the slots of an image disk.
    pub lines: Vec<String>,
    /// For programs, in order.
    pub fields: Vec<(&'static str, Datum)>,
}

/// Why a [`PowerAsk`] came to nothing. The machine goes on as before, unless
/// `what` says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerRefusal {
    /// A short name that does not change, for programs.
    pub error: &'static str,
    /// What is wrong.
    pub what: String,
    /// Which disk or step.
    pub place: String,
    /// What to do.
    pub hint: String,
}

/// The answer to a [`PowerAsk`], in job memory.
pub type PowerFuture = Pin<Box<dyn Future<Output = Result<PowerReport, PowerRefusal>>>>;

/// A hash over everything that a freeze would save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHash {
    /// XXH3-64 over the saved pages in order of their addresses.
    pub hash: u64,
    /// How many bytes that are.
    pub bytes: u64,
}

/// A stretch of the machine's life: jobs that compare it with what they noted
/// know that the machine was away in between. Lives in job memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Era {
    /// A number of this boot that no other boot has.
    pub boot: u64,
    /// How often these jobs were restored from an image.
    pub restores: u32,
    /// How often they came back from a suspend, to a new host side.
    pub resumes: u32,
}
