//! The bootable ELF of firn: entry points, linker script, early page tables.
//!
//! Everything else is `firn_kernel`. Built for a bare machine by
//! `cargo xtask build` (`cfg(firn_bare)`, see `README.md`); an ordinary build
//! makes a host program that says so, which keeps `clippy` and `doc` working
//! for the whole workspace.

#![cfg_attr(firn_bare, no_std, no_main)]

/// The bare-metal half: assembler entry points that call [`bare::firn_start`].
#[cfg(firn_bare)]
#[expect(
    unsafe_code,
    reason = "entry points are assembler and exported symbols"
)]
mod bare {
    use firn_kernel::bootinfo::EntryKind;

    core::arch::global_asm!(include_str!("entry.s"));

    /// Where the assembler entry points end: on the boot stack, in long mode,
    /// interrupts off. `info` is the physical address of what the monitor
    /// handed over (hvm_start_info, the zero page or Multiboot2's tags), `tsc` the time stamp
    /// counter at the first instruction.
    // SAFETY: the only definition of this symbol in the image.
    #[unsafe(no_mangle)]
    extern "C" fn firn_start(kind: u32, info: u64, tsc: u64) -> ! {
        let kind = match kind {
            1 => EntryKind::Pvh,
            2 => EntryKind::Linux,
            _ => EntryKind::Multiboot2,
        };
        firn_kernel::start(kind, info, tsc)
    }
}

#[cfg(not(firn_bare))]
fn main() {
    eprintln!("firn boots on a bare machine; build it with `cargo xtask build`");
    std::process::exit(2);
}
