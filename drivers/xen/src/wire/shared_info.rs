//! `xen.h`: the shared info page of an x86-64 guest.

use super::layout;

/// `struct vcpu_time_info`.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while Xen updates the rest.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// Time-stamp counter at the last update.
    pub tsc_timestamp: u64,
    /// Nanoseconds since the machine's start at the last update.
    pub system_time: u64,
    /// Ticks to nanoseconds: after the shift, multiply and take the upper half.
    pub tsc_to_system_mul: u32,
    /// Left shift of the tick difference; negative is a right shift.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}
layout!(
    /// Layout of [`VcpuTimeInfo`].
    VCPU_TIME_INFO: VcpuTimeInfo = "struct vcpu_time_info" in "xen.h", 32,
    { version "version" @ 0, tsc_timestamp "tsc_timestamp" @ 8, system_time "system_time" @ 16,
      tsc_to_system_mul "tsc_to_system_mul" @ 24, tsc_shift "tsc_shift" @ 28, flags "flags" @ 29 });

/// `struct vcpu_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VcpuInfo {
    /// Set by Xen when an event became pending; cleared by the guest.
    pub evtchn_upcall_pending: u8,
    /// Ignored for guests with hardware virtualization.
    pub evtchn_upcall_mask: u8,
    /// Padding.
    pub pad: [u8; 6],
    /// Which words of `evtchn_pending` have news.
    pub evtchn_pending_sel: u64,
    /// `struct arch_vcpu_info`.
    pub arch: [u64; 2],
    /// This vCPU's clock.
    pub time: VcpuTimeInfo,
}
layout!(
    /// Layout of [`VcpuInfo`].
    VCPU_INFO: VcpuInfo = "struct vcpu_info" in "xen.h", 64,
    { evtchn_upcall_pending "evtchn_upcall_pending" @ 0, evtchn_upcall_mask "evtchn_upcall_mask" @ 1,
      evtchn_pending_sel "evtchn_pending_sel" @ 8, arch "arch" @ 16, time "time" @ 32 });

/// `XEN_LEGACY_MAX_VCPUS`: vCPUs that have their info in the shared page.
pub const MAX_VCPUS: u32 = 32;

/// `struct shared_info`, up to the wall clock.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SharedInfo {
    /// One per vCPU.
    pub vcpu_info: [VcpuInfo; 32],
    /// A bit per port: an event is pending.
    pub evtchn_pending: [u64; 64],
    /// A bit per port: its events do not cause upcalls.
    pub evtchn_mask: [u64; 64],
    /// Wall clock: version, as for the vCPU's clock.
    pub wc_version: u32,
    /// Wall clock: seconds at system time zero, low half.
    pub wc_sec: u32,
    /// Wall clock: nanoseconds.
    pub wc_nsec: u32,
    /// Wall clock: seconds, high half.
    pub wc_sec_hi: u32,
    /// `struct arch_shared_info`.
    pub arch: [u64; 6],
}
layout!(
    /// Layout of [`SharedInfo`].
    SHARED_INFO: SharedInfo = "struct shared_info" in "xen.h", 3136,
    { vcpu_info "vcpu_info" @ 0, evtchn_pending "evtchn_pending" @ 2048, evtchn_mask "evtchn_mask" @ 2560,
      wc_version "wc_version" @ 3072, wc_sec "wc_sec" @ 3076, wc_nsec "wc_nsec" @ 3080,
      wc_sec_hi "wc_sec_hi" @ 3084, arch "arch" @ 3088 });
