//! The hypervisor under us: which one it is, and its services for drivers.

mod detect;
#[cfg(firn_bare)]
pub mod xen;
#[cfg(firn_bare)]
pub(crate) mod xen_console;

pub use detect::{Hypervisor, detect};
