//! `hvm/hvm_op.h` and `hvm/params.h`.

use super::layout;

/// `HVMOP_set_param`.
pub const OP_SET_PARAM: u32 = 0;
/// `HVMOP_get_param`.
pub const OP_GET_PARAM: u32 = 1;

/// `HVM_PARAM_CALLBACK_IRQ`.
pub const PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN`.
pub const PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN`.
pub const PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CONSOLE_PFN`.
pub const PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN`.
pub const PARAM_CONSOLE_EVTCHN: u32 = 18;

/// `HVM_PARAM_CALLBACK_TYPE_VECTOR` in bits 63:56: the low byte is a vector
/// that every vCPU takes its own upcalls on.
pub const CALLBACK_TYPE_VECTOR: u64 = 2 << 56;

/// `struct xen_hvm_param`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Param {
    /// In: whose parameter.
    pub domid: u16,
    /// Padding.
    pub pad: u16,
    /// In: `HVM_PARAM_*`.
    pub index: u32,
    /// In or out.
    pub value: u64,
}
layout!(
    /// Layout of [`Param`].
    PARAM: Param = "struct xen_hvm_param" in "hvm/hvm_op.h", 16,
    { domid "domid" @ 0, index "index" @ 4, value "value" @ 8 });
