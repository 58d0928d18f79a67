//! Disk files behind the units.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use firn_peers::Disk;
use rustix::fs::{FallocateFlags, OFlags, fallocate, ioctl_blksszget};
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::worker::{Medium, Worker};

const SECTOR: u64 = 512;
/// Bytes that are moved at once.
const CHUNK: usize = 64 * PAGE;
const PAGE: usize = 4096;

/// Memory that a device takes without a copy.
#[derive(Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A file (or block device) that is written past the cache, so that whoever reads
/// it from outside sees what the guest wrote.
struct DiskFile {
    file: File,
    buffer: Vec<Page>,
}

/// Opens a disk; with it the bytes of one of its sectors, which a file does not
/// know by itself. `wake` is called whenever something has ended that was begun.
///
/// # Errors
/// There is no such file, or it has no whole sectors.
pub fn open(
    path: &Path,
    read_only: bool,
    sector: Option<u32>,
    wake: impl Fn() + Clone + Send + 'static,
) -> Result<(Disk, u32)> {
    let shown = || path.display().to_string();
    let mut file = open_file(path, read_only).with_context(shown)?;
    let sector = match sector {
        Some(sector) => sector,
        None if file.metadata()?.file_type().is_block_device() => ioctl_blksszget(&file)?,
        None => SECTOR as u32,
    };
    let bytes = file.seek(SeekFrom::End(0)).with_context(shown)?;
    ensure!(
        matches!(sector, 512 | 4096),
        "{}: sectors of {sector} bytes; 512 and 4096 are known",
        shown()
    );
    ensure!(
        bytes > 0 && bytes.is_multiple_of(sector.into()),
        "{}: {bytes} bytes are no whole sectors of {sector}",
        shown()
    );
    let buffer = vec![Page([0; PAGE]); CHUNK / PAGE];
    let worker = Worker::start(DiskFile { file, buffer }, wake).with_context(shown)?;
    Ok((Disk::over(bytes / SECTOR, worker), sector))
}

/// Past the cache if the file system can do that with single sectors.
fn open_file(path: &Path, read_only: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(!read_only);
    let direct = options
        .clone()
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(path);
    if let Ok(file) = direct {
        let mut page = Page([0; PAGE]);
        let device = file.metadata()?.file_type().is_block_device();
        if device || file.read_at(&mut page.0[..SECTOR as usize], SECTOR).is_ok() {
            return Ok(file);
        }
    }
    options.open(path)
}

impl DiskFile {
    /// Visits the file in pieces: its buffer, where it is in the file, and where
    /// in the caller's data.
    fn pieces(
        &mut self,
        sector: u64,
        bytes: usize,
        mut visit: impl FnMut(&File, &mut [u8], u64, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        for done in (0..bytes).step_by(CHUNK) {
            let now = CHUNK.min(bytes - done);
            let buffer = &mut self.buffer.as_mut_slice().as_mut_bytes()[..now];
            visit(&self.file, buffer, sector * SECTOR + done as u64, done)?;
        }
        Ok(())
    }
}

impl Medium for DiskFile {
    fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()> {
        self.pieces(sector, to.len(), |file, buffer, at, done| {
            file.read_exact_at(buffer, at)?;
            to[done..done + buffer.len()].copy_from_slice(buffer);
            Ok(())
        })
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> io::Result<()> {
        self.pieces(sector, from.len(), |file, buffer, at, done| {
            buffer.copy_from_slice(&from[done..done + buffer.len()]);
            file.write_all_at(buffer, at)
        })
    }

    fn flusher(&self) -> io::Result<impl FnMut() -> io::Result<()> + Send + 'static> {
        let file = self.file.try_clone()?;
        Ok(move || file.sync_data())
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> io::Result<()> {
        if sectors == 0 {
            return Ok(());
        }
        let (at, bytes) = (sector * SECTOR, sectors * SECTOR);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, hole, at, bytes) {
            // What cannot be given back may stay: nobody is promised zeros.
            Err(Errno::OPNOTSUPP) => Ok(()),
            done => Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn open(path: &Path, read_only: bool, sector: Option<u32>) -> Result<(Disk, u32)> {
        super::open(path, read_only, sector, || ())
    }

    fn file(bytes: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_in_the_file() {
        let there = file(1 << 20);
        let (disk, sector) = open(there.path(), false, None).unwrap();
        assert_eq!((disk.capacity(), sector), (2048, 512));
        let data: Vec<u8> = (0..300_032u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
        disk.write(3, &data).unwrap();
        disk.flush().unwrap();
        let seen = std::fs::read(there.path()).unwrap();
        assert_eq!(seen[3 * 512..][..data.len()], data);
        assert_eq!(seen[..3 * 512], [0; 3 * 512]);
        let mut again = vec![0; data.len()];
        disk.read(3, &mut again).unwrap();
        assert_eq!(again, data);
    }

    #[test]
    fn what_is_discarded_is_given_back() {
        let there = file(1 << 20);
        let (disk, _) = open(there.path(), false, Some(4096)).unwrap();
        disk.write(0, &vec![1; 1 << 20]).unwrap();
        disk.flush().unwrap();
        let before = there.as_file().metadata().unwrap().blocks();
        disk.discard(8, 1024).unwrap();
        disk.flush().unwrap();
        let after = there.as_file().metadata().unwrap().blocks();
        assert!(after < before, "{after} of {before} blocks");
        let mut data = [7; 512];
        disk.read(8, &mut data).unwrap();
        assert_eq!(data, [0; 512]);
    }

    #[test]
    fn a_read_only_disk_is_not_written() {
        let there = file(8192);
        let (disk, _) = open(there.path(), true, None).unwrap();
        assert!(disk.write(0, &[1; 512]).is_err());
        assert_eq!(std::fs::read(there.path()).unwrap(), [0; 8192]);
    }

    #[test]
    fn odd_files_are_refused_by_name() {
        let refused = |bytes, sector| {
            let there = file(bytes);
            format!("{:#}", open(there.path(), false, sector).err().unwrap())
        };
        assert!(refused(0, None).contains("0 bytes are no whole sectors"));
        assert!(refused(512, Some(4096)).contains("no whole sectors of 4096"));
        assert!(refused(4096, Some(520)).contains("sectors of 520 bytes"));
        let missing = open(Path::new("/no/such"), false, None).err().unwrap();
        assert!(format!("{missing:#}").contains("/no/such"));
    }
}
