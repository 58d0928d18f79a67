//! The hypercall instruction of Xen: `vmcall` on Intel, `vmmcall` on AMD.
//!
//! Calling convention (Xen, `public/arch-x86/xen-x86_64.h`): number in RAX,
//! arguments in RDI RSI RDX (R10 R8 unused here), result in RAX. Xen may change the
//! registers of arguments (a call that it continues does, and every one of a debug
//! build), and no other.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use firn_xen::hypercall::Hypercall;
use firn_xen::wire::errno::Errno;

use super::cpu;

static USE_VMMCALL: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

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

/// Makes a hypercall of Xen.
///
/// # Errors
/// The error number that Xen returned.
pub fn xen(mut call: Hypercall<'_>) -> Result<u64, Errno> {
    let registers = call.registers();
    count_one();
    // SAFETY: pointers among the arguments come from borrows inside `call`,
    // which is still alive and has the type that the hypercall expects. What
    // changes the memory map (`AddToPhysmap`) is aimed at frames outside RAM by
    // `Hal::fixed`. Without Xen the instruction faults.
    Errno::check(unsafe { raw(registers.number(), registers.args()) })
}

/// Counts a hypercall, of whichever hypervisor.
pub(super) fn count_one() {
    // Not an atomic addition: one CPU writes it.
    COUNT.store(count().wrapping_add(1), Ordering::Relaxed);
}

/// Hypercalls made since boot.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Executes the instruction.
///
/// # Safety
/// Memory that `args` point to is what hypercall `number` expects, and may be
/// read and written by the hypervisor during the call.
unsafe fn raw(number: u32, args: [u64; 3]) -> i64 {
    let result: u64;
    let [a, b, c] = args;
    let number = u64::from(number);
    if USE_VMMCALL.load(Ordering::Relaxed) {
        // SAFETY: the caller vouches for the arguments; memory is clobbered.
        unsafe {
            asm!("vmmcall", inlateout("rax") number => result, inlateout("rdi") a => _,
                 inlateout("rsi") b => _, inlateout("rdx") c => _, options(nostack));
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!("vmcall", inlateout("rax") number => result, inlateout("rdi") a => _,
                 inlateout("rsi") b => _, inlateout("rdx") c => _, options(nostack));
        }
    }
    result.cast_signed()
}
