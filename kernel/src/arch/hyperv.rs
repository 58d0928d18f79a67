//! The hypercall page of Hyper-V, and its MSRs.

use core::arch::asm;

use firn_hyperv::hypercall::Hypercall;
use firn_hyperv::wire::hypercall::Status;
use firn_hyperv::wire::msr::Msr;

use super::{hypercall, msr};

// The hypervisor puts code of its own over this page. Without it, a call is told
// that there is no such hypercall (status 2).
core::arch::global_asm!(
    r#"
.section .text.page, "ax", @progbits
.balign 4096
.global firn_hypercall_page
firn_hypercall_page:
    mov eax, 2
    ret
.balign 4096, 0xcc
"#
);

unsafe extern "C" {
    safe fn firn_hypercall_page();
}

/// The address of the page.
pub(crate) fn page() -> usize {
    firn_hypercall_page as *const () as usize
}

/// Makes a hypercall through the page.
pub(crate) fn call(call: Hypercall) -> Status {
    hypercall::count_one();
    let registers = call.registers();
    let result: u64;
    // SAFETY: the page is ours or the hypervisor's, executable in both cases; it
    // returns, and changes the registers that are named here. What the call reads
    // is a page of the drivers, by its frame number. The stack is this
    // function's, without a red zone.
    unsafe {
        asm!("call {page}", page = sym firn_hypercall_page,
             inlateout("rcx") registers.rcx => _, inlateout("rdx") registers.rdx => _,
             inlateout("r8") registers.r8 => _, lateout("rax") result,
             lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    Status(result as u16)
}

/// Reads a synthetic MSR.
pub(crate) fn read_msr(number: Msr) -> u64 {
    msr::read(number.0)
}

/// Writes a synthetic MSR.
pub(crate) fn write_msr(number: Msr, value: u64) {
    // SAFETY: frames in it are pages that the drivers allocated to be shared, or
    // the hypercall page; the vectors in it have gates; the others change no
    // memory.
    unsafe { msr::write(number.0, value) };
}
