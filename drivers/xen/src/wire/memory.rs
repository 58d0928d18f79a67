//! `memory.h`: `HYPERVISOR_memory_op`.

use super::layout;

/// `XENMEM_add_to_physmap`.
pub const OP_ADD_TO_PHYSMAP: u32 = 7;

/// `XENMAPSPACE_shared_info`.
pub const SPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`.
pub const SPACE_GRANT_TABLE: u32 = 1;

/// `struct xen_add_to_physmap`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AddToPhysmap {
    /// In: whose memory.
    pub domid: u16,
    /// In: unused here.
    pub size: u16,
    /// In: `XENMAPSPACE_*`.
    pub space: u32,
    /// In: index into the space.
    pub idx: u64,
    /// In: where it appears.
    pub gpfn: u64,
}
layout!(
    /// Layout of [`AddToPhysmap`].
    ADD_TO_PHYSMAP: AddToPhysmap = "struct xen_add_to_physmap" in "memory.h", 24,
    { domid "domid" @ 0, size "size" @ 2, space "space" @ 4, idx "idx" @ 8, gpfn "gpfn" @ 16 });
