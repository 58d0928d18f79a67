//! A boot medium: the disk file that `cargo xtask image build` writes, raw, VHD or
//! VHDX, read as GRUB reads it. It is never written.

mod grub;
mod vhdx;
mod window;

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fatfs::{FileSystem, FsOptions};
use firn_peers::{Backing, Disk};
use gpt::{GptConfig, partition_types};

use window::Window;

const SECTOR: u64 = 512;
/// At the end of a VHD: a sector that begins with this, big-endian.
const FOOTER: &[u8] = b"conectix";
const FOOTER_SIZE: Range<usize> = 48..56;
const FOOTER_KIND: Range<usize> = 60..64;
/// The kind of a VHD that is all there, in order.
const FIXED: [u8; 4] = 2u32.to_be_bytes();
/// Where GRUB looks for its configuration, on the EFI system partition.
const CONFIG: &str = "firn/grub.cfg";
/// No kernel or configuration of ours is larger.
const MOST_BYTES: u64 = 64 << 20;

/// A disk that is in a file.
#[derive(Debug)]
pub struct Medium {
    file: File,
    bytes: u64,
    /// Where its blocks are in the file, if not in order.
    blocks: Option<vhdx::Blocks>,
}

/// What a medium starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The kernel's file.
    pub kernel: Vec<u8>,
    /// Its command line.
    pub cmdline: String,
}

impl Medium {
    /// Opens a medium of any of the three formats.
    ///
    /// # Errors
    /// There is no such file, or it is a VHD or VHDX that no `image build` writes.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = || path.display().to_string();
        Self::of(File::open(path).with_context(shown)?).with_context(shown)
    }

    fn of(file: File) -> Result<Self> {
        let length = file.metadata()?.len();
        if let Some((bytes, blocks)) = vhdx::read(&file)? {
            let blocks = Some(blocks);
            return Ok(Self {
                file,
                bytes,
                blocks,
            });
        }
        let mut footer = [0; SECTOR as usize];
        let body = length.saturating_sub(SECTOR);
        file.read_exact_at(&mut footer, body)
            .context("no whole sector")?;
        let bytes = match footer.starts_with(FOOTER) {
            false => length,
            true => {
                ensure!(
                    footer[FOOTER_KIND] == FIXED && footer[FOOTER_SIZE] == body.to_be_bytes(),
                    "a VHD, but not a fixed one of {body} bytes"
                );
                body
            }
        };
        ensure!(
            bytes.is_multiple_of(SECTOR),
            "{bytes} bytes are no whole sectors"
        );
        let blocks = None;
        Ok(Self {
            file,
            bytes,
            blocks,
        })
    }

    /// Fills `to` from offset `at` on.
    ///
    /// # Errors
    /// The medium ends before, or what the file says.
    fn read_at(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(to.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.blocks {
            None => self.file.read_exact_at(to, at),
            Some(blocks) => blocks.read_at(&self.file, at, to),
        }
    }

    /// What GRUB would start, and with which command line.
    ///
    /// # Errors
    /// No partition table, file system, configuration or kernel, or one that GRUB
    /// would take otherwise.
    pub fn start(&self) -> Result<Start> {
        let disk = Window::new(self, 0..self.bytes);
        let table = GptConfig::new()
            .open_from_device(disk)
            .context("no partition table")?;
        let parts = table.partitions();
        let system = parts
            .values()
            .find(|part| part.part_type_guid == partition_types::EFI)
            .context("no EFI system partition")?;
        let bytes = |sector: u64| sector.saturating_mul(SECTOR);
        let range = bytes(system.first_lba)..bytes(system.last_lba.saturating_add(1));
        let system = FileSystem::new(Window::new(self, range), FsOptions::new())
            .context("no FAT file system")?;
        let root = system.root_dir();
        let file = |name: &str| {
            let mut content = Vec::new();
            let file = root.open_file(name).with_context(|| name.to_owned())?;
            file.take(MOST_BYTES).read_to_end(&mut content)?;
            anyhow::Ok(content)
        };
        let config = String::from_utf8(file(CONFIG)?).context(CONFIG)?;
        let wanted = grub::parse(&config).context(CONFIG)?;
        Ok(Start {
            kernel: file(wanted.kernel.trim_start_matches('/'))?,
            cmdline: wanted.cmdline,
        })
    }

    /// The medium as a disk of the guest's, to be read only.
    #[must_use]
    pub fn disk(self) -> Disk {
        Disk::over(self.bytes / SECTOR, self)
    }
}

impl Backing for Medium {
    fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()> {
        self.read_at(sector * SECTOR, to)
    }

    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests;
