//! Why something did not work on the bus.

use super::offence::Offence;
use crate::post::PostError;
use crate::wire::vmbus::{Kind, Version};
use core::fmt;

/// What was asked of the bus failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusError {
    /// The host took a message not at all.
    Post(Kind, PostError),
    /// The reply did not come in time.
    Deadline(Kind),
    /// The host broke a rule.
    Offence(Offence),
    /// The host speaks none of our versions.
    NoVersion {
        /// The oldest that was tried.
        oldest: Version,
    },
    /// The host speaks the version and connects nobody.
    NotConnectable {
        /// The version.
        version: Version,
        /// Its reason.
        state: u8,
    },
    /// A host as old as this cannot be contacted a second time.
    OnlyOnce(Version),
    /// The reply is an error of the host's.
    Refused(Kind, u32),
    /// The host took the offer back.
    Rescinded,
    /// There is no connection.
    NotConnected,
    /// No memory.
    NoMemory,
    /// The version has no such message.
    NotInVersion(Kind, Version),
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Post(kind, error) => write!(f, "VMBus: {kind}: {error}"),
            Self::Deadline(kind) => write!(f, "VMBus: no {kind} until the deadline"),
            Self::Offence(offence) => write!(f, "VMBus: the host broke the protocol: {offence}"),
            Self::NoVersion { oldest } => {
                write!(f, "VMBus: the host speaks no version from {oldest} on")
            }
            Self::NotConnectable { version, state } => {
                write!(
                    f,
                    "VMBus: the host refuses to connect at {version} (state {state})"
                )
            }
            Self::OnlyOnce(version) => write!(
                f,
                "VMBus: a host that speaks {version} cannot be contacted twice"
            ),
            Self::Refused(kind, status) => write!(f, "VMBus: {kind} says {status:#x}"),
            Self::Rescinded => f.write_str("VMBus: the host took the offer back"),
            Self::NotConnected => f.write_str("VMBus: not connected"),
            Self::NoMemory => f.write_str("VMBus: no memory that could be shared"),
            Self::NotInVersion(kind, version) => {
                write!(f, "VMBus: version {version} has no {kind}")
            }
        }
    }
}

impl core::error::Error for BusError {}

impl From<Offence> for BusError {
    fn from(offence: Offence) -> Self {
        Self::Offence(offence)
    }
}
