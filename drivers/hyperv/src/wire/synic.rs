//! The SynIC's pages: messages and event flags (TLFS, chapter 11).

use super::hypercall::PAYLOAD;
use super::layout;

/// The interrupt source that VMBus uses.
pub const VMBUS_SINT: u8 = 2;
/// Bytes of one source's slot, in both pages.
pub const SLOT: usize = 256;
/// Where VMBus' slot begins in both pages.
pub const VMBUS_SLOT: usize = VMBUS_SINT as usize * SLOT;
/// Event flags of one source; the highest relid is one less.
pub const FLAGS: u32 = 2048;
/// `HVMSG_NONE`: the slot is empty.
pub const NO_MESSAGE: u32 = 0;
/// In [`Message::flags`]: more messages wait for this slot.
pub const MORE_PENDING: u8 = 1;

/// A message slot.
#[derive(Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Message {
    /// [`NO_MESSAGE`], or what it is.
    pub message_type: u32,
    /// Bytes of the payload in use.
    pub size: u8,
    /// [`MORE_PENDING`].
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// The port that it came by.
    pub sender: u64,
    /// The message.
    pub payload: [u8; PAYLOAD],
}
layout!(Message, 256, { message_type @ 0, size @ 4, flags @ 5, sender @ 8, payload @ 16 });
