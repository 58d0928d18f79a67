//! CPUID, the time stamp counter, and halting for good.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};

/// CPUID `leaf` with subleaf 0, as `[eax, ebx, ecx, edx]`.
pub fn cpuid(leaf: u32) -> [u32; 4] {
    let r = __cpuid_count(leaf, 0);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The time stamp counter, in cycles.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, and we run in ring 0.
    unsafe { _rdtsc() }
}

/// Stops this CPU for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: with interrupts off this only waits; nothing is touched.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
