//! The disk as a file of one of three formats.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use firn_lab::Packages;

/// What a file of a disk looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// The bytes and a footer of 512 bytes: a fixed VHD, as Azure wants it. The
    /// disk is a whole number of MiB.
    Vhd,
    /// VHDX, only as large as what is in it.
    Vhdx,
}

impl Format {
    /// How such files are usually called.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Raw => "img",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
        }
    }

    /// QEMU's name of it.
    #[must_use]
    pub fn driver(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
        }
    }

    /// What `qemu-img` is told about a new file.
    fn options(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            // Without `force_size` the size would be rounded to cylinders.
            Self::Vhd => Some("subformat=fixed,force_size=on"),
            Self::Vhdx => Some("subformat=dynamic"),
        }
    }
}

/// Writes the bytes of a disk to the file `out`, in place of what is there.
///
/// # Errors
/// The file cannot be written, or `qemu-img` fails.
pub fn save(tools: &Packages, disk: &[u8], format: Format, out: &Path) -> Result<()> {
    let Some(options) = format.options() else {
        return fs::write(out, disk).with_context(|| out.display().to_string());
    };
    // A plain name could be taken for a protocol's.
    let out = std::path::absolute(out)?;
    let raw = tempfile::NamedTempFile::new()?;
    fs::write(raw.path(), disk)?;
    let (from, to) = (raw.path().to_string_lossy(), out.to_string_lossy());
    let mut args = vec!["convert", "-f", "raw", "-O", format.driver(), "-o", options];
    args.extend(["--", &*from, &*to]);
    tools.run("usr/bin/qemu-img", &args)?;
    Ok(())
}
