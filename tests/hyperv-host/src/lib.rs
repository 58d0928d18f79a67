//! A small monitor on KVM that is a Hyper-V host to its one guest.
//!
//! It starts an ELF file (or a Linux bzImage) by Linux's 64-bit entry, as
//! Microsoft's openvmm does, or the kernel of a boot medium as GRUB does, on a
//! machine without PIT and PIC: COM1 is standard input and output, power-off goes
//! through the ACPI PM block. CPUID, MSRs,
//! hypercalls and the SynIC are done here, in user space, so KVM needs nothing of
//! Hyper-V itself; VMBus and storvsp are the peers of `firn-peers`, over disk
//! files.
//!
//! One thread runs the guest's processor and serves its devices between two turns
//! of it; another one wakes it when there is something to do ([`attention`]). Disks
//! are read and written by threads of their own; what came out of it is put on the
//! ring, and into the guest's memory, by the first thread alone.

pub mod acpi;
pub mod attention;
pub mod boot;
pub mod chipset;
pub mod disk;
pub mod end;
pub mod machine;
pub mod medium;
pub mod memory;
mod multiboot;
pub mod options;
pub mod partition;
pub mod pm;
pub mod processor;
mod trace;
mod worker;

pub use end::End;
pub use options::Options;
