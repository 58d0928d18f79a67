//! Hypercalls (TLFS, chapters 3 and 11).

use super::layout;

firn_block::open_enum! {
    /// What a hypercall returned: the low 16 bits of `rax`.
    pub enum Status: u16 {
        /// Done.
        SUCCESS = 0 => "success",
        /// No such call.
        INVALID_CODE = 2 => "invalid hypercall code",
        /// The input makes no sense.
        INVALID_INPUT = 3 => "invalid hypercall input",
        /// The input is not aligned.
        INVALID_ALIGNMENT = 4 => "invalid alignment",
        /// A parameter makes no sense.
        INVALID_PARAMETER = 5 => "invalid parameter",
        /// Not allowed.
        ACCESS_DENIED = 6 => "access denied",
        /// No memory: try again.
        INSUFFICIENT_MEMORY = 11 => "insufficient memory",
        /// No such connection.
        INVALID_CONNECTION_ID = 18 => "invalid connection id",
        /// No room for the message: try again.
        INSUFFICIENT_BUFFERS = 19 => "insufficient buffers",
    }
}

/// `HvCallPostMessage`; its input lies in memory.
pub const POST_MESSAGE: u16 = 0x5c;
/// `HvCallSignalEvent`; its input is in registers.
pub const SIGNAL_EVENT: u16 = 0x5d;
/// The input is in registers (bit 16 of `rcx`).
pub const FAST: u64 = 1 << 16;

/// Most bytes of a message.
pub const PAYLOAD: usize = 240;
/// The type of a message that VMBus sends and gets (`HVMSG_CHANNEL`).
pub const CHANNEL_MESSAGE: u32 = 1;

/// The input of [`POST_MESSAGE`], 8-byte aligned.
#[derive(Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct PostMessage {
    /// Whom it is for.
    pub connection: u32,
    /// Zero.
    pub reserved: u32,
    /// [`CHANNEL_MESSAGE`].
    pub message_type: u32,
    /// Bytes of the payload in use.
    pub size: u32,
    /// The message.
    pub payload: [u8; PAYLOAD],
}
layout!(PostMessage, 256, { connection @ 0, message_type @ 8, size @ 12, payload @ 16 });
