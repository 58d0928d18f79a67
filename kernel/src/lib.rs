//! The firn kernel: everything that needs a bare machine, and nothing else.
//!
//! `boot` calls `start` with what the monitor left; from there on:
//! [`console`] and traps, [`bootinfo`], memory, the hypervisor, its clock and
//! console, the buses, then jobs. What is not tied to the machine compiles and
//! is tested on the host; the rest is behind `cfg(firn_bare)` (see
//! `boot/README.md`).

#![no_std]

extern crate alloc;
#[cfg(any(test, not(firn_bare)))]
extern crate std;

pub mod acpi;
#[cfg(firn_bare)]
pub mod arch;
pub mod bootinfo;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod drives;
pub mod exec;
pub mod host;
pub mod mm;
pub mod power;
#[cfg(firn_bare)]
mod start;

#[cfg(firn_bare)]
pub use start::start;
