//! What can go wrong with xenstore, and whose fault it is.

use crate::event::EventError;
use crate::start_page::StartPageError;
use crate::wire::errno::Errno;
use crate::wire::xs::MessageType;
use alloc::string::String;
use core::fmt;

/// A xenstore request failed, or the connection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The toolstack says that xenstore comes later: try again.
    NotYet,
    /// The toolstack made no ring for this domain, or it cannot be reached.
    Page(StartPageError),
    /// The event channel cannot be used.
    Port(EventError),
    /// The ring holds messages of an earlier user, and the server cannot reset
    /// a connection.
    RingInUse,
    /// The server answered with an error.
    Errno {
        /// The error.
        errno: Errno,
        /// What was asked.
        what: MessageType,
        /// About which path.
        path: String,
    },
    /// The server answered with an error that has no number here.
    Refused {
        /// The error's name.
        name: String,
        /// What was asked.
        what: MessageType,
        /// About which path.
        path: String,
    },
    /// No answer within the deadline. A change may still be made later.
    Timeout {
        /// What was asked.
        what: MessageType,
        /// About which path.
        path: String,
    },
    /// Refused here: the path is empty, too long, or has a zero byte.
    BadPath(String),
    /// Refused here: the message would exceed the protocol's 4096 bytes.
    TooLong {
        /// What was asked.
        what: MessageType,
        /// About which path.
        path: String,
    },
    /// Refused here: too many requests are unanswered.
    TooManyRequests,
    /// The value is no UTF-8 text.
    NotText(String),
    /// The transaction lost a race: run it again.
    Again,
    /// The children changed during every try to list them.
    Unstable(String),
    /// The connection was reset: transactions are gone, watches are registered
    /// again by [`Store::reconnect`](super::Store::reconnect).
    Reset,
    /// The server gave the connection up (`XENSTORE_ERROR_*`); reconnect.
    Server(u32),
    /// The server cannot reset a connection.
    NoReconnect,
    /// A reconnect is under way already.
    Reconnecting,
    /// The server did not finish the reset within the deadline.
    ReconnectTimeout,
    /// The server broke the protocol; the store is not used any more.
    Protocol(StoreOffence),
}

impl StoreError {
    /// Whether the server said that there is no such node.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Errno { errno, .. } if *errno == Errno::ENOENT)
    }

    /// Whether there is no such node as far as this domain may know: of a
    /// directory that it may not read, the server does not say whether a node
    /// exists in it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let denied = matches!(self, Self::Errno { errno, .. } if *errno == Errno::EACCES);
        denied || self.is_missing()
    }

    /// Whether the server may only be slow: asking again makes sense.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether [`Store::reconnect`](super::Store::reconnect) may mend it.
    #[must_use]
    pub const fn is_lost_connection(&self) -> bool {
        matches!(self, Self::Reset | Self::Server(_) | Self::ReconnectTimeout)
    }
}

impl From<StartPageError> for StoreError {
    fn from(error: StartPageError) -> Self {
        match error {
            StartPageError::NotYet(_) => Self::NotYet,
            other => Self::Page(other),
        }
    }
}

impl From<StoreOffence> for StoreError {
    fn from(offence: StoreOffence) -> Self {
        Self::Protocol(offence)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => f.write_str("xenstore is not there yet"),
            Self::Page(error) => write!(f, "xenstore: {error}"),
            Self::Port(error) => write!(f, "xenstore's event channel: {error}"),
            Self::RingInUse => f.write_str(
                "the xenstore ring holds messages of an earlier user, and the server cannot reset it",
            ),
            Self::Errno { errno, what, path } => write!(f, "xenstore {what} {path}: {errno}"),
            Self::Refused { name, what, path } => write!(f, "xenstore {what} {path}: {name}"),
            Self::Timeout { what, path } => write!(f, "xenstore {what} {path}: no answer in time"),
            Self::BadPath(path) => write!(f, "not a xenstore path: {path:?}"),
            Self::TooLong { what, path } => {
                write!(f, "xenstore {what} {path}: more than 4096 bytes")
            }
            Self::TooManyRequests => f.write_str("too many xenstore requests are unanswered"),
            Self::NotText(path) => write!(f, "the value of {path} is no text"),
            Self::Again => f.write_str("the xenstore transaction lost a race"),
            Self::Unstable(path) => write!(f, "the children of {path} changed at every try to list them"),
            Self::Reset => f.write_str("the xenstore connection was reset"),
            Self::Server(code) => write!(f, "xenstore gave the connection up (error {code})"),
            Self::NoReconnect => f.write_str("this xenstore cannot reset a connection"),
            Self::Reconnecting => f.write_str("the xenstore connection is being reset already"),
            Self::ReconnectTimeout => f.write_str("xenstore did not reset the connection in time"),
            Self::Protocol(offence) => write!(f, "xenstore broke the protocol: {offence}"),
        }
    }
}

impl core::error::Error for StoreError {}

/// A rule of the protocol that the server broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOffence {
    /// `rsp_prod` is more than a ring ahead of what we consumed, or went back.
    ResponseIndex {
        /// The server's index.
        prod: u32,
        /// Ours.
        cons: u32,
    },
    /// `req_cons` went back or beyond what we produced.
    RequestIndex {
        /// The server's index.
        cons: u32,
        /// Ours.
        prod: u32,
    },
    /// After a reset, a queue was not empty.
    NotEmptied,
    /// `connection` is neither connected nor reconnecting.
    ConnectionState(u32),
    /// A payload of more than 4096 bytes was announced.
    PayloadTooLong {
        /// Bytes announced.
        len: u32,
    },
    /// A reply to a request that was never made.
    ReplyToNobody {
        /// The id in the reply.
        req_id: u32,
    },
    /// A second reply to a request.
    DuplicateReply {
        /// The id in the reply.
        req_id: u32,
    },
    /// A reply of another type than the request.
    WrongType {
        /// What was asked.
        asked: MessageType,
        /// The type in the reply.
        got: MessageType,
    },
    /// A reply that names another transaction than the request.
    WrongTransaction {
        /// The request's transaction.
        asked: u32,
        /// The reply's.
        got: u32,
    },
    /// An error reply whose payload is no error's name.
    NoErrorName,
    /// A change was acknowledged with something else than `OK`.
    NoAcknowledgement {
        /// What was asked.
        asked: MessageType,
    },
    /// A payload that must be text is no UTF-8.
    NotText {
        /// What was asked, or the event.
        asked: MessageType,
    },
    /// A string without the zero byte that ends it.
    MissingNul {
        /// What was asked, or the event.
        asked: MessageType,
    },
    /// A list of children has a name that no node can have.
    ChildName,
    /// A list of permissions has an entry that is none.
    Permission,
    /// A transaction's id is no number, zero, or the id of an open transaction.
    TransactionId,
    /// The path of a domain is not absolute.
    DomainPath,
    /// A part of a directory without a generation number.
    Generation,
    /// A part of a directory that brings nothing and does not end it.
    EmptyPart,
    /// A directory longer than any that a server can hold.
    EndlessDirectory,
    /// A watch event without a token.
    NoToken,
    /// A watch event for a watch that was never registered, or whose end the
    /// server has acknowledged.
    UnknownWatch,
}

impl fmt::Display for StoreOffence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResponseIndex { prod, cons } => {
                write!(f, "rsp_prod is {prod:#x} while rsp_cons is {cons:#x}")
            }
            Self::RequestIndex { cons, prod } => {
                write!(f, "req_cons is {cons:#x} while req_prod is {prod:#x}")
            }
            Self::NotEmptied => f.write_str("a ring was not emptied by the reset"),
            Self::ConnectionState(value) => write!(f, "connection state {value}"),
            Self::PayloadTooLong { len } => write!(f, "a payload of {len} bytes"),
            Self::ReplyToNobody { req_id } => write!(f, "a reply to unknown request {req_id}"),
            Self::DuplicateReply { req_id } => write!(f, "a second reply to request {req_id}"),
            Self::WrongType { asked, got } => write!(f, "{got} as the reply to {asked}"),
            Self::WrongTransaction { asked, got } => {
                write!(f, "a reply in transaction {got} to a request in {asked}")
            }
            Self::NoErrorName => f.write_str("an error without a name"),
            Self::NoAcknowledgement { asked } => write!(f, "{asked} acknowledged without OK"),
            Self::NotText { asked } => write!(f, "the payload of {asked} is no text"),
            Self::MissingNul { asked } => write!(f, "the payload of {asked} has no final zero"),
            Self::ChildName => f.write_str("a child's name is empty or has a slash"),
            Self::Permission => f.write_str("an entry that is no permission"),
            Self::TransactionId => f.write_str("a transaction id that is none"),
            Self::DomainPath => f.write_str("a domain's path that is not absolute"),
            Self::Generation => f.write_str("a directory part without its generation"),
            Self::EmptyPart => f.write_str("a directory part that brings nothing"),
            Self::EndlessDirectory => f.write_str("a directory without end"),
            Self::NoToken => f.write_str("a watch event without token"),
            Self::UnknownWatch => f.write_str("an event of a watch that does not exist"),
        }
    }
}
