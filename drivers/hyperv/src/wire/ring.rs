//! Rings of a channel and the packets in them.

use super::layout;

/// Offsets in the control page, each a 32-bit word.
pub mod control {
    /// Where the writer writes next, in bytes from the data's start.
    pub const WRITE_INDEX: usize = 0;
    /// Where the reader reads next.
    pub const READ_INDEX: usize = 4;
    /// Not zero: the reader wants no interrupt.
    pub const INTERRUPT_MASK: usize = 8;
    /// The free bytes that the writer waits for; zero: it does not wait.
    pub const PENDING_SEND_SIZE: usize = 12;
    /// [`SUPPORTS_PENDING_SEND_SIZE`].
    pub const FEATURES: usize = 64;
    /// Bit of [`FEATURES`]: this end sets [`PENDING_SEND_SIZE`].
    pub const SUPPORTS_PENDING_SEND_SIZE: u32 = 1;
}

firn_block::open_enum! {
    /// What a packet is.
    pub enum PacketType: u16 {
        /// Its data follow.
        IN_BAND = 6 => "in-band",
        /// Its data lie in pages that were set aside before.
        TRANSFER_PAGES = 7 => "transfer pages",
        /// Its data lie in a GPADL.
        GPADL = 8 => "GPADL",
        /// Its data lie in pages that it lists.
        GPA_DIRECT = 9 => "GPA-direct",
        /// The answer to a packet with the same transaction id.
        COMPLETION = 11 => "completion",
    }
}

/// Flag of a packet: its sender wants a completion.
pub const COMPLETION_REQUESTED: u16 = 1;
/// What follows a packet: its start's offset, shifted by 32.
pub const TRAILER: usize = 8;

/// The head of every packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[repr(C)]
pub struct Descriptor {
    /// A [`PacketType`].
    pub packet_type: u16,
    /// Where the data begin, in units of 8 bytes.
    pub offset8: u16,
    /// Length without the trailer, in units of 8 bytes.
    pub len8: u16,
    /// [`COMPLETION_REQUESTED`].
    pub flags: u16,
    /// Comes back with the completion.
    pub transaction: u64,
}
layout!(Descriptor, 16, { packet_type @ 0, offset8 @ 2, len8 @ 4, flags @ 6, transaction @ 8 });

/// What follows the head of a [`PacketType::GPA_DIRECT`] packet; `range_count`
/// ranges follow, each with its frames.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct GpaDirect {
    /// Zero.
    pub reserved: u32,
    /// How many ranges follow.
    pub range_count: u32,
}
layout!(GpaDirect, 8, { range_count @ 4 });

/// A run of guest memory: frames of 64 bits follow, as many as it touches.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Range {
    /// Bytes in it.
    pub bytes: u32,
    /// Where in the first frame it begins.
    pub offset: u32,
}
layout!(Range, 8, { bytes @ 0, offset @ 4 });

/// What follows the head of a [`PacketType::TRANSFER_PAGES`] packet.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct TransferPages {
    /// Which set of pages.
    pub page_set: u16,
    /// Whose set it is.
    pub sender_owns: u8,
    /// Zero.
    pub reserved: u8,
    /// How many ranges follow.
    pub range_count: u32,
}
layout!(TransferPages, 8, { page_set @ 0, sender_owns @ 2, range_count @ 4 });
