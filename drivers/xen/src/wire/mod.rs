//! Xen's ABI: structures and numbers, no logic.
//!
//! Every structure states its size and offsets once, in a [`Layout`] that the
//! compiler checks against the Rust type and `tests/abi` checks against the
//! public C headers. Values that come from the host are plain integers or open
//! enums; nothing here can be made invalid by what the host writes.

pub mod blkif;
pub mod console;
pub mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod hvm;
pub mod memory;
pub mod misc;
pub mod ring;
pub mod shared_info;
pub mod xenbus;
pub mod xs;

/// The layout of one structure of the ABI, by its C names.
#[derive(Debug)]
pub struct Layout {
    /// Name in the public headers, with `struct` where C needs it.
    pub c_type: &'static str,
    /// Header below `xen/`.
    pub header: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// C field designators and their offsets in bytes.
    pub fields: &'static [(&'static str, usize)],
}

/// States a layout once: checked here at compile time, exported for `tests/abi`.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident: $ty:ty = $c_type:literal in $header:literal, $size:literal,
     { $($field:ident $c_field:literal @ $offset:literal),* $(,)? }) => {
        $(#[$doc])*
        pub const $name: $crate::wire::Layout = $crate::wire::Layout {
            c_type: $c_type,
            header: $header,
            size: $size,
            fields: &[$(($c_field, $offset)),*],
        };
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;

pub use firn_block::Gfn;
pub(crate) use firn_block::open_enum;

/// Every layout, for the comparison with the C headers.
pub const LAYOUTS: &[&Layout] = &[
    &blkif::REQUEST,
    &blkif::REQUEST_DISCARD,
    &blkif::REQUEST_INDIRECT,
    &blkif::SEGMENT,
    &blkif::RESPONSE,
    &ring::HEADER,
    &console::INTERFACE,
    &event_channel::ALLOC_UNBOUND,
    &event_channel::BIND_VIRQ,
    &event_channel::CLOSE,
    &event_channel::SEND,
    &grant_table::ENTRY_V1,
    &grant_table::QUERY_SIZE,
    &hvm::PARAM,
    &memory::ADD_TO_PHYSMAP,
    &misc::SCHED_SHUTDOWN,
    &misc::SCHED_POLL,
    &misc::FEATURE_INFO,
    &misc::SET_SINGLESHOT_TIMER,
    &shared_info::VCPU_TIME_INFO,
    &shared_info::VCPU_INFO,
    &shared_info::SHARED_INFO,
    &xs::HEADER,
    &xs::INTERFACE,
];

/// A guest's domain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomId(pub u16);

impl DomId {
    /// Stands for the calling domain (`xen.h`).
    pub const SELF: Self = Self(0x7ff0);
}

impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "d{}", self.0)
    }
}
