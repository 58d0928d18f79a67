//! Disks with the ELF under test.

use anyhow::{Context, Result};
use firn_boot_tests::Bench;
use firn_lab::{Cache, Packages};

/// The tools, and a disk that starts the ELF with this command line.
pub(crate) fn make(cmdline: &str) -> Result<(Packages, Vec<u8>)> {
    let tools = Packages::of_media(&Cache::open()?, &|step| eprintln!("media: {step}"))?;
    let path = Bench::elf();
    let elf =
        std::fs::read(&path).with_context(|| format!("no {}: build it first", path.display()))?;
    let disk = firn_media::disk(&tools, &elf, cmdline)?;
    Ok((tools, disk))
}
