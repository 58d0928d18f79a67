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

/// What in leaf 1, ECX, tells of the machine or of the kernel's own means: debug
/// store, MONITOR, VMX and SMX, power and heat (bits 2 to 8), debug interface,
/// task priority, performance counters, PCID, direct cache access, x2APIC, the TSC
/// deadline, OSXSAVE (a control register's mirror), the hypervisor.
const MACHINE_C1: u32 = 0x8926_c9fc;
/// The same in leaf 1, EDX: machine checks, local APIC, MTRR, serial number, debug
/// store, heat, ACPI, self-snoop, several logical processors.
const MACHINE_D1: u32 = 0xb864_5280;
/// The same in leaf 0x8000_0001, ECX: logical processors, SVM, APIC, profiling,
/// SKINIT, watchdog, topology, performance counters.
const MACHINE_CE: u32 = 0x1dc0_360e;
/// The same in leaf 0x8000_0001, EDX: what it repeats of leaf 1.
const MACHINE_DE: u32 = 0x5280;
/// Tries of an instruction that may have nothing to give at the moment.
const RANDOM_TRIES: usize = 10;
/// Bit 30 of leaf 1, ECX: there is RDRAND.
const RDRAND: u32 = 1 << 30;

/// What instructions the CPU offers, as CPUID says it: leaf 1, leaf 7 and leaf
/// 0x8000_0001, two registers in each word. What belongs to the machine around it is
/// not among them: each boot finds its own, and no job ever sees it.
pub fn features() -> [u64; 4] {
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let [_, _, c1, d1] = cpuid(1);
    let [_, b7, c7, d7] = match cpuid(0)[0] {
        0..7 => [0; 4],
        _ => cpuid(7),
    };
    let [_, _, ce, de] = cpuid(0x8000_0001);
    [
        pair(c1 & !MACHINE_C1, d1 & !MACHINE_D1),
        pair(b7, c7),
        pair(0, d7),
        pair(ce & !MACHINE_CE, de & !MACHINE_DE),
    ]
}

/// A number that nobody can foresee where the CPU has a source of randomness,
/// and that is hardly ever the same twice where it has none.
pub fn random() -> u64 {
    let mut value = 0;
    if cpuid(1)[2] & RDRAND != 0 {
        for _ in 0..RANDOM_TRIES {
            let word: u64;
            let ok: u8;
            // SAFETY: the CPU has the instruction; it changes two registers.
            unsafe {
                asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) ok,
                     options(nomem, nostack));
            }
            if ok != 0 {
                value = word;
                break;
            }
        }
    }
    // Fibonacci hashing spreads the counter's low bits over the word.
    value ^ tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
