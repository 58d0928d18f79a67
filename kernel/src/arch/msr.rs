//! Model-specific registers.

use core::arch::asm;

/// Reads one. The CPU, or the hypervisor, must have it: else this faults.
pub(crate) fn read(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing that Rust knows of; one that is not there
    // faults, which ends in a dump.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes one.
///
/// # Safety
/// What the register then does is what this kernel expects of its memory, its
/// tables and its mode.
pub(crate) unsafe fn write(number: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's promise. Memory is clobbered: the hypervisor may
    // begin to write a page by this.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") low, in("edx") high,
             options(nostack, preserves_flags));
    }
}
