//! `io/blkif.h`: block requests and responses of the x86-64 ABI.
//!
//! Sector numbers, `first_sect`, `last_sect` and the `sectors` key count units
//! of 512 bytes whatever `sector-size` says; this is what Linux' and QEMU's
//! backends do.

use super::{layout, open_enum};

open_enum! {
    /// `BLKIF_OP_*`.
    pub enum Operation: u8 {
        /// Disk to memory.
        READ = 0 => "READ",
        /// Memory to disk.
        WRITE = 1 => "WRITE",
        /// A write with everything before it made durable first.
        WRITE_BARRIER = 2 => "WRITE_BARRIER",
        /// Completed writes become durable.
        FLUSH_DISKCACHE = 3 => "FLUSH_DISKCACHE",
        /// The range's content is not needed.
        DISCARD = 5 => "DISCARD",
        /// Segments lie in further granted pages.
        INDIRECT = 6 => "INDIRECT",
    }
}

open_enum! {
    /// `BLKIF_RSP_*`.
    pub enum Status: i16 {
        /// Done.
        OKAY = 0 => "OKAY",
        /// Failed.
        ERROR = -1 => "ERROR",
        /// Not supported (any more).
        EOPNOTSUPP = -2 => "EOPNOTSUPP",
    }
}

/// `BLKIF_MAX_SEGMENTS_PER_REQUEST`.
pub const MAX_SEGMENTS: usize = 11;
/// `BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`.
pub const MAX_INDIRECT_PAGES: usize = 8;
/// Segments described by one indirect page.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = 512;
/// `BLKIF_DISCARD_SECURE`.
pub const DISCARD_SECURE: u8 = 1;
/// `VDISK_CDROM` of the `info` key.
pub const VDISK_CDROM: u32 = 1;
/// `VDISK_READONLY` of the `info` key.
pub const VDISK_READONLY: u32 = 4;
/// `XEN_IO_PROTO_ABI_X86_64` (`io/protocols.h`).
pub const PROTOCOL: &str = "x86_64-abi";

/// Bytes of a ring entry: the larger of request and response.
pub const ENTRY_SIZE: usize = 112;

/// `struct blkif_request_segment`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Segment {
    /// The granted page.
    pub gref: u32,
    /// First sector of the page, 0 to 7.
    pub first_sect: u8,
    /// Last sector of the page, inclusive.
    pub last_sect: u8,
    /// Padding.
    pub pad: u16,
}
layout!(
    /// Layout of [`Segment`].
    SEGMENT: Segment = "struct blkif_request_segment" in "io/blkif.h", 8,
    { gref "gref" @ 0, first_sect "first_sect" @ 4, last_sect "last_sect" @ 5 });

/// `struct blkif_request`: read, write, barrier, flush.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct Request {
    /// An [`Operation`].
    pub operation: u8,
    /// Segments used.
    pub nr_segments: u8,
    /// The virtual device number.
    pub handle: u16,
    /// Padding.
    pub pad: u32,
    /// Echoed in the response.
    pub id: u64,
    /// First sector.
    pub sector_number: u64,
    /// Where the data is.
    pub seg: [Segment; MAX_SEGMENTS],
}
layout!(
    /// Layout of [`Request`].
    REQUEST: Request = "struct blkif_request" in "io/blkif.h", 112,
    { operation "operation" @ 0, nr_segments "nr_segments" @ 1, handle "handle" @ 2, id "id" @ 8,
      sector_number "sector_number" @ 16, seg "seg" @ 24 });

/// `struct blkif_request_discard`.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct RequestDiscard {
    /// [`Operation::DISCARD`].
    pub operation: u8,
    /// [`DISCARD_SECURE`] or 0.
    pub flag: u8,
    /// The virtual device number.
    pub handle: u16,
    /// Padding.
    pub pad: u32,
    /// Echoed in the response.
    pub id: u64,
    /// First sector.
    pub sector_number: u64,
    /// How many sectors.
    pub nr_sectors: u64,
}
layout!(
    /// Layout of [`RequestDiscard`].
    REQUEST_DISCARD: RequestDiscard = "struct blkif_request_discard" in "io/blkif.h", 32,
    { operation "operation" @ 0, flag "flag" @ 1, handle "handle" @ 2, id "id" @ 8,
      sector_number "sector_number" @ 16, nr_sectors "nr_sectors" @ 24 });

/// `struct blkif_request_indirect`.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct RequestIndirect {
    /// [`Operation::INDIRECT`].
    pub operation: u8,
    /// The real [`Operation`].
    pub indirect_op: u8,
    /// Segments used.
    pub nr_segments: u16,
    /// Padding.
    pub pad: u32,
    /// Echoed in the response.
    pub id: u64,
    /// First sector.
    pub sector_number: u64,
    /// The virtual device number.
    pub handle: u16,
    /// Padding.
    pub pad2: u16,
    /// Granted pages full of [`Segment`]s.
    pub indirect_grefs: [u32; MAX_INDIRECT_PAGES],
    /// Padding.
    pub pad3: u32,
}
layout!(
    /// Layout of [`RequestIndirect`].
    REQUEST_INDIRECT: RequestIndirect = "struct blkif_request_indirect" in "io/blkif.h", 64,
    { operation "operation" @ 0, indirect_op "indirect_op" @ 1, nr_segments "nr_segments" @ 2, id "id" @ 8,
      sector_number "sector_number" @ 16, handle "handle" @ 24, indirect_grefs "indirect_grefs" @ 28 });

/// `struct blkif_response`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable,
)]
#[repr(C)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The request's operation.
    pub operation: u8,
    /// Padding.
    pub pad: u8,
    /// A [`Status`].
    pub status: i16,
    /// Padding.
    pub pad2: u32,
}
layout!(
    /// Layout of [`Response`].
    RESPONSE: Response = "struct blkif_response" in "io/blkif.h", 16,
    { id "id" @ 0, operation "operation" @ 8, status "status" @ 10 });
