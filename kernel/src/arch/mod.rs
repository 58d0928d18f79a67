//! The x86-64 machine: registers, ports, descriptor tables, traps, hypercalls.
//!
//! Compiled only for the bare machine. The rules that everything here rests
//! on (docs/adr/0002-interrupts.md, docs/adr/0015-halting-on-hyper-v.md):
//! interrupts are off but for a halt on Hyper-V, exceptions have IST stacks, and `core` was compiled with SSE2 and a red zone.
#![expect(
    unsafe_code,
    reason = "registers, ports, descriptor tables and assembler"
)]

pub(crate) mod apic;
pub mod cpu;
mod first_cpu;
pub mod hypercall;
pub(crate) mod hyperv;
mod image;
mod mem;
mod msr;
pub mod port;
mod provoke;
mod segments;
pub mod stacks;
pub(crate) mod traps;

pub use first_cpu::FirstCpu;
pub use image::{BuildId, build_id};
pub use provoke::provoke;

/// Loads our own descriptor tables: from here on a fault ends in a dump that
/// a person can read instead of a triple fault. Call once per boot.
pub fn init() {
    segments::load();
    traps::load();
}
