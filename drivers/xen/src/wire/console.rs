//! `io/console.h`: the page of a PV console.

use super::layout;

/// Bytes that the host sends us: the ring `in`.
pub const IN_SIZE: usize = 1024;
/// Bytes that we send: the ring `out`.
pub const OUT_SIZE: usize = 2048;

/// `struct xencons_interface`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Interface {
    /// Host to guest.
    pub input: [u8; IN_SIZE],
    /// Guest to host.
    pub output: [u8; OUT_SIZE],
    /// Guest's index into `input`.
    pub in_cons: u32,
    /// Host's index into `input`.
    pub in_prod: u32,
    /// Host's index into `output`.
    pub out_cons: u32,
    /// Guest's index into `output`.
    pub out_prod: u32,
}
layout!(
    /// Layout of [`Interface`].
    INTERFACE: Interface = "struct xencons_interface" in "io/console.h", 3088,
    { input "in" @ 0, output "out" @ 1024, in_cons "in_cons" @ 3072, in_prod "in_prod" @ 3076,
      out_cons "out_cons" @ 3080, out_prod "out_prod" @ 3084 });
