//! Checks of the linked ELF. Each is a function of the file's bytes, so that
//! tests can feed it broken ones.

mod code;
mod layout;
#[cfg(test)]
mod sample;

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

/// The stripped ELF must stay below this many bytes.
const MAX_SIZE: usize = 1 << 20;

/// What the checks found out, for the person who built it.
pub(crate) struct Report {
    pub(crate) size: usize,
    pub(crate) pvh_entry: u64,
    pub(crate) multiboot2_entry: u64,
    pub(crate) instructions: usize,
    /// Prebuilt functions that use the red zone.
    pub(crate) allowed: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes, entries: PVH {:#x}, Multiboot2 {:#x}; {} instructions without AVX, \
             no red zone in our own code ({} prebuilt functions use one)",
            self.size, self.pvh_entry, self.multiboot2_entry, self.instructions, self.allowed
        )
    }
}

/// The result of each check, by name.
type Results = Vec<(&'static str, Result<()>)>;

/// Runs every check on the stripped and on the unstripped file.
pub(crate) fn checks(stripped: &Path, debug: &Path) -> Result<Results> {
    let (small, full) = (read(stripped)?, read(debug)?);
    Ok(vec![
        ("size", size(&small)),
        ("PVH note", layout::pvh_entry(&small).map(drop)),
        (
            "Multiboot2 header",
            layout::multiboot2_entry(&small).map(drop),
        ),
        ("entry point", layout::entry(&small)),
        ("static link", layout::is_static(&small)),
        ("code", code::check(&full).map(drop)),
    ])
}

/// Runs every check; an error lists all that failed.
pub(crate) fn check(stripped: &Path, debug: &Path) -> Result<Report> {
    let results = checks(stripped, debug)?.into_iter();
    let failed: Vec<_> = results
        .filter_map(|(name, result)| Some(format!("{name}: {:#}", result.err()?)))
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} fails its checks:\n{}",
            stripped.display(),
            failed.join("\n")
        );
    }
    let (small, full) = (read(stripped)?, read(debug)?);
    let code = code::check(&full)?;
    Ok(Report {
        size: small.len(),
        pvh_entry: layout::pvh_entry(&small)?,
        multiboot2_entry: layout::multiboot2_entry(&small)?,
        instructions: code.instructions,
        allowed: code.allowed,
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

fn size(file: &[u8]) -> Result<()> {
    if file.len() >= MAX_SIZE {
        bail!("{} bytes; the limit is {MAX_SIZE}", file.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_mebibyte_is_too_large() {
        assert!(size(&vec![0; MAX_SIZE - 1]).is_ok());
        assert!(size(&vec![0; MAX_SIZE]).is_err());
    }
}
