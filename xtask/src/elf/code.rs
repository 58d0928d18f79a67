//! What the CPU sees: no AVX (the kernel saves no such registers), and no red
//! zone in our own code. Interrupts run on stacks of their own, so a red zone
//! would survive them; but code that must not rely on that is ours to keep
//! clean, and only the prebuilt `core` and `alloc` may use one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, EncodingKind, Instruction, OpKind, Register};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// At most so many findings are shown.
const SHOWN: usize = 10;

/// What was looked at.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) instructions: usize,
    pub(crate) allowed: usize,
}

/// Function names by address.
struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    fn at(&self, address: u64) -> &str {
        let before = self.0.range(..=address).next_back();
        before.map_or("(no symbol)", |(_, name)| name)
    }
}

/// Disassembles the 64-bit code of the unstripped file.
pub(crate) fn check(file: &[u8]) -> Result<Code> {
    let elf = object::File::parse(file)?;
    let functions = elf.symbols().filter(|s| s.kind() == SymbolKind::Text);
    let name = |s: &object::Symbol<'_, '_>| {
        let name = s.name().unwrap_or_default();
        format!("{:#}", rustc_demangle::demangle(name))
    };
    let symbols = Symbols(functions.map(|s| (s.address(), name(&s))).collect());
    ensure!(!symbols.0.is_empty(), "no symbols: is it stripped?");
    // `.boot` is assembler by hand, in part for 32-bit mode.
    let text = elf.section_by_name(".text").context("no section .text")?;
    scan(text.data()?, text.address(), &symbols)
}

fn scan(code: &[u8], address: u64, symbols: &Symbols) -> Result<Code> {
    let mut findings = BTreeSet::new();
    let mut allowed = BTreeSet::new();
    let mut instructions = 0;
    for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE).iter() {
        instructions += 1;
        let function = symbols.at(instruction.ip());
        if uses_avx(&instruction) {
            findings.insert(format!("AVX at {:#x} in {function}", instruction.ip()));
        }
        if uses_red_zone(&instruction) {
            if is_prebuilt(function) {
                allowed.insert(function);
            } else {
                findings.insert(format!("red zone used in {function}"));
            }
        }
    }
    if !findings.is_empty() {
        let shown: Vec<_> = findings.iter().take(SHOWN).cloned().collect();
        bail!("{} findings:\n  {}", findings.len(), shown.join("\n  "));
    }
    Ok(Code {
        instructions,
        allowed: allowed.len(),
    })
}

fn uses_avx(instruction: &Instruction) -> bool {
    matches!(
        instruction.code().encoding(),
        EncodingKind::VEX | EncodingKind::EVEX | EncodingKind::XOP
    )
}

/// Reads or writes memory below the stack pointer.
fn uses_red_zone(instruction: &Instruction) -> bool {
    let in_memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    in_memory
        && instruction.mnemonic() != iced_x86::Mnemonic::Lea
        && instruction.memory_base() == Register::RSP
        && instruction.memory_displacement64().cast_signed() < 0
}

/// Functions of the toolchain's own `core`, `alloc` and `compiler_builtins`,
/// compiled long before our flags were known.
fn is_prebuilt(function: &str) -> bool {
    let path = function.trim_start_matches(['<', '&']);
    ["core::", "alloc::", "compiler_builtins::"]
        .iter()
        .any(|krate| path.starts_with(krate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        Symbols(BTreeMap::from([
            (0x1000, "firn_kernel::start".to_owned()),
            (0x2000, "<core::fmt::Formatter>::pad".to_owned()),
        ]))
    }

    #[test]
    fn ordinary_code_passes() {
        // push rbp; mov rbp, rsp; mov [rsp+8], rax; lea rax, [rsp-8]; ret
        let code = b"\x55\x48\x89\xe5\x48\x89\x44\x24\x08\x48\x8d\x44\x24\xf8\xc3";
        assert_eq!(scan(code, 0x1000, &symbols()).unwrap().instructions, 5);
    }

    #[test]
    fn avx_is_found_anywhere() {
        // vxorps ymm0, ymm0, ymm0; vmovaps xmm1, xmm0 is VEX too
        for code in [&b"\xc5\xfc\x57\xc0"[..], b"\xc5\xf8\x28\xc8"] {
            let error = scan(code, 0x2000, &symbols()).unwrap_err().to_string();
            assert!(error.contains("AVX at 0x2000 in <core::fmt"), "{error}");
        }
    }

    #[test]
    fn the_red_zone_is_for_prebuilt_functions_only() {
        // mov [rsp-8], rax
        let code = b"\x48\x89\x44\x24\xf8";
        let error = scan(code, 0x1000, &symbols()).unwrap_err().to_string();
        assert!(
            error.contains("red zone used in firn_kernel::start"),
            "{error}"
        );
        assert_eq!(scan(code, 0x2000, &symbols()).unwrap().allowed, 1);
    }

    #[test]
    fn a_stripped_file_is_refused() {
        let file = crate::elf::sample::Sample::default().bytes();
        assert!(check(&file).unwrap_err().to_string().contains("stripped"));
    }
}
