//! How a guest ends.

use std::fmt;
use std::process::ExitCode;

/// What ended the guest. Each has an exit code of its own; 1 is the monitor's own
/// failure, 2 a mistake on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reboot,
    /// The guest told of a crash by the crash MSRs; what it said.
    Crash(String),
    /// The processor shut down: a fault for which there was no handler. On AMD's
    /// processors KVM has reset it by then, and the place is that of a reset, but for
    /// `rip` where Linux traced it.
    TripleFault(Place),
    /// The deadline came first.
    Stuck(Place),
    /// The processor stands where the guest has no memory, twice in a row, or it shut
    /// down though the guest has gates to tell of a fault by: one that is not the
    /// guest's any more (`docs/lab.md`).
    Lost(Place),
    /// KVM could not go on.
    Broken(String),
}

/// Where the processor was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The next instruction.
    pub rip: u64,
    /// The stack.
    pub rsp: u64,
    /// The address of the last page fault.
    pub cr2: u64,
}

impl End {
    /// The program's exit code.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::PowerOff => 0,
            Self::Reboot => 10,
            Self::Crash(_) => 11,
            Self::TripleFault(_) => 12,
            Self::Stuck(_) => 13,
            Self::Broken(_) => 14,
            Self::Lost(_) => 15,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rip, rsp, cr2 } = self;
        write!(f, "rip {rip:#x}, rsp {rsp:#x}, cr2 {cr2:#x}")
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest switched itself off"),
            Self::Reboot => f.write_str("the guest asked for a reboot"),
            Self::Crash(text) => write!(f, "the guest crashed: {}", text.trim_end()),
            Self::TripleFault(place) => write!(f, "the guest's processor shut down at {place}"),
            Self::Stuck(place) => write!(f, "the guest goes on after its deadline, at {place}"),
            Self::Lost(place) => write!(
                f,
                "the emulator lost the guest's processor, which is at {place}"
            ),
            Self::Broken(what) => write!(f, "KVM cannot go on: {what}"),
        }
    }
}
