//! The wire format, and nothing but it: what lies where, in which bytes.
//!
//! Everything that is read from a disk goes through here, and is a stranger's:
//! each field is checked before anything is done with it.
//!
//! ```text
//! 0      slot A   4 KiB, the record in the first 512 bytes, zeros behind it
//! 4096   slot B
//! 8192   unused
//! 65536  table    one entry of 64 bytes per disk, then per chunk
//! …      data     the chunks, packed, each at a multiple of 4096
//! ```

pub(crate) mod header;
pub(crate) mod sum;
pub(crate) mod table;

use firn_block::PAGE;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "numbers on the disk are little-endian"
);

/// What every header begins with.
pub(crate) const MAGIC: [u8; 8] = *b"firn-img";
/// The format that this program writes and reads. Of other versions only magic,
/// version and the place of the checksum are known.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a slot: one page, so that disks with large blocks do.
pub(crate) const SLOT_BYTES: usize = PAGE;
/// Bytes of the record in it: one sector, which a disk writes whole or not.
pub(crate) const RECORD_BYTES: usize = 512;
/// Where the table begins; before it there are the slots and room to grow.
pub(crate) const TABLE_PLACE: u64 = 64 << 10;
/// Pages of a chunk.
pub(crate) const CHUNK_PAGES: usize = crate::CHUNK / PAGE;
/// No memory larger than this is believed, in bytes.
pub(crate) const MAX_HEAP: u64 = 1 << 40;

/// `bytes` rounded up to what things begin at: a page.
pub(crate) const fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// Chunks of a memory of so many bytes.
pub(crate) const fn chunks(heap_bytes: u64) -> u64 {
    heap_bytes.div_ceil(crate::CHUNK as u64)
}

/// Bytes of a table, without the zeros behind it.
pub(crate) const fn table_bytes(disks: u64, chunks: u64) -> u64 {
    (disks + chunks) * table::ENTRY_BYTES as u64
}

/// Where the data begins.
pub(crate) const fn data_place(disks: u64, chunks: u64) -> u64 {
    TABLE_PLACE + padded(table_bytes(disks, chunks))
}
