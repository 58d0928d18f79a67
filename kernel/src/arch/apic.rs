//! The local interrupt controller: a timer, and the end of interrupts. Used where
//! interrupts are how the hypervisor ends a halt (docs/adr/0015-halting-on-hyper-v.md).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{cpu, msr, port, traps};
use crate::mm::BOOT_WINDOW;

/// The register that says where the controller is, and in which mode.
const BASE: u32 = 0x1b;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2: u64 = 1 << 10;
const BASE_ADDRESS: u64 = 0xf_ffff_f000;
/// Of leaf 1, ECX: there is the mode in which registers are MSRs.
const X2APIC: u32 = 1 << 21;
/// The first register in that mode.
const X2_FIRST: u32 = 0x800;

/// Registers, numbered as in that mode; in memory each has 16 bytes.
const TASK_PRIORITY: u32 = 0x08;
const END: u32 = 0x0b;
const SPURIOUS: u32 = 0x0f;
const LVT_TIMER: u32 = 0x32;
const LVT_LINT0: u32 = 0x35;
const TIMER_FROM: u32 = 0x38;
const TIMER_NOW: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3e;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const BY_ONE: u32 = 0b1011;

/// Where the registers lie in memory; zero in the other mode.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Turns the controller on. Nothing but its timer, and what the hypervisor sends
/// by it, interrupts from here on, and that only during [`traps::halt`].
pub(crate) fn init() {
    // The old controllers beside it would send their own vectors.
    port::out8(0x21, 0xff);
    port::out8(0xa1, 0xff);
    let base = msr::read(BASE);
    if cpu::cpuid(1)[2] & X2APIC != 0 {
        // SAFETY: the CPU has the mode; going there from either other is allowed,
        // in two steps where the controller was off.
        unsafe {
            msr::write(BASE, base | BASE_ENABLED);
            msr::write(BASE, base | BASE_ENABLED | BASE_X2);
        }
        traps::end_by_msr(X2_FIRST + END);
    } else {
        // SAFETY: as above; the address stays what it is.
        unsafe { msr::write(BASE, base | BASE_ENABLED) };
        let at = BOOT_WINDOW + (base & BASE_ADDRESS);
        REGISTERS.store(at, Relaxed);
        traps::end_by_memory(at + u64::from(END) * 16);
    }
    write(TASK_PRIORITY, 0);
    write(LVT_LINT0, MASKED);
    write(LVT_TIMER, MASKED);
    write(TIMER_DIVIDE, BY_ONE);
    write(SPURIOUS, SOFTWARE_ENABLE | u32::from(traps::SPURIOUS));
}

/// Has the timer interrupt after so many of its ticks.
pub(crate) fn set_timer(ticks: u32) {
    write(LVT_TIMER, traps::TIMER.into());
    write(TIMER_FROM, ticks.max(1));
}

/// Ticks of the timer while `work` runs, which takes less than all it has.
pub(crate) fn ticks_of(work: impl FnOnce()) -> u32 {
    write(LVT_TIMER, MASKED | u32::from(traps::TIMER));
    write(TIMER_FROM, u32::MAX);
    work();
    let left = read(TIMER_NOW);
    write(TIMER_FROM, 0);
    u32::MAX - left
}

fn read(register: u32) -> u32 {
    match REGISTERS.load(Relaxed) {
        0 => msr::read(X2_FIRST + register) as u32,
        at => {
            let at = (at + u64::from(register) * 16) as *const u32;
            // SAFETY: `init` found the controller's registers there; nothing
            // else is there, and the direct map has them.
            unsafe { at.read_volatile() }
        }
    }
}

fn write(register: u32, value: u32) {
    match REGISTERS.load(Relaxed) {
        // SAFETY: a register of the controller, which touches no memory; the
        // vectors that it sends have gates.
        0 => unsafe { msr::write(X2_FIRST + register, value.into()) },
        at => {
            let at = (at + u64::from(register) * 16) as *mut u32;
            // SAFETY: as in `read`, and as above.
            unsafe { at.write_volatile(value) }
        }
    }
}
