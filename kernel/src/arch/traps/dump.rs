//! The exception dump: what happened, where, and a hint, for a person.

use core::fmt::{self, Write};

use x86_64::registers::control::Cr2;

use super::super::stacks;
use super::Frame;
use crate::console;

const PAGE_FAULT: u64 = 14;
const BACKTRACE_MAX: usize = 24;

/// Names of vectors 0 to 21, and 28 to 30 apart (Intel SDM vol. 3, 6.3.1).
fn name(vector: u64) -> &'static str {
    const NAMES: [&str; 22] = [
        "divide error",
        "debug",
        "non-maskable interrupt",
        "breakpoint",
        "overflow",
        "bound range",
        "invalid opcode",
        "no FPU",
        "double fault",
        "coprocessor overrun",
        "invalid TSS",
        "segment not present",
        "stack segment fault",
        "general protection fault",
        "page fault",
        "reserved",
        "x87 error",
        "alignment check",
        "machine check",
        "SIMD error",
        "virtualization exception",
        "control protection",
    ];
    usize::try_from(vector)
        .ok()
        .and_then(|v| NAMES.get(v))
        .unwrap_or(&"reserved")
}

/// Prints the dump to every console that may still work.
pub(super) fn print(frame: &Frame) {
    // Writing to the emergency console cannot fail.
    let _ = write_dump(&mut console::Emergency, frame);
}

fn write_dump(out: &mut impl Write, frame: &Frame) -> fmt::Result {
    let (vector, error) = (frame.vector, frame.error);
    writeln!(
        out,
        "\nEXCEPTION {vector} ({}), error code {error:#x}",
        name(vector)
    )?;
    if vector == PAGE_FAULT {
        write_page_fault(out, error)?;
    }
    writeln!(
        out,
        "  rip {:016x}  rsp {:016x}  rflags {:x}",
        frame.rip, frame.rsp, frame.rflags
    )?;
    const ORDER: [&str; 15] = [
        "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi", "rbp", "rbx", "rdx",
        "rcx", "rax",
    ];
    for row in 0..5 {
        for column in 0..3 {
            let i = 14 - (row * 3 + column);
            write!(out, "  {:>3} {:016x}", ORDER[i], frame.registers[i])?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "  backtrace (resolve with: addr2line -fCie target/firn.debug.elf ADDRESS):"
    )?;
    writeln!(out, "    {:#018x}", frame.rip)?;
    write_backtrace(out, frame.registers[10])
}

fn write_page_fault(out: &mut impl Write, error: u64) -> fmt::Result {
    let addr = Cr2::read_raw();
    let did = match (error & 16 != 0, error & 2 != 0) {
        (true, _) => "executing",
        (_, true) => "writing",
        _ => "reading",
    };
    let page = if error & 1 != 0 {
        "which is mapped but forbids it"
    } else {
        "which is not mapped"
    };
    writeln!(out, "  {did} address {addr:#x}, {page}")?;
    let hint = match addr {
        _ if stacks::is_guard(addr) => "a stack overflowed into its guard page",
        0..0x1000 => "a null pointer was followed",
        _ => return Ok(()),
    };
    writeln!(out, "  hint: {hint}")
}

/// Follows frame pointers as long as they stay on our stacks and go up.
fn write_backtrace(out: &mut impl Write, mut frame_pointer: u64) -> fmt::Result {
    for _ in 0..BACKTRACE_MAX {
        let Some((caller, return_address)) = stack_frame(frame_pointer) else {
            return Ok(());
        };
        writeln!(out, "    {return_address:#018x}")?;
        if caller <= frame_pointer {
            return Ok(());
        }
        frame_pointer = caller;
    }
    Ok(())
}

/// The saved frame pointer and return address at `frame_pointer`.
fn stack_frame(frame_pointer: u64) -> Option<(u64, u64)> {
    let stacks = stacks::range();
    let inside = stacks.contains(&frame_pointer) && stacks.contains(&(frame_pointer + 15));
    if !inside || !frame_pointer.is_multiple_of(8) || stacks::is_guard(frame_pointer) {
        return None;
    }
    let words = frame_pointer as *const [u64; 2];
    // SAFETY: aligned, and inside the stacks, which are mapped except for
    // their guard pages; whatever is there is read as plain words.
    let [caller, return_address] = unsafe { words.read() };
    (return_address != 0).then_some((caller, return_address))
}
