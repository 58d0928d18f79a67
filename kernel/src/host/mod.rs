//! The hypervisor under us: which one it is, and its services for drivers.

mod detect;

pub use detect::{Hypervisor, detect};
