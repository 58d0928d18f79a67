//! Hypercalls as typed values; [`Hypercall::registers`] is the ABI form.

use crate::wire::hypercall::{FAST, POST_MESSAGE, SIGNAL_EVENT};
use firn_block::Gfn;

/// One hypercall of those that firn makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypercall {
    /// Sends the message that lies at the start of a frame.
    PostMessage(Gfn),
    /// Signals an event flag of a connection.
    SignalEvent {
        /// Whose.
        connection: u32,
        /// Which; 0 for VMBus.
        flag: u16,
    },
}

/// What goes into the registers. The call is made by calling the hypercall page,
/// at its virtual address; `rax` returns the status, and `rcx`, `rdx` and `r8` to
/// `r11` are spoiled. It is no call of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The call's code, and flags.
    pub rcx: u64,
    /// The input's address, or the input.
    pub rdx: u64,
    /// The output's address, or more input.
    pub r8: u64,
}

impl Hypercall {
    /// The ABI form (TLFS, section 3.7).
    #[must_use]
    pub const fn registers(self) -> Registers {
        match self {
            Self::PostMessage(frame) => Registers {
                rcx: POST_MESSAGE as u64,
                rdx: frame.0 << 12,
                r8: 0,
            },
            Self::SignalEvent { connection, flag } => Registers {
                rcx: SIGNAL_EVENT as u64 | FAST,
                rdx: connection as u64 | (flag as u64) << 32,
                r8: 0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_as_the_abi_says() {
        let post = Hypercall::PostMessage(Gfn(0x123)).registers();
        assert_eq!((post.rcx, post.rdx, post.r8), (0x5c, 0x12_3000, 0));
        let signal = Hypercall::SignalEvent {
            connection: 0x1_0007,
            flag: 3,
        };
        let signal = signal.registers();
        assert_eq!(
            (signal.rcx, signal.rdx, signal.r8),
            (0x1_005d, 0x3_0001_0007, 0)
        );
    }
}
