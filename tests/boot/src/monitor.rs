//! A monitor that starts an ELF file by the Linux 64-bit boot protocol.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use firn_lab::RunFolder;

/// Builds, in `folder`, an ELF file that any PVH host can boot and that starts
/// `elf` by its `e_entry` with a zero page (`monitor/monitor.s`).
///
/// # Errors
/// There is no C compiler, or it refuses.
pub fn wrap(elf: &Path, folder: &RunFolder) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitor");
    let wrapped = folder.path("monitor.elf");
    let guest = folder.path("guest.elf");
    std::fs::copy(elf, &guest).with_context(|| format!("no {}: build it first", elf.display()))?;
    let include = guest.parent().context("the folder has a path")?;
    let status = Command::new("cc")
        .args([
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none,--no-warn-rwx-segments",
        ])
        .arg("-Wl,-z,max-page-size=4096")
        .arg(format!("-Wl,-T,{}", source.join("monitor.ld").display()))
        .arg(format!("-Wa,-I,{}", include.display()))
        .arg("-o")
        .arg(&wrapped)
        .arg(source.join("monitor.s"))
        .status()
        .context("cannot start cc")?;
    ensure!(status.success(), "cc could not build the monitor");
    Ok(wrapped)
}
