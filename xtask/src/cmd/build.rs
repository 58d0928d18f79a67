//! `cargo xtask build`: the bootable ELF, linked and checked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use duct::cmd;

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
];

/// The built files.
pub(crate) struct Elf {
    pub(crate) stripped: PathBuf,
    pub(crate) debug: PathBuf,
}

pub(crate) fn run(_args: &Args) -> Result<()> {
    let elf = build()?;
    let report = elf::check(&elf.stripped, &elf.debug)?;
    println!(
        "{}: {} bytes, PVH entry {:#x}, {} instructions without AVX, \
         no red zone in our own code ({} prebuilt functions use one)",
        elf.stripped.display(),
        report.size,
        report.pvh_entry,
        report.instructions,
        report.allowed
    );
    Ok(())
}

/// Compiles and links the ELF; does not check it.
pub(crate) fn build() -> Result<Elf> {
    let root = workspace::root();
    let target = workspace::target();
    let status = cmd!(
        workspace::cargo(),
        "build",
        "--package=firn-boot",
        "--profile=kernel",
        format!("--target={TARGET}"),
        "--target-dir",
        target.join("kernel")
    )
    .dir(&root)
    .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
    .env_remove("RUSTFLAGS")
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
