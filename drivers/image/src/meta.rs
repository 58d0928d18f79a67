//! What an image says about the memory in it and where it comes from.

use crate::SavedDisk;
use alloc::vec::Vec;
use core::fmt;

/// Names one build of the program: a saved memory holds its function pointers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BuildId(pub [u8; 32]);

impl BuildId {
    /// The id from up to 32 bytes, such as an ELF build note's.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(id)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        self.0[..used]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// Where the saved memory lay, and must lie again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Address of the first byte.
    pub address: u64,
    /// Length in bytes, a multiple of the page size.
    pub bytes: u64,
}

/// CPU features, a bit each. The caller says which word is which; every bit of
/// an image must be there again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu(pub [u64; 4]);

impl Cpu {
    /// The features of `self` that `other` lacks.
    #[must_use]
    pub fn missing_in(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// Whether no feature is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// Who asked for the freeze: a few words for people, at most 31 bytes of them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Reason(pub(crate) [u8; 32]);

impl Reason {
    /// The words, cut where they are too long; only printable ASCII is kept.
    #[must_use]
    pub fn new(words: &str) -> Self {
        let mut text = [0; 32];
        let printable = words.bytes().filter(|b| matches!(b, b' '..=b'~'));
        for (to, from) in text[..31].iter_mut().zip(printable) {
            *to = from;
        }
        Self(text)
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let used = self.0.iter().position(|b| *b == 0).unwrap_or(32);
        core::str::from_utf8(&self.0[..used]).unwrap_or("?")
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What the freezing side knows, and the restoring side must find again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The build that ran.
    pub build: BuildId,
    /// The memory's bounds.
    pub heap: Heap,
    /// What the CPU offered.
    pub cpu: Cpu,
    /// Disks in use, at most [`Meta::MAX_DISKS`].
    pub disks: Vec<SavedDisk>,
    /// Wall clock at the freeze, in nanoseconds since 1970.
    pub time: u64,
    /// Who asked for it.
    pub reason: Reason,
}

impl Meta {
    /// As many disks as an image can name.
    pub const MAX_DISKS: usize = 64;
}
