//! Stacks: the boot CPU's own, and one per interrupt stack table slot.
//!
//! Each begins with a guard page that `mm` leaves unmapped, so that an
//! overflow is a page fault (on a stack of its own) and not silent damage.

use core::cell::UnsafeCell;
use core::ops::Range;

/// Bytes of the guard page at the low end of every stack.
pub const GUARD_BYTES: usize = 4096;

/// A guard page with a stack of `N` bytes above it.
#[repr(C, align(4096))]
pub(super) struct Stack<const N: usize> {
    guard: UnsafeCell<[u8; GUARD_BYTES]>,
    bytes: UnsafeCell<[u8; N]>,
}

// SAFETY: no Rust code refers to the contents; only stack pointers lead here,
// and each stack belongs to one CPU and one interrupt stack table slot.
unsafe impl<const N: usize> Sync for Stack<N> {}

impl<const N: usize> Stack<N> {
    const fn new() -> Self {
        Self {
            guard: UnsafeCell::new([0; GUARD_BYTES]),
            bytes: UnsafeCell::new([0; N]),
        }
    }

    /// The address just above the stack: what a stack pointer starts at.
    pub(super) fn top(&'static self) -> u64 {
        self.bytes.get() as u64 + N as u64
    }

    fn guard(&'static self) -> u64 {
        self.guard.get() as u64
    }
}

const BOOT_BYTES: usize = 128 << 10;
const IST_BYTES: usize = 16 << 10;

// SAFETY: the section is zeroed memory, and the name is the one that the entry
// code refers to.
#[unsafe(link_section = ".bss.stacks")]
// SAFETY: nothing else has this name.
#[unsafe(export_name = "firn_boot_stack")]
static BOOT: Stack<BOOT_BYTES> = Stack::new();

/// Interrupt stack table: 1 exceptions, 2 NMI, 3 #DF and #MC. One slot never
/// nests: interrupts are off on all of them, and exceptions do not return.
// SAFETY: the section is zeroed memory.
#[unsafe(link_section = ".bss.stacks")]
pub(super) static IST: [Stack<IST_BYTES>; 3] = [Stack::new(), Stack::new(), Stack::new()];

core::arch::global_asm!(
    ".global firn_boot_stack_top",
    ".set firn_boot_stack_top, firn_boot_stack + {size}",
    size = const BOOT_BYTES + GUARD_BYTES,
);

/// Addresses of all guard pages.
pub fn guards() -> [u64; 4] {
    [BOOT.guard(), IST[0].guard(), IST[1].guard(), IST[2].guard()]
}

/// Whether `addr` lies in a guard page: a fault there is a stack overflow.
pub fn is_guard(addr: u64) -> bool {
    guards()
        .iter()
        .any(|&g| (g..g + GUARD_BYTES as u64).contains(&addr))
}

/// The addresses of all stacks together, guards included.
pub fn range() -> Range<u64> {
    let last = &IST[IST.len() - 1];
    BOOT.guard().min(IST[0].guard())..BOOT.top().max(last.top())
}
