//! `io/xs_wire.h`: xenstore messages and the ring page.

use super::{layout, open_enum};

/// Largest payload of a message in bytes (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// Longest absolute path in bytes (`XENSTORE_ABS_PATH_MAX`).
pub const ABS_PATH_MAX: usize = 3072;
/// Longest relative path in bytes (`XENSTORE_REL_PATH_MAX`).
pub const REL_PATH_MAX: usize = 2048;
/// Bytes of each of the two rings (`XENSTORE_RING_SIZE`).
pub const RING_SIZE: u32 = 1024;

open_enum! {
    /// What a message is (`enum xsd_sockmsg_type`).
    pub enum MessageType: u32 {
        /// List children.
        DIRECTORY = 1 => "directory",
        /// Read a value.
        READ = 2 => "read",
        /// Read permissions.
        GET_PERMS = 3 => "get-perms",
        /// Watch a path.
        WATCH = 4 => "watch",
        /// Stop watching.
        UNWATCH = 5 => "unwatch",
        /// Begin a transaction.
        TRANSACTION_START = 6 => "transaction-start",
        /// Commit (`T`) or drop (`F`) it.
        TRANSACTION_END = 7 => "transaction-end",
        /// The path of a domain.
        GET_DOMAIN_PATH = 10 => "get-domain-path",
        /// Write a value.
        WRITE = 11 => "write",
        /// Make a node.
        MKDIR = 12 => "mkdir",
        /// Remove a node and what is below.
        RM = 13 => "rm",
        /// Set permissions.
        SET_PERMS = 14 => "set-perms",
        /// A watch fired.
        WATCH_EVENT = 15 => "watch-event",
        /// The request failed; the payload is the error's name.
        ERROR = 16 => "error",
        /// Drop all watches of this domain.
        RESET_WATCHES = 21 => "reset-watches",
        /// List some of the children.
        DIRECTORY_PART = 22 => "directory-part",
    }
}

/// `struct xsd_sockmsg`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[repr(C)]
pub struct Header {
    /// A [`MessageType`].
    pub ty: u32,
    /// Chosen by the requester, echoed in the reply; 0 in watch events.
    pub req_id: u32,
    /// The transaction, 0 for none.
    pub tx_id: u32,
    /// Length of the payload in bytes.
    pub len: u32,
}
layout!(
    /// Layout of [`Header`].
    HEADER: Header = "struct xsd_sockmsg" in "io/xs_wire.h", 16,
    { ty "type" @ 0, req_id "req_id" @ 4, tx_id "tx_id" @ 8, len "len" @ 12 });

/// `struct xenstore_domain_interface`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Interface {
    /// Requests to xenstored.
    pub req: [u8; 1024],
    /// Replies and watch events.
    pub rsp: [u8; 1024],
    /// xenstored's index into `req`.
    pub req_cons: u32,
    /// Our index into `req`.
    pub req_prod: u32,
    /// Our index into `rsp`.
    pub rsp_cons: u32,
    /// xenstored's index into `rsp`.
    pub rsp_prod: u32,
    /// `XENSTORE_SERVER_FEATURE_*`.
    pub server_features: u32,
    /// [`CONNECTED`] or [`RECONNECT`].
    pub connection: u32,
    /// `XENSTORE_ERROR_*`, valid with that server feature.
    pub error: u32,
}
layout!(
    /// Layout of [`Interface`].
    INTERFACE: Interface = "struct xenstore_domain_interface" in "io/xs_wire.h", 2076,
    { req "req" @ 0, rsp "rsp" @ 1024, req_cons "req_cons" @ 2048, req_prod "req_prod" @ 2052,
      rsp_cons "rsp_cons" @ 2056, rsp_prod "rsp_prod" @ 2060, server_features "server_features" @ 2064,
      connection "connection" @ 2068, error "error" @ 2072 });

/// `XENSTORE_SERVER_FEATURE_RECONNECTION`.
pub const FEATURE_RECONNECTION: u32 = 1;
/// `XENSTORE_SERVER_FEATURE_ERROR`.
pub const FEATURE_ERROR: u32 = 2;
/// `XENSTORE_CONNECTED`.
pub const CONNECTED: u32 = 0;
/// `XENSTORE_RECONNECT`.
pub const RECONNECT: u32 = 1;
