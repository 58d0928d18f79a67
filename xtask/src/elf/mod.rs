//! Checks of the linked ELF. Each is a function of the file's bytes, so that
//! tests can feed it broken ones.

mod code;
mod layout;
#[cfg(test)]
mod sample;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The stripped ELF must stay below this many bytes.
const MAX_SIZE: usize = 1 << 20;

/// What the checks found out, for the person who built it.
pub(crate) struct Report {
    pub(crate) size: usize,
    pub(crate) pvh_entry: u64,
    pub(crate) instructions: usize,
    /// Prebuilt functions that use the red zone.
    pub(crate) allowed: usize,
}

/// One check by name, for counting and for messages.
type Check<'a> = (&'a str, Box<dyn Fn() -> Result<()> + 'a>);

/// Runs every check on the stripped and on the unstripped file.
pub(crate) fn check(stripped: &Path, debug: &Path) -> Result<Report> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let (small, full) = (read(stripped)?, read(debug)?);
    let checks: [Check<'_>; 5] = [
        ("size", Box::new(|| size(&small))),
        ("PVH note", Box::new(|| layout::pvh_entry(&small).map(drop))),
        ("entry point", Box::new(|| layout::entry(&small))),
        ("static link", Box::new(|| layout::is_static(&small))),
        ("code", Box::new(|| code::check(&full).map(drop))),
    ];
    let failed: Vec<_> = checks
        .iter()
        .filter_map(|(name, check)| Some(format!("{name}: {:#}", check().err()?)))
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} fails its checks:\n{}",
            stripped.display(),
            failed.join("\n")
        );
    }
    let code = code::check(&full)?;
    Ok(Report {
        size: small.len(),
        pvh_entry: layout::pvh_entry(&small)?,
        instructions: code.instructions,
        allowed: code.allowed,
    })
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
