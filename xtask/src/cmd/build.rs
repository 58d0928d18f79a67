//! `cargo xtask build`: the bootable ELF, linked and checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use duct::{Expression, cmd};

use crate::elf;
use crate::workspace;

/// Builds the bootable ELF and checks the linked file.
///
/// Leaves `target/firn.elf` (stripped) and `target/firn.debug.elf`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// The triple of a plain installation; its prebuilt `core` is all we need.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the kernel is compiled; the linker's own options are in `boot/build.rs`.
const RUSTFLAGS: &[&str] = &[
    "--cfg=firn_bare",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-self-contained=no",
    "-Crelocation-model=static",
    "-Ccode-model=kernel",
    "-Cno-redzone=yes",
    "-Cforce-frame-pointers=yes",
    "-Cpanic=abort",
    // The kernel saves no AVX registers, so the ciphers must not look for AVX.
    "--cfg=chacha20_backend=\"sse2\"",
    "--cfg=poly1305_backend=\"soft\"",
];

/// The built files.
pub(crate) struct Elf {
    pub(crate) stripped: PathBuf,
    pub(crate) debug: PathBuf,
}

pub(crate) fn run(_args: &Args) -> Result<()> {
    let elf = build()?;
    let report = elf::check(&elf.stripped, &elf.debug)?;
    println!("{}: {report}", elf.stripped.display());
    Ok(())
}

/// A cargo command for the ELF's crate, with all that makes it bare.
pub(crate) fn bare(command: &str, more: &[&str]) -> Expression {
    let target_dir = workspace::target().join("kernel");
    let mut words = vec![command.to_owned()];
    words.extend(["--package=firn-boot".into(), "--profile=kernel".into()]);
    words.push(format!("--target={TARGET}"));
    words.push(format!("--target-dir={}", target_dir.display()));
    words.extend(more.iter().map(|w| (*w).to_owned()));
    cmd(workspace::cargo(), words)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
}

/// Compiles and links the ELF; does not check it.
pub(crate) fn build() -> Result<Elf> {
    let target = workspace::target();
    let status = bare("build", &[])
        .dir(workspace::root())
        .unchecked()
        .run()
        .context("cannot start cargo")?
        .status;
    ensure!(
        status.success(),
        "building the ELF failed; the reason is above"
    );
    let linked = target.join("kernel").join(TARGET).join("kernel/firn");
    let elf = Elf {
        stripped: target.join("firn.elf"),
        debug: target.join("firn.debug.elf"),
    };
    std::fs::copy(&linked, &elf.debug).with_context(|| linked.display().to_string())?;
    strip(&elf.debug, &elf.stripped)?;
    Ok(elf)
}

/// Strips with the toolchain's own tool.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let tool = objcopy()?;
    cmd!(&tool, "--strip-all", from, to)
        .run()
        .with_context(|| format!("{} --strip-all {}", tool.display(), from.display()))?;
    Ok(())
}

fn objcopy() -> Result<PathBuf> {
    let sysroot = cmd!("rustc", "--print=sysroot")
        .dir(workspace::root())
        .read()?;
    let libs = Path::new(sysroot.trim()).join("lib/rustlib");
    for entry in std::fs::read_dir(&libs).with_context(|| libs.display().to_string())? {
        let tool = entry?.path().join("bin/rust-objcopy");
        if tool.exists() {
            return Ok(tool);
        }
    }
    bail!(
        "no rust-objcopy under {}: is this a complete Rust toolchain?",
        libs.display()
    )
}
