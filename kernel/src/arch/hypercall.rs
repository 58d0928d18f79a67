//! The hypercall instruction of Xen: `vmcall` on Intel, `vmmcall` on AMD.
//!
//! Calling convention (Xen, `public/arch-x86/xen-x86_64.h`): number in RAX,
//! arguments in RDI RSI RDX R10 R8, result in RAX; no other register changes.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use super::cpu;

static USE_VMMCALL: AtomicBool = AtomicBool::new(false);

/// Chooses the instruction by the CPU's vendor. Call before the first
/// hypercall; the wrong instruction is an invalid opcode.
pub fn init() {
    let [_, b, c, d] = cpu::cpuid(0);
    let vendor = [b, d, c].map(u32::to_le_bytes);
    let amd_like = [*b"AuthenticAMD", *b"HygonGenuine"];
    USE_VMMCALL.store(
        amd_like.iter().any(|v| *v == *vendor.as_flattened()),
        Ordering::Relaxed,
    );
}

/// Makes Xen hypercall `number`.
///
/// # Safety
/// Memory that `arguments` point to is what this hypercall expects, and may be
/// read and written by the hypervisor during the call. Xen is the hypervisor.
pub unsafe fn call(number: u32, arguments: [u64; 5]) -> i64 {
    let result: u64;
    let [a, b, c, d, e] = arguments;
    if USE_VMMCALL.load(Ordering::Relaxed) {
        // SAFETY: the caller vouches for the arguments; memory is clobbered.
        unsafe {
            asm!("vmmcall", inlateout("rax") u64::from(number) => result, in("rdi") a, in("rsi") b,
                 in("rdx") c, in("r10") d, in("r8") e, options(nostack));
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!("vmcall", inlateout("rax") u64::from(number) => result, in("rdi") a, in("rsi") b,
                 in("rdx") c, in("r10") d, in("r8") e, options(nostack));
        }
    }
    result.cast_signed()
}
