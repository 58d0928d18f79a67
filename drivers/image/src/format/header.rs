//! The record in a header slot.

use super::{MAGIC, RECORD_BYTES, SLOT_BYTES, TABLE_PLACE, VERSION, sum};
use crate::slots::{Header, Layout, Slot};
use crate::{BuildId, CHUNK, Cpu, Generation, Heap, Meta, Reason, SlotId, State};
use core::mem::offset_of;
use firn_block::{PAGE, SECTOR};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bytes, little-endian. Ended records keep all fields, so that an image
/// that was given up can still be looked at.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct RawHeader {
    magic: [u8; 8],
    version: u32,
    bytes: u32,
    generation: u64,
    state: u32,
    slot: u32,
    pad0: u32,
    flags: u32,
    chunk_bytes: u32,
    chunks: u32,
    disks: u32,
    pad: u32,
    pages: u64,
    build: [u8; 32],
    heap_address: u64,
    heap_bytes: u64,
    cpu: [u64; 4],
    time: u64,
    reason: [u8; 32],
    area_sectors: u64,
    table_place: u64,
    table_bytes: u64,
    table_sum: [u8; 16],
    data_place: u64,
    data_bytes: u64,
    salt: [u8; 12],
    pad2: u32,
    tag: [u8; 16],
    reserved: [u8; 232],
    checksum: u64,
}

const _: () = {
    assert!(size_of::<RawHeader>() == RECORD_BYTES);
    assert!(offset_of!(RawHeader, generation) == 16);
    assert!(offset_of!(RawHeader, state) == 24);
    assert!(offset_of!(RawHeader, pages) == 56);
    assert!(offset_of!(RawHeader, build) == 64);
    assert!(offset_of!(RawHeader, heap_address) == 96);
    assert!(offset_of!(RawHeader, cpu) == 112);
    assert!(offset_of!(RawHeader, time) == 144);
    assert!(offset_of!(RawHeader, area_sectors) == 184);
    assert!(offset_of!(RawHeader, table_sum) == 208);
    assert!(offset_of!(RawHeader, data_place) == 224);
    assert!(offset_of!(RawHeader, salt) == 240);
    assert!(offset_of!(RawHeader, tag) == 256);
    assert!(offset_of!(RawHeader, checksum) == 504);
};

/// `flags`: encrypted and authenticated.
const SEALED: u32 = 1;

const STATES: [State; 5] = [
    State::Empty,
    State::Valid,
    State::Consumed,
    State::Abandoned,
    State::Void,
];

impl Header {
    /// The record of this header for `slot`.
    pub(crate) fn to_raw(self, slot: SlotId) -> RawHeader {
        let state = STATES.iter().position(|s| *s == self.state).unwrap_or(0);
        let mut raw = RawHeader {
            magic: MAGIC,
            version: VERSION,
            bytes: RECORD_BYTES as u32,
            generation: self.generation.0,
            state: state as u32,
            slot: slot as u32,
            pad0: 0,
            flags: if self.sealed { SEALED } else { 0 },
            chunk_bytes: CHUNK as u32,
            chunks: self.chunks,
            disks: self.disks,
            pad: 0,
            pages: self.pages,
            build: self.build.0,
            heap_address: self.heap.address,
            heap_bytes: self.heap.bytes,
            cpu: self.cpu.0,
            time: self.time,
            reason: self.reason.0,
            area_sectors: self.area_sectors,
            table_place: TABLE_PLACE,
            table_bytes: self.table_bytes(),
            table_sum: self.layout.table_sum,
            data_place: self.data_place(),
            data_bytes: self.stored,
            salt: self.layout.salt,
            pad2: 0,
            tag: self.layout.tag,
            reserved: [0; 232],
            checksum: 0,
        };
        raw.checksum = sum::of_header(&raw);
        raw
    }

    /// What a seal covers: the header as it was committed, without the tag.
    pub(crate) fn sealed_part(mut self) -> RawHeader {
        self.state = State::Valid;
        self.layout.tag = [0; 16];
        self.to_raw(SlotId::A)
    }

    /// Bytes of the table, without the zeros behind it.
    pub(crate) const fn table_bytes(&self) -> u64 {
        super::table_bytes(self.disks as u64, self.chunks as u64)
    }

    /// Where the data begins, in bytes from the start of the area.
    pub(crate) const fn data_place(&self) -> u64 {
        super::data_place(self.disks as u64, self.chunks as u64)
    }
}

/// Reads what a slot holds.
pub(crate) fn parse(block: &[u8; SLOT_BYTES], slot: SlotId) -> Slot {
    if block.iter().all(|byte| *byte == 0) {
        return Slot::Blank;
    }
    let Ok((raw, behind)) = RawHeader::read_from_prefix(&block[..]) else {
        return Slot::Foreign;
    };
    if raw.magic != MAGIC {
        return Slot::Foreign;
    }
    if raw.checksum != sum::of_header(&raw) {
        return Slot::Damaged("its checksum is wrong");
    }
    if raw.version != VERSION {
        return Slot::Version(raw.version);
    }
    if behind.iter().any(|byte| *byte != 0) {
        return Slot::Damaged("there is something behind its record");
    }
    match check(&raw, slot) {
        Ok(header) => Slot::Header(header),
        Err(what) => Slot::Damaged(what),
    }
}

/// Every field, although the checksum is right: it is not a signature.
fn check(raw: &RawHeader, slot: SlotId) -> Result<Header, &'static str> {
    let demand = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
    demand(raw.bytes as usize == RECORD_BYTES, "its length is wrong")?;
    demand(raw.slot == slot as u32, "it is the other slot's")?;
    demand(raw.flags & !SEALED == 0, "it has unknown flags")?;
    demand(
        raw.chunk_bytes as usize == CHUNK,
        "its chunk size is unknown",
    )?;
    let reserved_is_zero = raw.reserved == [0; 232] && [raw.pad0, raw.pad, raw.pad2] == [0; 3];
    demand(reserved_is_zero, "its reserved bytes are not zero")?;
    let state = STATES.get(raw.state as usize).copied();
    let header = Header {
        generation: Generation(raw.generation),
        state: state.ok_or("its state is unknown")?,
        build: BuildId(raw.build),
        heap: Heap {
            address: raw.heap_address,
            bytes: raw.heap_bytes,
        },
        cpu: Cpu(raw.cpu),
        time: raw.time,
        reason: Reason(raw.reason),
        chunks: raw.chunks,
        disks: raw.disks,
        pages: raw.pages,
        stored: raw.data_bytes,
        area_sectors: raw.area_sectors,
        sealed: raw.flags & SEALED != 0,
        layout: Layout {
            table_sum: raw.table_sum,
            salt: raw.salt,
            tag: raw.tag,
        },
    };
    demand(header.generation.0 < u64::MAX, "its generation is the last")?;
    check_memory(&header)?;
    check_places(raw, &header)?;
    Ok(header)
}

fn check_memory(header: &Header) -> Result<(), &'static str> {
    let Heap { address, bytes } = header.heap;
    if bytes == 0 {
        let bare = header.state != State::Valid && header.chunks == 0 && header.disks == 0;
        return if bare {
            Ok(())
        } else {
            Err("it has no memory")
        };
    }
    let page = PAGE as u64;
    let whole = address.is_multiple_of(page) && bytes.is_multiple_of(page);
    if !whole || bytes > super::MAX_HEAP || address.checked_add(bytes).is_none() {
        return Err("its memory cannot be");
    }
    if u64::from(header.chunks) != super::chunks(bytes) {
        return Err("its number of chunks is wrong");
    }
    if header.disks as usize > Meta::MAX_DISKS {
        return Err("it has too many disks");
    }
    if header.pages > bytes / page {
        return Err("its number of pages is wrong");
    }
    Ok(())
}

fn check_places(raw: &RawHeader, header: &Header) -> Result<(), &'static str> {
    let places = raw.table_place == TABLE_PLACE
        && raw.table_bytes == header.table_bytes()
        && raw.data_place == header.data_place();
    if !places {
        return Err("its places are wrong");
    }
    let most = header.pages.saturating_mul(PAGE as u64);
    let end = header.data_place().checked_add(header.stored);
    let inside = end.is_some_and(|end| end.div_ceil(SECTOR) <= header.area_sectors);
    let bare = header.chunks == 0 && header.stored == 0;
    if header.stored > most || !header.stored.is_multiple_of(PAGE as u64) || !(inside || bare) {
        return Err("its data cannot be");
    }
    if !header.sealed && (raw.salt != [0; 12] || raw.tag != [0; 16]) {
        return Err("it has a seal's fields, but no seal");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
