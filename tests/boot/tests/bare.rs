//! The ELF on an emulator without a hypervisor: what a person sees when there
//! is none, when memory is short, and when the kernel goes down.

use std::path::Path;

use anyhow::{Result, ensure};
use firn_boot_tests::{Bench, Emulator, Said, monitor};
use firn_lab::Cache;

/// Boots `elf` by PVH.
fn boot(elf: &Path, memory: &str, cmdline: &str) -> Result<Said> {
    let elf = elf.to_string_lossy();
    Emulator::new()?.run([
        "-M", "q35", "-m", memory, "-append", cmdline, "-kernel", &elf,
    ])
}

/// Boots the built ELF and checks that it crashed and said all of `words`.
fn says(memory: &str, cmdline: &str, words: &[&str]) -> Result<()> {
    says_as(&Bench::elf(), memory, cmdline, words)
}

fn says_as(elf: &Path, memory: &str, cmdline: &str, words: &[&str]) -> Result<()> {
    let Said { early: text, code } = boot(elf, memory, cmdline)?;
    for word in words {
        ensure!(text.contains(word), "no '{word}' in:\n{text}");
    }
    ensure!(code == Emulator::CRASHED, "exit code {code} after:\n{text}");
    Ok(())
}

#[test]
fn an_unknown_hypervisor_is_named() -> Result<()> {
    let words = ["entered by PVH", "'TCGTCGTCGTCG'", "firn drives only Xen"];
    says("64", "log=info -- disks", &words)
}

#[test]
fn an_unknown_option_is_named_and_skipped() -> Result<()> {
    let words = [
        "option 'colour=red' is unknown and ignored",
        "firn drives only Xen",
    ];
    says("64", "colour=red", &words)
}

#[test]
fn too_little_memory_is_named_with_the_remedy() -> Result<()> {
    says("8", "", &["too little memory", "at least 32 MiB"])
}

#[test]
fn a_panic_tells_where() -> Result<()> {
    let words = [
        "PANIC: panicked at kernel/src/",
        "provoked by the command line",
    ];
    says("64", "provoke=panic", &words)
}

#[test]
fn a_full_memory_is_told_with_its_size_and_the_remedy() -> Result<()> {
    let words = [
        "PANIC: panicked at ",
        "memory allocation of ",
        "job memory is full: ",
        " MiB; give the guest more memory",
    ];
    says("64", "provoke=heap", &words)
}

#[test]
fn a_null_pointer_is_dumped_with_a_hint() -> Result<()> {
    let words = [
        "EXCEPTION 14 (page fault)",
        "reading address 0x0, which is not mapped",
        "hint: a null pointer was followed",
        "backtrace",
    ];
    says("64", "provoke=null", &words)
}

#[test]
fn a_stack_overflow_hits_the_guard_page() -> Result<()> {
    let words = [
        "EXCEPTION 14 (page fault)",
        "hint: a stack overflowed into its guard page",
    ];
    says("64", "provoke=stack", &words)
}

#[test]
fn an_invalid_opcode_is_dumped() -> Result<()> {
    let words = ["EXCEPTION 6 (invalid opcode)", "rip ffffffff8"];
    says("64", "provoke=opcode", &words)
}

/// A monitor that starts ELF files by the Linux protocol gets just as far.
#[test]
fn the_linux_entry_reads_the_zero_page() -> Result<()> {
    let folder = Cache::open()?.run_folder()?;
    let elf = monitor::wrap(&Bench::elf(), &folder)?;
    let words = [
        "option 'colour=red' is unknown",
        "entered by Linux's 64-bit entry",
        "firn drives only Xen",
    ];
    says_as(&elf, "96", "colour=red -- disks", &words)
}
