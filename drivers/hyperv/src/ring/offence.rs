//! The rules of a ring that a host can break, by name.

use core::fmt;

/// A rule that the host broke. The channel is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// The host's read index lies outside the ring.
    ReadIndexOutside(u32),
    /// The host's read index is not on a packet's boundary.
    ReadIndexOdd(u32),
    /// The host has read what was not written, or gone back.
    ReadIndexRunsAway(u32),
    /// The host's write index lies outside the ring.
    WriteIndexOutside(u32),
    /// The host's write index is not on a packet's boundary.
    WriteIndexOdd(u32),
    /// The host took back what it wrote, or overwrote what was not read.
    WriteIndexGoesBack(u32),
    /// A packet whose head is shorter than heads are, or longer than itself.
    PacketHead {
        /// Length of the head in units of 8 bytes.
        offset8: u16,
        /// Length of the packet in units of 8 bytes.
        len8: u16,
    },
    /// A packet that is longer than what was written.
    PacketTorn {
        /// Its length in bytes, trailer included.
        bytes: u32,
        /// What was written.
        written: u32,
    },
    /// A packet that is longer than any that makes sense.
    PacketTooLong(u32),
}

impl Offence {
    /// The rule, in words that fit into an I/O error.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::ReadIndexOutside(_) => "read index outside the ring",
            Self::ReadIndexOdd(_) => "read index within a packet",
            Self::ReadIndexRunsAway(_) => "read index beyond what was written",
            Self::WriteIndexOutside(_) => "write index outside the ring",
            Self::WriteIndexOdd(_) => "write index within a packet",
            Self::WriteIndexGoesBack(_) => "write index went back",
            Self::PacketHead { .. } => "packet with a wrong head",
            Self::PacketTorn { .. } => "packet longer than what was written",
            Self::PacketTooLong(_) => "packet longer than any",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())?;
        match self {
            Self::ReadIndexOutside(index)
            | Self::ReadIndexOdd(index)
            | Self::ReadIndexRunsAway(index)
            | Self::WriteIndexOutside(index)
            | Self::WriteIndexOdd(index)
            | Self::WriteIndexGoesBack(index) => write!(f, " ({index:#x})"),
            Self::PacketHead { offset8, len8 } => {
                write!(f, " (offset8 {offset8}, len8 {len8})")
            }
            Self::PacketTorn { bytes, written } => {
                write!(f, " ({bytes} bytes, {written} written)")
            }
            Self::PacketTooLong(bytes) => write!(f, " ({bytes} bytes)"),
        }
    }
}

impl core::error::Error for Offence {}
