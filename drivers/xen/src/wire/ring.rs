//! `io/ring.h`: the indices at the head of a shared request ring.

use super::layout;

/// The ring's header as far as anybody uses it; entries start at [`ENTRIES`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// Requests published by the frontend.
    pub req_prod: u32,
    /// The backend wants an event when `req_prod` passes this.
    pub req_event: u32,
    /// Responses published by the backend.
    pub rsp_prod: u32,
    /// The frontend wants an event when `rsp_prod` passes this.
    pub rsp_event: u32,
    /// Padding.
    pub pad: [u8; 48],
}
layout!(
    /// Layout of [`Header`], by the C type of the block ring.
    HEADER: Header = "struct blkif_sring" in "io/blkif.h", 64,
    { req_prod "req_prod" @ 0, req_event "req_event" @ 4, rsp_prod "rsp_prod" @ 8, rsp_event "rsp_event" @ 12 });

/// Where the entries start.
pub const ENTRIES: usize = 64;
