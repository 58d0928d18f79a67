//! What is done to a chunk's bytes on their way to the disk and back.

use crate::format::table::{LZ4, RAW, RawEntry};
use crate::{CHUNK, Damage};
use alloc::vec::Vec;
use firn_block::PAGE;
use lz4_flex::block::{self, CompressTable};

/// Memory for one chunk that is compressed or sealed, made once. What is only
/// sealed needs half of it: it is encrypted and decrypted where it is.
pub(crate) struct Codec {
    table: Option<CompressTable>,
    /// The chunk's stored pages, one after the other; empty where nothing is
    /// compressed.
    plain: Vec<u8>,
    /// What they became, or will be.
    pub(crate) coded: Vec<u8>,
}

impl Codec {
    /// To write with. `None` where there is no memory for it.
    pub(crate) fn to_write(compress: bool) -> Option<Self> {
        let mut codec = Self::to_read(compress)?;
        codec.table = compress.then(CompressTable::large);
        Some(codec)
    }

    /// To read what may be `compressed`. `None` where there is no memory for it.
    pub(crate) fn to_read(compressed: bool) -> Option<Self> {
        let buffer = |length| {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length).ok()?;
            bytes.resize(length, 0);
            Some(bytes)
        };
        // The compressor wants room for the worst case.
        let (plain, coded) = match compressed {
            true => (CHUNK, block::get_maximum_output_size(CHUNK)),
            false => (0, CHUNK),
        };
        Some(Self {
            table: None,
            plain: buffer(plain)?,
            coded: buffer(coded)?,
        })
    }

    /// Where a chunk's pages are put together before [`Codec::encode`].
    pub(crate) fn input(&mut self) -> &mut [u8] {
        match self.table {
            Some(_) => &mut self.plain,
            None => &mut self.coded,
        }
    }

    /// Compresses the first `len` bytes of the input, where that saves at least
    /// a page; otherwise `coded` gets them as they are. Returns how, and how
    /// long the result is.
    pub(crate) fn encode(&mut self, len: usize) -> (u32, usize) {
        let Some(table) = &mut self.table else {
            return (RAW, len.min(self.coded.len()));
        };
        let Some(plain) = self.plain.get(..len) else {
            return (RAW, 0);
        };
        match block::compress_into_with_table(plain, &mut self.coded, table) {
            Ok(bytes) if bytes > 0 && bytes + PAGE <= len => return (LZ4, bytes),
            _ => {}
        }
        self.coded[..len].copy_from_slice(plain);
        (RAW, len)
    }

    /// The reverse: the first `entry.stored` bytes of `coded` become the
    /// chunk's stored pages.
    pub(crate) fn decode(&mut self, index: u32, entry: &RawEntry) -> Result<&[u8], Damage> {
        let damage = |what| Damage::Chunk { index, what };
        let stored = self.coded.get(..entry.stored as usize);
        let stored = stored.ok_or(damage("its length cannot be"))?;
        if entry.coding != LZ4 {
            return Ok(stored);
        }
        let len = entry.page_count() * PAGE;
        let plain = self.plain.get_mut(..len);
        let plain = plain.ok_or(damage("its length cannot be"))?;
        match block::decompress_into(stored, plain) {
            Ok(bytes) if bytes == len => Ok(plain),
            _ => Err(damage("it does not decompress")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_sealed_takes_one_chunk_of_memory() {
        let mut codec = Codec::to_write(false).expect("memory");
        assert_eq!(codec.plain.capacity() + codec.coded.capacity(), CHUNK);
        codec.input()[..PAGE].fill(7);
        assert_eq!(codec.encode(PAGE), (RAW, PAGE));
        assert!(codec.coded[..PAGE].iter().all(|byte| *byte == 7));
    }
}
