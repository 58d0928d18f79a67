//! Halting until something happens: the only place where interrupts are on.

core::arch::global_asm!(
    r#"
.section .text.idle, "ax", @progbits
firn_halt:
    sti
firn_halt_here:
    hlt
    cli
    ret
"#
);

unsafe extern "C" {
    fn firn_halt();
}

/// Halts until an interrupt arrives, takes it, and returns with interrupts
/// off again.
///
/// The caller looks for work *before* the call with interrupts off. An event
/// that comes in between stays pending and is taken in the shadow of `sti`,
/// which ends the `hlt` at once: none is lost. Should an interrupt be taken
/// before the `hlt` all the same (docs/adr/0002-interrupts.md), its handler
/// steps over it: with interrupts off it would never end.
pub fn halt() {
    // SAFETY: interrupt handlers (`traps`) touch nothing but their counters
    // and the saved RFLAGS and RIP. They run on this stack, below a call, so
    // no red zone is in use. They return with IF clear, so that a
    // level-triggered upcall is taken once and not for ever.
    unsafe { firn_halt() };
}
