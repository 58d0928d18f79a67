//! The hypervisor under us: which one it is, and its services for drivers.

mod detect;
#[cfg(firn_bare)]
pub(crate) mod hyperv;
#[cfg(firn_bare)]
mod memory;
#[cfg(firn_bare)]
mod platform;
#[cfg(firn_bare)]
pub mod xen;

pub use detect::{Hypervisor, detect};
#[cfg(firn_bare)]
pub(crate) use platform::Platform;

/// The disks of this machine.
#[cfg(firn_bare)]
pub(crate) type KernelDrives = crate::drives::AnyDrives<xen::XenHal, hyperv::HyperVHal>;
