//! Halting until something happens: the only place where interrupts are on.

use core::arch::asm;

/// Halts until an interrupt arrives, takes it, and returns with interrupts
/// off again.
///
/// The caller looks for work *before* the call with interrupts off. An event
/// that comes in between stays pending and is taken in the shadow of `sti`,
/// which ends the `hlt` at once: none is lost.
pub fn halt() {
    // SAFETY: interrupt handlers (`traps`) touch nothing but their counters
    // and the saved RFLAGS. They run on this stack, which is as a call would
    // want it: the block does not promise `nostack`. They return with IF clear,
    // so that a level-triggered upcall is taken once and not for ever.
    unsafe { asm!("sti", "hlt", "cli") };
}
