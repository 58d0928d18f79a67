//! Port I/O: the debug port and exit device of emulators, COM1, what ACPI names.

use core::arch::asm;

use uart_16550::{Uart16550, backend::PioBackend};

/// Writes one byte to port 0xE9, which Xen, QEMU (`-debugcon`) and Bochs show
/// as text; on other machines nobody listens.
pub fn debug_byte(byte: u8) {
    out8(0xe9, byte);
}

/// Asks QEMU's `isa-debug-exit` device, if there is one, to end the machine
/// with exit code `code * 2 + 1`.
pub fn debug_exit(code: u8) {
    out8(0xf4, code);
}

/// Writes a byte to a port: one of those above, of an interrupt controller, or
/// one by which the machine is switched off.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: none of these ports has an effect on memory, and none any at all on
    // machines without these devices.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Writes a word to a port by which the machine is switched off.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

/// Reads a word from such a port.
pub(crate) fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack)) };
    value
}

/// The 16550 UART at `base`; whether one is there, `init` on it finds out.
pub fn com1(base: u16) -> Option<Uart16550<PioBackend>> {
    // SAFETY: the eight ports from COM1's base are a UART or nothing on every
    // PC-like machine, and the console is the only user.
    unsafe { Uart16550::new_port(base) }.ok()
}
