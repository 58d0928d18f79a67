//! The rules of the block protocol that a backend can break, by name.

use crate::wire::blkif::{Operation, Status};
use core::fmt;

/// A rule that the backend broke. The device fails; nothing it sent after that
/// is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// `rsp_prod` claims more responses than there are requests to answer, or
    /// went back.
    ResponseIndexRunsAway {
        /// What the ring says.
        rsp_prod: u32,
        /// What was reaped so far.
        rsp_cons: u32,
        /// What was published.
        req_prod: u32,
    },
    /// A response names no slot of ours.
    UnknownId(u64),
    /// A response names a slot that waits for nothing, or an earlier use of it.
    StaleId(u64),
    /// A response names another operation than its request.
    WrongOperation {
        /// What was asked.
        asked: Operation,
        /// What was answered.
        answered: Operation,
    },
    /// A response has a status that the protocol does not know.
    UnknownStatus(Status),
    /// The backend keeps a page mapped although it answered the request and
    /// promised no persistent grants.
    StillMapped(u32),
    /// Events without work beyond any reason.
    EventStorm,
    /// The backend did not answer for longer than the deadline while the
    /// device was being closed.
    NoAnswer {
        /// Requests without an answer.
        outstanding: u32,
    },
}

impl Offence {
    /// The rule, in words that fit into an I/O error.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::ResponseIndexRunsAway { .. } => "rsp_prod beyond the requests in flight",
            Self::UnknownId(_) => "response with an unknown id",
            Self::StaleId(_) => "response to a request that is not in flight",
            Self::WrongOperation { .. } => "response with the wrong operation",
            Self::UnknownStatus(_) => "response with an unknown status",
            Self::StillMapped(_) => "page still mapped after its response",
            Self::EventStorm => "events without work",
            Self::NoAnswer { .. } => "requests without an answer at the deadline",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())?;
        match self {
            Self::ResponseIndexRunsAway {
                rsp_prod,
                rsp_cons,
                req_prod,
            } => write!(
                f,
                " (rsp_prod {rsp_prod}, reaped {rsp_cons}, published {req_prod})"
            ),
            Self::UnknownId(id) | Self::StaleId(id) => write!(f, " ({id:#x})"),
            Self::WrongOperation { asked, answered } => {
                write!(f, " (asked {asked}, answered {answered})")
            }
            Self::UnknownStatus(status) => write!(f, " ({status})"),
            Self::StillMapped(reference) => write!(f, " (grant {reference})"),
            Self::NoAnswer { outstanding } => write!(f, " ({outstanding} requests)"),
            Self::EventStorm => Ok(()),
        }
    }
}

impl core::error::Error for Offence {}
