//! The names of the steps: traces, errors and the table of fault points use
//! the same ones.

use core::fmt;

/// One step of a freeze, of its unwinding, of a restore, or of a cold start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Ask everything first, without any effect (F0).
    Check,
    /// Take all memory that the freeze will need (F1).
    Reserve,
    /// Stop running jobs; no other vCPU runs any more (F2, F6).
    Park,
    /// Shut a disk's gate: nothing more is accepted (F2).
    Shut,
    /// Wait until nothing of a disk is in flight (F3).
    Drain,
    /// Empty a disk's volatile cache (F4).
    Flush,
    /// See that a ring holds neither unsent requests nor unread responses (F3).
    Idle,
    /// Note what a disk is, so that a restore knows it again.
    Identify,
    /// Disconnect a disk in good order (F5).
    Disconnect,
    /// Connect the image disk for the image only (F7, R5).
    ConnectImage,
    /// See again that the image fits, and take all memory for writing it.
    Plan,
    /// Let the host map the memory that the image goes through, where it keeps that
    /// mapped (F7, R5).
    MapLanes,
    /// Write the memory (F8).
    WriteChunks,
    /// Write the table of chunks (F9).
    WriteTable,
    /// Make memory and table durable (F10).
    FlushImage,
    /// Write the header that makes the image valid (F11).
    WriteHeader,
    /// Make the header durable (F12).
    FlushHeader,
    /// Read the header back and compare (F13).
    ReadBack,
    /// Read the whole image back and check it, without placing it.
    Verify,
    /// Disconnect the image disk in good order.
    DisconnectImage,
    /// Leave the hypervisor and switch off (F14).
    PowerOff,
    /// Take back a header that may have been written, durably (unwinding).
    Void,
    /// Connect a disk in the ordinary way again (unwinding, R10).
    Reconnect,
    /// Open a disk's gate (unwinding, R11).
    Open,
    /// Let jobs run again (unwinding, R11).
    Unpark,
    /// Look for an image on every disk (R2).
    Look,
    /// Compare build, memory, CPU and disks with what the image asks (R3).
    Compare,
    /// Read the image into job memory and verify every chunk of it (R5).
    Load,
    /// Take the loaded memory as job memory (R7).
    Adopt,
    /// Bind the saved disks to this boot's, and register buffers again (R10).
    Bind,
    /// Mark the image as used up, durably (R9).
    Consume,
    /// Mark the image as used up in its own slot, too (R9).
    Retire,
    /// Mark an image as given up, durably: this machine goes on without it, or
    /// with another one (R9).
    Abandon,
}

impl Step {
    /// Every step, in the order of the enum.
    pub const ALL: [Self; 33] = [
        Self::Check,
        Self::Reserve,
        Self::Park,
        Self::Shut,
        Self::Drain,
        Self::Flush,
        Self::Idle,
        Self::Identify,
        Self::Disconnect,
        Self::ConnectImage,
        Self::Plan,
        Self::MapLanes,
        Self::WriteChunks,
        Self::WriteTable,
        Self::FlushImage,
        Self::WriteHeader,
        Self::FlushHeader,
        Self::ReadBack,
        Self::Verify,
        Self::DisconnectImage,
        Self::PowerOff,
        Self::Void,
        Self::Reconnect,
        Self::Open,
        Self::Unpark,
        Self::Look,
        Self::Compare,
        Self::Load,
        Self::Adopt,
        Self::Bind,
        Self::Consume,
        Self::Retire,
        Self::Abandon,
    ];

    /// The name in traces, errors and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Reserve => "reserve",
            Self::Park => "park",
            Self::Shut => "shut",
            Self::Drain => "drain",
            Self::Flush => "flush",
            Self::Idle => "idle",
            Self::Identify => "identify",
            Self::Disconnect => "disconnect",
            Self::ConnectImage => "connect-image",
            Self::Plan => "plan",
            Self::MapLanes => "map-lanes",
            Self::WriteChunks => "write-chunks",
            Self::WriteTable => "write-table",
            Self::FlushImage => "flush-image",
            Self::WriteHeader => "write-header",
            Self::FlushHeader => "flush-header",
            Self::ReadBack => "read-back",
            Self::Verify => "verify",
            Self::DisconnectImage => "disconnect-image",
            Self::PowerOff => "power-off",
            Self::Void => "void",
            Self::Reconnect => "reconnect",
            Self::Open => "open",
            Self::Unpark => "unpark",
            Self::Look => "look",
            Self::Compare => "compare",
            Self::Load => "load",
            Self::Adopt => "adopt",
            Self::Bind => "bind",
            Self::Consume => "consume",
            Self::Retire => "retire",
            Self::Abandon => "abandon",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_holds_every_step_once_in_order() {
        for (at, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, at, "{step}");
        }
        let names: BTreeSet<_> = Step::ALL.map(Step::name).into();
        assert_eq!(names.len(), Step::ALL.len());
    }
}
