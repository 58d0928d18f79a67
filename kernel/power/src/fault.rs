//! What goes wrong in a step, and how a sequence that met it ended.

use crate::Step;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use firn_block::{DiskId, IoError};
use firn_image::{BindError, Refusal, WhyNot};

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The deadline came first.
    Timeout,
    /// A request failed.
    Io(IoError),
    /// The disk or its backend has gone.
    Gone,
    /// Not every disk that the hypervisor offers is connected: what the others
    /// hold is not known. The text says what is missing.
    Unseen(&'static str),
    /// No memory for it.
    NoMemory,
    /// The machine or the disk cannot do it; the text says what.
    Cannot(&'static str),
    /// Work on the image failed.
    Image(firn_image::Error),
    /// The image cannot be written here.
    WhyNot(WhyNot),
    /// The image cannot be restored here.
    Refusal(Refusal),
    /// No disk is an image disk, or several are.
    NoImageDisk {
        /// How many there are.
        found: usize,
    },
    /// Jobs use the disk that the image is to be written to.
    InUse,
    /// Several disks hold an image that may be restored.
    Several(Vec<DiskId>),
    /// There is an image, and this boot was told not to restore it, or to
    /// restore one from another disk.
    NotWanted,
    /// Something else, in words.
    Other(String),
}

impl Fault {
    /// One word for programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Timeout | Self::Image(firn_image::Error::Stalled { .. }) => "timeout",
            Self::Io(_) | Self::Image(firn_image::Error::Io { .. }) => "io",
            Self::Gone | Self::Image(firn_image::Error::Gone) => "gone",
            Self::Unseen(_) => "unseen",
            Self::NoMemory | Self::Image(firn_image::Error::Memory(_)) => "no-memory",
            Self::Cannot(_) => "cannot",
            Self::Image(firn_image::Error::Damaged(_)) => "damaged",
            Self::Image(_) => "image",
            Self::WhyNot(WhyNot::NoSpace { .. }) => "no-space",
            Self::WhyNot(_) | Self::NoImageDisk { .. } => "no-image-disk",
            Self::Refusal(refusal) => refusal.word(),
            Self::InUse => "in-use",
            Self::Several(_) => "several",
            Self::NotWanted => "not-wanted",
            Self::Other(_) => "other",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Timeout | Self::Image(firn_image::Error::Stalled { .. }) => {
                "see that the disk's backend works; freeze.deadline= allows more time"
            }
            Self::Io(_) | Self::Image(firn_image::Error::Io { .. }) => {
                "see what the host's log says of the disk"
            }
            Self::Gone | Self::Image(firn_image::Error::Gone) => "attach the disk again",
            Self::Unseen(_) => {
                "see what `disks` and the host's log say; once it works, or is detached, boot again"
            }
            Self::NoMemory | Self::Image(firn_image::Error::Memory(_)) => {
                "give the guest more memory, or more grants"
            }
            Self::Image(firn_image::Error::Damaged(_)) => {
                "attach an undamaged copy of the image disk, or go on `cold`"
            }
            Self::WhyNot(WhyNot::NoSpace { .. }) => "attach a larger image disk",
            Self::WhyNot(_) | Self::NoImageDisk { .. } => {
                "attach an image disk and name it: image=xvdb; `image format` makes one"
            }
            Self::Refusal(refusal) => refusal.hint(),
            Self::InUse => "end the job that uses it, or name another disk",
            Self::Several(_) => "say which: image=xvdb; the others are given up then",
            Self::NotWanted => "boot with image=auto to restore it, or give it up: `cold`",
            Self::Cannot(_) | Self::Image(_) | Self::Other(_) => {
                "see what the step's disk and the host's log say"
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("it took too long"),
            Self::Io(error) => error.fmt(f),
            Self::Gone => f.write_str("the disk is gone"),
            Self::Unseen(what) => write!(f, "{what}: there may be an image"),
            Self::NoMemory => f.write_str("memory has run out"),
            Self::Cannot(what) => f.write_str(what),
            Self::Image(error) => error.fmt(f),
            Self::WhyNot(why) => why.fmt(f),
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::NoImageDisk { found: 0 } => f.write_str("no disk is an image disk"),
            Self::NoImageDisk { found } => write!(f, "{found} disks are image disks"),
            Self::InUse => f.write_str("jobs use the disk"),
            Self::Several(disks) => {
                f.write_str("several disks hold a valid image:")?;
                disks.iter().try_for_each(|disk| write!(f, " {disk}"))
            }
            Self::NotWanted => f.write_str("it holds a valid image that is not to be restored"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for Fault {}

impl From<IoError> for Fault {
    fn from(error: IoError) -> Self {
        match error {
            IoError::Gone => Self::Gone,
            other => Self::Io(other),
        }
    }
}

impl From<firn_image::Error> for Fault {
    fn from(error: firn_image::Error) -> Self {
        Self::Image(error)
    }
}

impl From<BindError> for Fault {
    fn from(error: BindError) -> Self {
        Self::Refusal(Refusal::Disk(error))
    }
}

/// A step that failed: where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The step.
    pub step: Step,
    /// The disk that it was about.
    pub disk: Option<DiskId>,
    /// What went wrong.
    pub fault: Fault,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        if let Some(disk) = self.disk {
            write!(f, " {disk}")?;
        }
        write!(f, ": {} ({})", self.fault, self.fault.hint())
    }
}

impl core::error::Error for Trouble {}

/// How the machine stands after a freeze that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Jobs run, as before; what could not be brought back is in
    /// [`Failure::left`].
    Live,
    /// Jobs stand still and gates are shut: a header may be valid and could not
    /// be taken back. The next boot sees what became durable.
    Stopped,
}

/// A freeze that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed.
    pub trouble: Trouble,
    /// How the machine stands now.
    pub standing: Standing,
    /// What failed while everything was undone, in order.
    pub left: Vec<Trouble>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trouble)?;
        for trouble in &self.left {
            write!(f, "; then {trouble}")?;
        }
        f.write_str(match self.standing {
            Standing::Live => "; the machine goes on",
            Standing::Stopped => "; the machine stands still: power it off and boot it",
        })
    }
}

impl core::error::Error for Failure {}
