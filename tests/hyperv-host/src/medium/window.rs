//! A part of a medium as a stream, for who reads tables and file systems.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::Medium;

/// A range of a medium, and a place in it. Written by nobody, though readers of
/// file systems want it to be a thing that could be.
#[derive(Debug)]
pub(super) struct Window<'a> {
    medium: &'a Medium,
    range: Range<u64>,
    /// From the start of the range on.
    place: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(medium: &'a Medium, range: Range<u64>) -> Self {
        Self {
            medium,
            range,
            place: 0,
        }
    }

    fn size(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.size().saturating_sub(self.place);
        if left == 0 {
            return Ok(0);
        }
        let now = to.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.medium
            .read_at(self.range.start + self.place, &mut to[..now])?;
        self.place += now as u64;
        Ok(now)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
        };
        self.place = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}
