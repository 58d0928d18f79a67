//! The x86-64 machine: registers, ports, descriptor tables, traps, hypercalls.
//!
//! Compiled only for the bare machine. The rules that everything here rests
//! on (docs/adr/0002-interrupts.md): interrupts are off for good, exceptions
//! have IST stacks, and `core` was compiled with SSE2 and a red zone.
#![expect(
    unsafe_code,
    reason = "registers, ports, descriptor tables and assembler"
)]

pub mod cpu;
mod first_cpu;
pub mod hypercall;
mod image;
mod mem;
pub mod port;
mod provoke;
mod segments;
pub mod stacks;
mod traps;

pub use first_cpu::FirstCpu;
pub use image::{BuildId, build_id};
pub use provoke::provoke;

/// Loads our own descriptor tables: from here on a fault ends in a dump that
/// a person can read instead of a triple fault. Call once per boot.
pub fn init() {
    segments::load();
    traps::load();
}
