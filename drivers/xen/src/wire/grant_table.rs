//! `grant_table.h`: version 1 entries and `HYPERVISOR_grant_table_op`.

use super::layout;

/// A grant reference: an index into this domain's grant table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantRef(pub u32);

impl core::fmt::Display for GrantRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "grant {}", self.0)
    }
}

/// Bytes of a version 1 entry.
pub const ENTRY_SIZE: usize = 8;
/// Version 1 entries in a frame.
pub const ENTRIES_PER_FRAME: u32 = 512;
/// `GNTTAB_NR_RESERVED_ENTRIES`: the first entries belong to the toolstack.
pub const RESERVED_ENTRIES: u32 = 8;

/// `GTF_permit_access`.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// `GTF_readonly`.
pub const GTF_READONLY: u16 = 1 << 2;
/// `GTF_reading`: set by Xen while the frame is mapped for reading.
pub const GTF_READING: u16 = 1 << 3;
/// `GTF_writing`: set by Xen while the frame is mapped for writing.
pub const GTF_WRITING: u16 = 1 << 4;

/// `GNTTABOP_query_size`.
pub const OP_QUERY_SIZE: u32 = 6;

/// `struct grant_entry_v1`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EntryV1 {
    /// `GTF_*`; the last field to be written.
    pub flags: u16,
    /// Who may map the frame.
    pub domid: u16,
    /// The frame.
    pub frame: u32,
}
layout!(
    /// Layout of [`EntryV1`].
    ENTRY_V1: EntryV1 = "grant_entry_v1_t" in "grant_table.h", 8,
    { flags "flags" @ 0, domid "domid" @ 2, frame "frame" @ 4 });

/// `struct gnttab_query_size`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct QuerySize {
    /// In: whose table.
    pub dom: u16,
    /// Padding.
    pub pad: u16,
    /// Out: frames in use.
    pub nr_frames: u32,
    /// Out: how many there can be.
    pub max_nr_frames: u32,
    /// Out: `GNTST_*`, 0 is success.
    pub status: i16,
    /// Padding.
    pub pad2: u16,
}
layout!(
    /// Layout of [`QuerySize`].
    QUERY_SIZE: QuerySize = "struct gnttab_query_size" in "grant_table.h", 16,
    { dom "dom" @ 0, nr_frames "nr_frames" @ 4, max_nr_frames "max_nr_frames" @ 8, status "status" @ 12 });
