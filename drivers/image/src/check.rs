//! Whether this machine can take an image.

use crate::{Area, BuildId, Cpu, Damage, Header, Heap};
use core::fmt;

/// What the restoring side has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The build that runs.
    pub build: BuildId,
    /// Where job memory lies, and how much there is.
    pub heap: Heap,
    /// What the CPU offers.
    pub cpu: Cpu,
    /// Whether a key was given.
    pub has_key: bool,
}

/// Why an image is not restored. Nothing was changed: mend it and try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The image is another build's.
    Build {
        /// The build that froze.
        image: BuildId,
        /// The build that runs.
        ours: BuildId,
    },
    /// Job memory begins elsewhere.
    Address {
        /// At the freeze.
        image: u64,
        /// Now.
        ours: u64,
    },
    /// There is less job memory than the image needs.
    Memory {
        /// Bytes that it needs.
        needs: u64,
        /// Bytes that there are.
        have: u64,
    },
    /// The CPU lacks features that it had.
    Cpu {
        /// The missing ones.
        missing: Cpu,
    },
    /// The disk or partition is smaller than it was.
    Truncated {
        /// Sectors of 512 bytes at the freeze.
        was: u64,
        /// Sectors of 512 bytes now.
        is: u64,
    },
    /// A key was given, and the image is not encrypted.
    NotSealed,
    /// The image is encrypted, and no key was given.
    NoKey,
    /// Something on the disk is wrong.
    Damaged(Damage),
    /// A disk that jobs use cannot be found again.
    Disk(crate::BindError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build { image, ours } => {
                write!(f, "the image is of build {image}, this is build {ours}")
            }
            Self::Address { image, ours } => {
                write!(
                    f,
                    "the image's memory lay at {image:#x}, ours is at {ours:#x}"
                )
            }
            Self::Memory { needs, have } => write!(
                f,
                "the image needs {} KiB of job memory, there are {} KiB",
                needs / 1024,
                have / 1024
            ),
            Self::Cpu { missing } => {
                let [a, b, c, d] = missing.0;
                write!(f, "the CPU lacks features: {a:#x} {b:#x} {c:#x} {d:#x}")
            }
            Self::Truncated { was, is } => {
                write!(f, "the image disk shrank from {was} to {is} sectors")
            }
            Self::NotSealed => f.write_str("a key was given, but the image is not encrypted"),
            Self::NoKey => f.write_str("the image is encrypted, and no key was given"),
            Self::Damaged(damage) => write!(f, "the image is damaged: {damage}"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl Refusal {
    /// One word for machines.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Build { .. } => "build",
            Self::Address { .. } => "address",
            Self::Memory { .. } => "memory",
            Self::Cpu { .. } => "cpu",
            Self::Truncated { .. } => "truncated",
            Self::NotSealed => "not-sealed",
            Self::NoKey => "no-key",
            Self::Damaged(_) => "damaged",
            Self::Disk(error) => error.word(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Build { .. } => "boot the build that froze it",
            Self::Address { .. } => "boot the build that froze it, on the same kind of host",
            Self::Memory { .. } => "give the guest as much memory as it had",
            Self::Cpu { .. } => "start it on a host with these CPU features",
            Self::Truncated { .. } => "attach the image disk as it was",
            Self::NotSealed => "boot without image-key if you trust this image",
            Self::NoKey => "boot with the image-key that it was frozen with",
            Self::Damaged(Damage::Seal) => "boot with the image-key that it was frozen with",
            Self::Damaged(_) => "attach an undamaged copy of the image disk, or go on `cold`",
            Self::Disk(_) => "attach the disks that the guest had, as they were",
        }
    }
}

impl core::error::Error for Refusal {}

/// Whether this machine can take the image: everything that can be told from
/// the header alone. Disks are [`crate::bind`]'s business.
///
/// # Errors
/// [`Refusal`] names the first difference.
pub fn check(header: &Header, area: Area, machine: &Machine) -> Result<(), Refusal> {
    if header.build != machine.build {
        return Err(Refusal::Build {
            image: header.build,
            ours: machine.build,
        });
    }
    if header.heap.address != machine.heap.address {
        return Err(Refusal::Address {
            image: header.heap.address,
            ours: machine.heap.address,
        });
    }
    if header.heap.bytes > machine.heap.bytes {
        return Err(Refusal::Memory {
            needs: header.heap.bytes,
            have: machine.heap.bytes,
        });
    }
    let missing = header.cpu.missing_in(&machine.cpu);
    if !missing.is_empty() {
        return Err(Refusal::Cpu { missing });
    }
    if area.sectors < header.area_sectors {
        return Err(Refusal::Truncated {
            was: header.area_sectors,
            is: area.sectors,
        });
    }
    match (header.sealed, machine.has_key) {
        (true, false) => Err(Refusal::NoKey),
        (false, true) => Err(Refusal::NotSealed),
        _ => Ok(()),
    }
}
