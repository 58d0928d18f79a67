//! `sched.h`, `version.h`, `vcpu.h` and hypercall numbers of `xen.h`.
//!
//! The one file that uses the `xen-sys` crate, for numbers only: its hypercall
//! functions are unsound (`docs/adr/0006-xen-sys.md`).

use super::{layout, open_enum};
use xen_sys as sys;

/// `__HYPERVISOR_memory_op`.
pub const HYPERCALL_MEMORY_OP: u32 = sys::__HYPERVISOR_memory_op;
/// `__HYPERVISOR_xen_version`.
pub const HYPERCALL_XEN_VERSION: u32 = sys::__HYPERVISOR_xen_version;
/// `__HYPERVISOR_console_io`.
pub const HYPERCALL_CONSOLE_IO: u32 = sys::__HYPERVISOR_console_io;
/// `__HYPERVISOR_grant_table_op`.
pub const HYPERCALL_GRANT_TABLE_OP: u32 = sys::__HYPERVISOR_grant_table_op;
/// `__HYPERVISOR_vcpu_op`.
pub const HYPERCALL_VCPU_OP: u32 = sys::__HYPERVISOR_vcpu_op;
/// `__HYPERVISOR_sched_op`.
pub const HYPERCALL_SCHED_OP: u32 = sys::__HYPERVISOR_sched_op;
/// `__HYPERVISOR_event_channel_op`.
pub const HYPERCALL_EVENT_CHANNEL_OP: u32 = sys::__HYPERVISOR_event_channel_op;
/// `__HYPERVISOR_hvm_op`.
pub const HYPERCALL_HVM_OP: u32 = sys::__HYPERVISOR_hvm_op;

/// `SCHEDOP_yield`.
pub const SCHED_YIELD: u32 = sys::SCHEDOP_yield;
/// `SCHEDOP_shutdown`.
pub const SCHED_SHUTDOWN_OP: u32 = sys::SCHEDOP_shutdown;

/// `SCHEDOP_poll`.
pub const SCHED_POLL_OP: u32 = sys::SCHEDOP_poll;

/// `VCPUOP_stop_periodic_timer`.
pub const VCPU_STOP_PERIODIC_TIMER: u32 = 7;
/// `VCPUOP_set_singleshot_timer`.
pub const VCPU_SET_SINGLESHOT_TIMER: u32 = 8;
/// `VCPUOP_stop_singleshot_timer`.
pub const VCPU_STOP_SINGLESHOT_TIMER: u32 = 9;

/// `XENVER_version`: the result is `major << 16 | minor`.
pub const VERSION: u32 = 0;
/// `XENVER_extraversion`: 16 bytes of text.
pub const EXTRAVERSION: u32 = 1;
/// `XENVER_get_features`.
pub const GET_FEATURES: u32 = 6;

/// `CONSOLEIO_write`.
pub const CONSOLEIO_WRITE: u32 = sys::CONSOLEIO_write;

open_enum! {
    /// Why a domain stops (`SHUTDOWN_*`).
    pub enum ShutdownReason: u32 {
        /// The guest is done.
        POWEROFF = sys::SHUTDOWN_poweroff => "poweroff",
        /// The guest wants to start again.
        REBOOT = sys::SHUTDOWN_reboot => "reboot",
        /// The guest's memory is to be saved.
        SUSPEND = sys::SHUTDOWN_suspend => "suspend",
        /// The guest found itself broken.
        CRASH = sys::SHUTDOWN_crash => "crash",
    }
}

/// `struct sched_shutdown`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SchedShutdown {
    /// In: `SHUTDOWN_*`.
    pub reason: u32,
}
layout!(
    /// Layout of [`SchedShutdown`].
    SCHED_SHUTDOWN: SchedShutdown = "struct sched_shutdown" in "sched.h", 4,
    { reason "reason" @ 0 });

/// `struct sched_poll`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SchedPoll {
    /// In: the address of the ports, `evtchn_port_t` each.
    pub ports: u64,
    /// In: how many they are, at most [`SchedPoll::MAX_PORTS`].
    pub nr_ports: u32,
    /// Padding.
    pub pad: u32,
    /// In: absolute system time in nanoseconds; 0 for none.
    pub timeout: u64,
}

impl SchedPoll {
    /// More ports are refused.
    pub const MAX_PORTS: usize = 128;
}
layout!(
    /// Layout of [`SchedPoll`].
    SCHED_POLL: SchedPoll = "struct sched_poll" in "sched.h", 24,
    { ports "ports" @ 0, nr_ports "nr_ports" @ 8, timeout "timeout" @ 16 });

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FeatureInfo {
    /// In: which 32 features.
    pub submap_idx: u32,
    /// Out: their bits.
    pub submap: u32,
}
layout!(
    /// Layout of [`FeatureInfo`].
    FEATURE_INFO: FeatureInfo = "struct xen_feature_info" in "version.h", 8,
    { submap_idx "submap_idx" @ 0, submap "submap" @ 4 });

/// `struct vcpu_set_singleshot_timer`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// In: absolute system time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// In: `VCPU_SSHOTTMR_*`.
    pub flags: u32,
    /// Padding.
    pub pad: u32,
}
layout!(
    /// Layout of [`SetSingleshotTimer`].
    SET_SINGLESHOT_TIMER: SetSingleshotTimer = "struct vcpu_set_singleshot_timer" in "vcpu.h", 16,
    { timeout_abs_ns "timeout_abs_ns" @ 0, flags "flags" @ 8 });
