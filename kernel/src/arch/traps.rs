//! Interrupt descriptor table: a dump for exceptions, and an end for interrupts.
//!
//! `x86-interrupt` functions are not in stable Rust, so the entry points are
//! assembler stubs. Those of exceptions, 16 bytes each, save all general registers
//! and never return. Interrupts come during [`halt`] alone, which no host but
//! Hyper-V asks for ([ADR 2](../../../docs/adr/0002-interrupts.md), ADR 15); all of
//! them share one stub, which runs no Rust.

mod dump;
mod interrupts;

pub(crate) use interrupts::{SPURIOUS, TIMER, VMBUS, end_by_memory, end_by_msr, halt, take_timer};

use core::cell::UnsafeCell;
use core::mem::size_of;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::structures::DescriptorTablePointer;

const EXCEPTIONS: usize = 32;
const VECTORS: usize = 256;
const STUB_BYTES: u64 = 16;
/// Vectors for which the CPU pushes an error code: 8, 10 to 14, 17, 21, 29, 30.
const WITH_ERROR_CODE: u32 = 0x6022_7d00;

/// The registers at an exception, in the order that the stub pushes them.
#[repr(C)]
pub(super) struct Frame {
    /// R15 down to RAX.
    pub(super) registers: [u64; 15],
    pub(super) vector: u64,
    pub(super) error: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

core::arch::global_asm!(
    r#"
.section .text.traps, "ax", @progbits
.balign 16
firn_trap_stubs:
.set vector, 0
.rept 32
    .balign 16
    .if (({with_error} >> vector) & 1) == 0
    push 0
    .endif
    push vector
    jmp firn_exception
    .set vector, vector + 1
.endr
.balign 16

firn_exception:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    and rsp, -16               // aligned already, unless what came was no exception
    cld
    call {exception}
    ud2
"#,
    with_error = const WITH_ERROR_CODE,
    exception = sym exception,
);

unsafe extern "C" {
    safe fn firn_trap_stubs();
}

/// Where every exception ends: a dump on the console, then a crash shutdown.
extern "C" fn exception(frame: &Frame) -> ! {
    dump::print(frame);
    crate::power::crash()
}

/// One gate: the address of its stub, and its interrupt stack if it has one.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate([u64; 2]);

impl Gate {
    /// A 64-bit interrupt gate (IF off while it runs) on stack `ist` (1 to 3).
    fn new(handler: u64, code_selector: u16, ist: u64) -> Self {
        let low = handler & 0xffff
            | u64::from(code_selector) << 16
            | ist << 32
            | 0x8e << 40
            | (handler >> 16 & 0xffff) << 48;
        Self([low, handler >> 32])
    }
}

struct Table(UnsafeCell<[Gate; VECTORS]>);

// SAFETY: written once by `load`, before it is loaded; only the CPU reads it.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([Gate([0; 2]); VECTORS]));

/// Which interrupt stack an exception runs on, see [`super::stacks`]. None nests
/// on its own: exceptions do not return.
fn stack_of(vector: usize) -> u64 {
    match vector {
        2 => 2,
        8 | 18 => 3,
        _ => 1,
    }
}

/// Fills and loads the table. Call once, with interrupts off.
pub(super) fn load() {
    let stubs = firn_trap_stubs as *const () as u64;
    let code = CS::get_reg().0;
    let gate = |v: usize| match v {
        0..EXCEPTIONS => Gate::new(stubs + v as u64 * STUB_BYTES, code, stack_of(v)),
        // On the stack of whoever halts, who has no red zone.
        _ => Gate::new(interrupts::stub(v), code, 0),
    };
    let pointer = DescriptorTablePointer {
        limit: (size_of::<[Gate; VECTORS]>() - 1) as u16,
        base: VirtAddr::new(TABLE.0.get() as u64),
    };
    // SAFETY: nobody else has the table yet, and it is static; every gate leads
    // to a stub in our text, those of exceptions on a stack that `segments` put in
    // the TSS.
    unsafe {
        *TABLE.0.get() = core::array::from_fn(gate);
        x86_64::instructions::tables::lidt(&pointer);
    }
}
