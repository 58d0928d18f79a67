//! What is known about a disk.

use core::fmt;
use core::str::FromStr;

/// The name of a disk as the host numbers it: `xvda` is 0, `xvdb` is 1, …; names of
/// SCSI disks, `sda` and so on, are numbered apart.
///
/// Plain data that may lie in saved memory: it never points at a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskId(pub u32);

/// In the number of a SCSI disk.
const SCSI: u32 = 1 << 31;

impl DiskId {
    /// The SCSI disk of that number: 0 is `sda`.
    #[must_use]
    pub const fn scsi(index: u32) -> Self {
        Self(index | SCSI)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bijective base 26: a..z, aa..zz, and so on.
        let mut letters = [0u8; 8];
        let mut at = letters.len();
        let mut rest = u64::from(self.0 & !SCSI) + 1;
        while rest > 0 {
            rest -= 1;
            at -= 1;
            letters[at] = b'a' + u8::try_from(rest % 26).unwrap_or(0);
            rest /= 26;
        }
        f.write_str(if self.0 & SCSI == 0 { "xvd" } else { "sd" })?;
        f.write_str(core::str::from_utf8(&letters[at..]).unwrap_or("?"))
    }
}

/// Not the name of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseDiskIdError;

impl FromStr for DiskId {
    type Err = ParseDiskIdError;

    fn from_str(name: &str) -> Result<Self, ParseDiskIdError> {
        let (letters, kind) = match (name.strip_prefix("xvd"), name.strip_prefix("sd")) {
            (Some(letters), _) => (letters, 0),
            (None, Some(letters)) => (letters, SCSI),
            (None, None) => return Err(ParseDiskIdError),
        };
        if letters.is_empty() || letters.len() > 5 {
            return Err(ParseDiskIdError);
        }
        let mut index: u32 = 0;
        for letter in letters.bytes() {
            if !letter.is_ascii_lowercase() {
                return Err(ParseDiskIdError);
            }
            index = index * 26 + u32::from(letter - b'a') + 1;
        }
        Ok(Self((index - 1) | kind))
    }
}

/// What the host offers to make writes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A flush operation.
    Flush,
    /// Write barriers; an empty one serves as a flush.
    Barrier,
    /// Nothing: there is no volatile cache, or no way to empty it. A flush is
    /// refused, so nobody takes silence for durability.
    None,
}

/// What the host says about discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Granularity in bytes.
    pub granularity: u32,
    /// Offset of the first granule in bytes.
    pub alignment: u32,
    /// Whether secure discard is offered.
    pub secure: bool,
}

/// A connected disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its name.
    pub id: DiskId,
    /// Size in sectors of 512 bytes.
    pub capacity: u64,
    /// Unit of addressing in bytes: every request is a multiple of it.
    pub logical_block: u32,
    /// Unit that the medium writes without read-modify-write, in bytes.
    pub physical_block: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How writes become durable.
    pub durability: Durability,
    /// Discard, where offered.
    pub discard: Option<Discard>,
    /// Largest request that goes to the host in one piece, in bytes; larger
    /// ones are split.
    pub max_transfer: u32,
    /// How many requests the ring holds.
    pub queue_depth: u32,
}

impl DiskInfo {
    /// A disk that was never connected.
    #[must_use]
    pub const fn unknown(id: DiskId) -> Self {
        Self {
            id,
            capacity: 0,
            logical_block: 512,
            physical_block: 512,
            read_only: true,
            durability: Durability::None,
            discard: None,
            max_transfer: 0,
            queue_depth: 0,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.capacity.saturating_mul(crate::SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_go_both_ways() {
        for (index, name) in [(0, "xvda"), (25, "xvdz"), (26, "xvdaa"), (702, "xvdaaa")] {
            assert_eq!(DiskId(index).to_string(), name);
            assert_eq!(name.parse(), Ok(DiskId(index)));
        }
        for (index, name) in [(0, "sda"), (26, "sdaa")] {
            assert_eq!(DiskId::scsi(index).to_string(), name);
            assert_eq!(name.parse(), Ok(DiskId::scsi(index)));
        }
        for wrong in [
            "",
            "xvd",
            "sd",
            "hda",
            "xvdA",
            "xvda1",
            "sdA",
            "xvdaaaaaaaa",
        ] {
            assert_eq!(wrong.parse::<DiskId>(), Err(ParseDiskIdError), "{wrong}");
        }
    }
}
