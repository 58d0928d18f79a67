//! Halting until an interrupt comes, where the hypervisor knows no other way.
//!
//! Interrupts are let in for one instruction. What is pending by then ends the
//! halt at once; the processor keeps an interrupt back between `sti` and the
//! instruction after it. A processor that does not (emulated ones were seen) comes
//! back to the halt with its reason gone: the stub then steps over it.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The vector of the hypervisor's messages and events.
pub(crate) const VMBUS: u8 = 0x30;
/// The vector of the local timer.
pub(crate) const TIMER: u8 = 0x31;
/// The vector of nothing: what was to come had gone.
pub(crate) const SPURIOUS: u8 = 0xff;

/// The register that ends an interrupt: its address, or else its MSR.
static END_ADDRESS: AtomicU64 = AtomicU64::new(0);
static END_MSR: AtomicU32 = AtomicU32::new(0);
/// The timer has interrupted.
static TIMER_FIRED: AtomicU8 = AtomicU8::new(0);

core::arch::global_asm!(
    r#"
.section .text.interrupts, "ax", @progbits
.global firn_timer_interrupt, firn_interrupt, firn_halt
.balign 16
firn_timer_interrupt:
    mov byte ptr [rip + {fired}], 1
firn_interrupt:
    push rax
    push rcx
    push rdx
    mov rax, [rsp + 24]        // where it came
    cmp rax, offset firn_halting
    jne 2f
    inc qword ptr [rsp + 24]   // the halt has one byte
2:  mov rcx, [rip + {address}]
    xor eax, eax
    xor edx, edx
    test rcx, rcx
    jz 3f
    mov [rcx], eax
    jmp 4f
3:  mov ecx, [rip + {msr}]
    test ecx, ecx
    jz 4f
    wrmsr
4:  pop rdx
    pop rcx
    pop rax
    iretq

.balign 16
firn_halt:
    sti
firn_halting:
    hlt
    cli
    ret
"#,
    fired = sym TIMER_FIRED,
    address = sym END_ADDRESS,
    msr = sym END_MSR,
);

unsafe extern "C" {
    safe fn firn_interrupt();
    safe fn firn_timer_interrupt();
    safe fn firn_halt();
}

/// The stub for a vector above the exceptions'.
pub(super) fn stub(vector: usize) -> u64 {
    let stub: extern "C" fn() = match vector == usize::from(TIMER) {
        true => firn_timer_interrupt,
        false => firn_interrupt,
    };
    stub as *const () as u64
}

/// Interrupts are ended by writing zero to an MSR.
pub(crate) fn end_by_msr(msr: u32) {
    END_MSR.store(msr, Relaxed);
}

/// Interrupts are ended by writing zero to an address.
pub(crate) fn end_by_memory(address: u64) {
    END_ADDRESS.store(address, Relaxed);
}

/// Halts until an interrupt comes, or not at all if one is pending.
pub(crate) fn halt() {
    firn_halt();
}

/// Whether the timer has interrupted since this was last asked.
pub(crate) fn take_timer() -> bool {
    // One CPU, and no interrupt comes between the two.
    let fired = TIMER_FIRED.load(Relaxed) != 0;
    TIMER_FIRED.store(0, Relaxed);
    fired
}
