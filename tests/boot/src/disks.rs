//! Disk files for guests: files of a person's own, or fresh ones.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use firn_lab::{Host, RunFolder};

/// Disks are called `xvda` to `xvdp`, or `sda` to `sdp`.
const MAX_DISKS: usize = 16;

/// What `--disk` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskArg {
    /// A fresh, empty disk of so many bytes.
    Size(u64),
    /// A raw disk file.
    File(PathBuf),
}

impl FromStr for DiskArg {
    type Err = anyhow::Error;

    /// A number with `k`, `M`, `G` (or `K`, `m`, `g`) is a size; anything
    /// else is a path. A file called `64M` is `./64M`.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" => 0,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            _ => return Ok(Self::File(text.into())),
        };
        let Ok(count) = digits.parse::<u64>() else {
            return Ok(Self::File(text.into()));
        };
        let bytes = count.checked_mul(1 << shift);
        match bytes.filter(|b| *b > 0 && b.is_multiple_of(4096)) {
            Some(bytes) => Ok(Self::Size(bytes)),
            None => Err(anyhow!(
                "a disk of {text}: the size must be a multiple of 4096 bytes, such as 256M"
            )),
        }
    }
}

/// The disk files of a run, the first disk's first; fresh ones go into `folder`.
///
/// # Errors
/// A file is missing or too small, or there are more than 16.
pub fn files(args: &[DiskArg], folder: &RunFolder) -> Result<Vec<PathBuf>> {
    if args.len() > MAX_DISKS {
        bail!("{} disks; at most {MAX_DISKS}", args.len());
    }
    let file = |(number, arg): (usize, &DiskArg)| match arg {
        DiskArg::File(path) => {
            let size = std::fs::metadata(path).with_context(|| path.display().to_string())?;
            if size.len() < 512 {
                bail!("{}: too small for a disk", path.display());
            }
            Ok(path.clone())
        }
        DiskArg::Size(bytes) => {
            let path = folder.path(&format!("disk{number}.img"));
            File::create(&path)?.set_len(*bytes)?;
            Ok(path)
        }
    };
    args.iter().enumerate().map(file).collect()
}

/// A guest's name for its disk number `number` on such a host.
#[must_use]
pub fn vdev(host: Host, number: usize) -> String {
    let letter = ('a'..='p').nth(number).unwrap_or('p');
    match host {
        Host::HyperV | Host::OpenVmm => format!("sd{letter}"),
        Host::Xen | Host::Kvm => format!("xvd{letter}"),
    }
}

/// Inverts the byte at `offset` of a disk file, as failing hardware might.
///
/// # Errors
/// The file has no such byte, or cannot be written.
pub fn flip_byte(file: &Path, offset: u64) -> Result<()> {
    let disk = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, offset)
        .with_context(|| format!("{} has no byte {offset}", file.display()))?;
    byte[0] = !byte[0];
    disk.write_all_at(&byte, offset)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_files_are_told_apart() {
        let parse = |text: &str| text.parse::<DiskArg>();
        assert_eq!(parse("256M").unwrap(), DiskArg::Size(256 << 20));
        assert_eq!(parse("8k").unwrap(), DiskArg::Size(8192));
        assert_eq!(parse("1G").unwrap(), DiskArg::Size(1 << 30));
        for file in ["disk.img", "./64M", "64MB", "M", "/x/64M"] {
            assert_eq!(parse(file).unwrap(), DiskArg::File(file.into()));
        }
        for bad in ["0", "1", "0M", "99999999999G"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_flipped_byte_differs_and_flips_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1, 2, 3]).unwrap();
        flip_byte(file.path(), 1).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [1, 253, 3]);
        flip_byte(file.path(), 1).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [1, 2, 3]);
        assert!(flip_byte(file.path(), 3).is_err());
    }
}
