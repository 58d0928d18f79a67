//! Which disk is which after a restore.

use alloc::vec::Vec;
use core::fmt;
use firn_block::DiskId;

/// What tells a disk from another wherever it is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskIdentity {
    /// The disk GUID of its partition table, as it lies on the disk.
    Guid([u8; 16]),
    /// A fingerprint of its first 64 KiB and of the last 64 KiB of the size
    /// that it had at the freeze.
    Print(u64),
}

/// A disk as an image names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedDisk {
    /// The name that jobs know it by.
    pub id: DiskId,
    /// Size at the freeze in sectors of 512 bytes; it may have grown since.
    pub capacity: u64,
    /// Unit of addressing in bytes.
    pub logical_block: u32,
    /// Whether it refused writes.
    pub read_only: bool,
    /// What to know it by.
    pub identity: DiskIdentity,
}

/// A disk of this boot, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentDisk {
    /// Its name in this boot.
    pub id: DiskId,
    /// Size in sectors of 512 bytes.
    pub capacity: u64,
    /// Unit of addressing in bytes.
    pub logical_block: u32,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// The disk GUID, where it has a partition table.
    pub guid: Option<[u8; 16]>,
    /// Its fingerprint for each saved disk, in the image's order; `None` where
    /// that one was larger or the disk could not be read.
    pub prints: Vec<Option<u64>>,
}

/// A saved disk and the disk of this boot that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name that jobs know it by.
    pub saved: DiskId,
    /// The name in this boot.
    pub present: DiskId,
}

/// Why a saved disk has no counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindError {
    /// No disk is it: not attached, or written to since the freeze.
    Missing(DiskId),
    /// It is smaller than it was.
    Shrunk {
        /// The saved disk.
        disk: DiskId,
        /// The disk of this boot.
        present: DiskId,
        /// Sectors of 512 bytes at the freeze.
        was: u64,
        /// Sectors of 512 bytes now.
        is: u64,
    },
    /// Its unit of addressing changed.
    BlockSize {
        /// The saved disk.
        disk: DiskId,
        /// Bytes at the freeze.
        was: u32,
        /// Bytes now.
        is: u32,
    },
    /// It cannot be written any more.
    ReadOnly(DiskId),
    /// Several disks are it, and none has its name.
    Ambiguous(DiskId),
}

impl BindError {
    /// One word for machines.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "disk-missing",
            Self::Shrunk { .. } => "disk-shrunk",
            Self::BlockSize { .. } => "disk-block-size",
            Self::ReadOnly(_) => "disk-read-only",
            Self::Ambiguous(_) => "disk-ambiguous",
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(disk) => write!(
                f,
                "{disk} is not attached, or was written to since the freeze"
            ),
            Self::Shrunk {
                disk,
                present,
                was,
                is,
            } => write!(
                f,
                "{disk} (now {present}) shrank from {was} to {is} sectors"
            ),
            Self::BlockSize { disk, was, is } => {
                write!(f, "{disk} has blocks of {is} bytes now, it had {was}")
            }
            Self::ReadOnly(disk) => write!(f, "{disk} is read-only now"),
            Self::Ambiguous(disk) => write!(f, "several disks look like {disk}"),
        }
    }
}

impl core::error::Error for BindError {}

/// Finds each saved disk among those of this boot: by GUID where it had one,
/// else by fingerprint; of several, the one with the same name. No disk of this
/// boot is two saved ones.
///
/// # Errors
/// [`BindError`] names the first saved disk that has no counterpart.
pub fn bind(saved: &[SavedDisk], present: &[PresentDisk]) -> Result<Vec<Binding>, BindError> {
    let mut bindings: Vec<Binding> = Vec::new();
    for (number, disk) in saved.iter().enumerate() {
        let found = find(number, disk, present)?;
        if let Some(other) = bindings.iter().find(|b| b.present == found.id) {
            return Err(BindError::Ambiguous(other.saved));
        }
        fits(disk, found)?;
        bindings.push(Binding {
            saved: disk.id,
            present: found.id,
        });
    }
    Ok(bindings)
}

/// Whether `other` has the identity of the saved disk.
fn is(number: usize, disk: &SavedDisk, other: &PresentDisk) -> bool {
    match disk.identity {
        DiskIdentity::Guid(guid) => other.guid == Some(guid),
        DiskIdentity::Print(print) => other.prints.get(number) == Some(&Some(print)),
    }
}

fn find<'a>(
    number: usize,
    disk: &SavedDisk,
    present: &'a [PresentDisk],
) -> Result<&'a PresentDisk, BindError> {
    let mut same = present.iter().filter(|other| is(number, disk, other));
    match (same.next(), same.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => present
            .iter()
            .find(|other| other.id == disk.id && is(number, disk, other))
            .ok_or(BindError::Ambiguous(disk.id)),
        // One of its name that is too small has no fingerprint to compare.
        (None, _) => Err(present
            .iter()
            .find(|other| other.id == disk.id && other.capacity < disk.capacity)
            .map_or(BindError::Missing(disk.id), |other| shrunk(disk, other))),
    }
}

const fn shrunk(disk: &SavedDisk, other: &PresentDisk) -> BindError {
    BindError::Shrunk {
        disk: disk.id,
        present: other.id,
        was: disk.capacity,
        is: other.capacity,
    }
}

/// Whether the disk can still do what it could.
fn fits(disk: &SavedDisk, other: &PresentDisk) -> Result<(), BindError> {
    if other.capacity < disk.capacity {
        return Err(shrunk(disk, other));
    }
    if other.logical_block != disk.logical_block {
        return Err(BindError::BlockSize {
            disk: disk.id,
            was: disk.logical_block,
            is: other.logical_block,
        });
    }
    if other.read_only && !disk.read_only {
        return Err(BindError::ReadOnly(disk.id));
    }
    Ok(())
}
