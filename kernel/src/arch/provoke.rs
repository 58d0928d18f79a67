//! Faults on purpose, so that tests can look at what a person would see.

use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;
use core::hint::black_box;

use crate::cmdline::Fault;
use crate::mm::{self, Memory};

/// Goes down in the way asked for.
pub fn provoke(fault: Fault) -> ! {
    match fault {
        Fault::Panic => panic!("provoked by the command line"),
        // SAFETY: address 0 is not mapped, so the read faults and never
        // returns; a dump is what is wanted.
        Fault::Null => unsafe { asm!("mov rax, [0]", out("rax") _, options(nostack)) },
        // SAFETY: an invalid opcode traps and never returns.
        Fault::Opcode => unsafe { asm!("ud2", options(nostack)) },
        Fault::Stack => {
            black_box(descend(0));
        }
        Fault::Heap => {
            let _job = mm::enter(Memory::Job);
            let mut blocks = Vec::new();
            loop {
                blocks.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
    }
    unreachable!("the fault did not happen")
}

/// Recurses until the stack's guard page is hit.
#[expect(unconditional_recursion, reason = "overflowing the stack is the point")]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    descend(black_box(depth + 1)) + frame[0]
}
