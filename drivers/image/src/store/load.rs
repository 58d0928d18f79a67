//! Reading an image: its table, and every chunk into its place.

use super::write::copy_page;
use super::{Area, DEPTH, MAX_RUNS, Page, Store, Target};
use crate::codec::Codec;
use crate::format::sum::{Of, Sum};
use crate::format::table::{self, ENTRY_BYTES, NOTHING, RAW, RawDisk, RawEntry};
use crate::format::{CHUNK_PAGES, TABLE_PLACE, padded};
use crate::io::{Purpose, Span};
use crate::seal::Seal;
use crate::{Damage, Device, Error, Header, Key, SavedDisk, SlotId, Slots, Verdict};
use alloc::vec::Vec;
use core::fmt;
use firn_block::shm::Region;
use firn_block::{Op, PAGE};
use zerocopy::{FromBytes, IntoBytes};

/// What an error of a chunk's request says.
const WHAT: &str = "reading the memory";

/// What [`Store::load`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Pages that were read.
    pub pages: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

/// A chunk table that was read and verified, and the disks beside it.
#[derive(Clone)]
pub struct Table {
    pub(super) header: Header,
    pub(super) area: Area,
    /// Where the VALID header lies.
    pub(super) slot: SlotId,
    disks: Vec<SavedDisk>,
    entries: Vec<RawEntry>,
    seal: Option<Seal>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = f.debug_struct("Table");
        table.field("header", &self.header);
        table.field("disks", &self.disks).finish_non_exhaustive()
    }
}

impl Table {
    /// The header that it belongs to.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The part of the disk that holds the image.
    #[must_use]
    pub const fn area(&self) -> &Area {
        &self.area
    }

    /// The disks that the image names.
    #[must_use]
    pub fn disks(&self) -> &[SavedDisk] {
        &self.disks
    }

    /// The chunks that are stored, in order: number, pages, bytes on the disk,
    /// and whether it is compressed.
    pub fn chunks(&self) -> impl Iterator<Item = (u32, usize, u64, bool)> + '_ {
        let numbered = (0..).zip(&self.entries);
        numbered
            .filter(|(_, entry)| entry.coding != NOTHING)
            .map(|(index, entry)| {
                let compressed = entry.coding == table::LZ4;
                (index, entry.page_count(), entry.padded(), compressed)
            })
    }

    /// The pages of chunk `index`, as counted from the memory's start.
    fn pages_of(&self, index: u32) -> (usize, usize) {
        let all = self.header.heap.bytes as usize / PAGE;
        let first = index as usize * CHUNK_PAGES;
        (first, all.min(first + CHUNK_PAGES))
    }

    /// The pages of a chunk that the image does not hold.
    pub(super) fn absent(&self, chunk: usize) -> Option<impl Iterator<Item = usize> + '_> {
        let entry = self.entries.get(chunk)?;
        let (first, end) = self.pages_of(chunk as u32);
        Some((first..end).filter(move |page| !entry.has(page - first)))
    }

    /// Whether a chunk is read straight into the memory.
    fn in_place(&self, entry: &RawEntry) -> bool {
        self.seal.is_none() && entry.coding == RAW && entry.runs().count() <= MAX_RUNS
    }
}

/// A load under way.
struct Reader<'a> {
    table: &'a Table,
    /// Where to; nowhere when the image is only to be verified.
    into: Option<&'a Target<'a>>,
    /// The next chunk to ask for.
    next: u32,
    /// Requests go straight into the memory, where there is one.
    in_place: bool,
    /// Requests out for each chunk.
    left: Vec<u8>,
    codec: Option<Codec>,
    loaded: Loaded,
}

impl<D: Device> Store<D> {
    /// Reads and verifies the chunk table of the image that
    /// [`Slots::verdict`] found valid. `key` is the one given at boot. The
    /// caller has asked [`crate::check`] first.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Damaged`] when it is wrong.
    pub async fn read_table(
        &mut self,
        area: Area,
        slots: &Slots,
        key: Option<&Key>,
    ) -> Result<Table, Error> {
        let Verdict::Valid(header, slot) = slots.verdict() else {
            return Err(Error::Order("there is no image to read"));
        };
        let described = padded(header.table_bytes());
        if !area.holds(TABLE_PLACE, described) {
            return Err(Error::Damaged(Damage::Table("it is beyond the disk's end")));
        }
        let what = "reading the chunk table";
        let bytes = self.read(&area, TABLE_PLACE, described as usize, what);
        let bytes = bytes.await?;
        parse_table(header, area, slot, key, &bytes).map_err(Error::Damaged)
    }

    /// R5: reads every chunk into its place in the target, verifies it, and makes
    /// every other page zero.
    ///
    /// # Errors
    /// [`Error`]: what is in the memory is not to be used; empty it.
    pub async fn load(&mut self, target: &Target<'_>) -> Result<Loaded, Error> {
        self.read_chunks(target.table, Some(target)).await
    }

    /// Reads and verifies every chunk, and places none.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Damaged`] names the first chunk that is wrong.
    pub async fn verify(&mut self, table: &Table) -> Result<Loaded, Error> {
        self.read_chunks(table, None).await
    }

    async fn read_chunks(
        &mut self,
        table: &Table,
        into: Option<&Target<'_>>,
    ) -> Result<Loaded, Error> {
        let none = Error::Memory("no room to decode chunks");
        let mut left = Vec::new();
        left.try_reserve_exact(table.entries.len())
            .map_err(|_| none)?;
        left.resize(table.entries.len(), 0);
        let packed = |entry: &RawEntry| !matches!(entry.coding, NOTHING | RAW);
        let packed = table.entries.iter().any(packed);
        let codec = match table.seal.is_some() || packed {
            true => Some(Codec::to_read(packed).ok_or(none)?),
            false => None,
        };
        let mut reader = Reader {
            table,
            into,
            next: 0,
            in_place: into.is_some() && !self.mapped,
            left,
            codec,
            loaded: Loaded::default(),
        };
        self.begin(into.map(|target| &target.memory)).await?;
        let outcome = self.read_all(&mut reader).await;
        self.end(outcome).await?;
        Ok(reader.loaded)
    }

    /// Asks for chunks as far ahead as there are lanes, verifies those that came
    /// while the others are on their way, and makes pages zero when there is
    /// nothing else to do. The queue is looked at after each of these.
    async fn read_all(&mut self, reader: &mut Reader<'_>) -> Result<(), Error> {
        loop {
            while self.ask(reader).await? {
                self.io.kick()?;
            }
            if self.verify_one(reader)? || reader.into.is_some_and(Target::zero_some) {
                self.io.glance().await?;
            } else if reader.all_asked() && self.io.in_flight() == 0 {
                // A buffer that the queue kept was not verified.
                let all = reader.left.iter().all(|left| *left == 0);
                return if all { Ok(()) } else { Err(Error::Gone) };
            } else {
                self.io.turn(WHAT).await?;
            }
        }
    }

    /// Takes one request that came back; false where there is none.
    fn verify_one(&mut self, reader: &mut Reader<'_>) -> Result<bool, Error> {
        let Some((lane, purpose)) = self.io.harvest()? else {
            return Ok(false);
        };
        let left = &mut reader.left[purpose.tag as usize];
        *left -= 1;
        if *left == 0 {
            let memory = self.io.memory(lane);
            reader.take(purpose.tag, &memory, &mut self.page)?;
        }
        Ok(true)
    }

    /// Asks for the next stored chunk; false where there is none or no lane.
    async fn ask(&mut self, reader: &mut Reader<'_>) -> Result<bool, Error> {
        let table = reader.table;
        reader.skip_empty();
        let Some(entry) = table.entries.get(reader.next as usize) else {
            return Ok(false);
        };
        let index = reader.next;
        let purpose = Purpose {
            what: WHAT,
            tag: index,
        };
        let place = table.header.data_place() + entry.place;
        let own = self.own_lanes();
        if reader.in_place && table.in_place(entry) {
            let runs = entry.runs().count();
            if self.io.idle_count(own, usize::MAX) < runs {
                return Ok(false);
            }
            reader.left[index as usize] = runs as u8;
            self.ask_in_place(table, entry, place, purpose).await?;
        } else {
            let Some(lane) = self.io.idle(1, self.own_lanes()) else {
                return Ok(false);
            };
            reader.left[index as usize] = 1;
            let span = table.area.span(place, entry.padded() as usize);
            self.io.send(lane, Op::Read, span, purpose).await?;
        }
        reader.next += 1;
        Ok(true)
    }

    /// One request for each run of pages; there are lanes for all.
    async fn ask_in_place(
        &mut self,
        table: &Table,
        entry: &RawEntry,
        mut place: u64,
        purpose: Purpose,
    ) -> Result<(), Error> {
        let (first, _) = table.pages_of(purpose.tag);
        for (run, count) in entry.runs() {
            let Some(lane) = self.io.idle(self.own_lanes(), usize::MAX) else {
                return Err(Error::Order("a lane vanished"));
            };
            let span = Span {
                offset: (first + run) * PAGE,
                ..table.area.span(place, count * PAGE)
            };
            self.io.send(lane, Op::Read, span, purpose).await?;
            place += (count * PAGE) as u64;
        }
        Ok(())
    }
}

impl Reader<'_> {
    fn skip_empty(&mut self) {
        let rest = self.table.entries.get(self.next as usize..);
        let rest = rest.unwrap_or_default();
        let empty = rest.iter().take_while(|entry| entry.coding == NOTHING);
        self.next += empty.count() as u32;
    }

    const fn all_asked(&self) -> bool {
        self.next >= self.table.header.chunks
    }

    /// All of chunk `index` is there, in place or in the lane: verifies it, and
    /// places what is not in place.
    fn take(&mut self, index: u32, lane: &Region, page: &mut Page) -> Result<(), Error> {
        let table = self.table;
        let entry = &table.entries[index as usize];
        let (first, _) = table.pages_of(index);
        let generation = table.header.generation;
        let sum = Sum::new(generation, Of::Chunk(index));
        let wrong = Error::Damaged(Damage::Chunk {
            index,
            what: "its checksum is wrong",
        });
        let stored = (0..CHUNK_PAGES).filter(|page| entry.has(*page));
        let into = self.into.map(|target| &target.memory);
        match (into, &mut self.codec) {
            (Some(memory), _) if self.in_place && table.in_place(entry) => {
                let places = stored.map(|page| first + page);
                if sum_pages(sum, memory, places, page) != entry.sum {
                    return Err(wrong);
                }
            }
            (into, Some(codec)) => {
                fetch(codec, lane, index, entry, table.seal.as_ref(), sum)?;
                let plain = codec.decode(index, entry).map_err(Error::Damaged)?;
                let pages = plain.chunks_exact(PAGE).zip(stored);
                if let Some(memory) = into {
                    pages.for_each(|(bytes, page)| memory.copy_in((first + page) * PAGE, bytes));
                }
            }
            (into, None) => {
                let places = stored.map(|page| first + page);
                if place_pages(sum, lane, places, into, page) != entry.sum {
                    return Err(wrong);
                }
            }
        }
        self.loaded.pages += entry.page_count() as u64;
        self.loaded.bytes += entry.padded();
        Ok(())
    }
}

/// Copies a stored chunk out of the lane, once, and verifies the copy; opened
/// if it is sealed, it is in `codec.coded`.
fn fetch(
    codec: &mut Codec,
    lane: &Region,
    index: u32,
    entry: &RawEntry,
    seal: Option<&Seal>,
    mut sum: Sum,
) -> Result<(), Error> {
    let damage = |what| Error::Damaged(Damage::Chunk { index, what });
    let bytes = codec.coded.get_mut(..entry.padded() as usize);
    let bytes = bytes.ok_or(damage("its length cannot be"))?;
    lane.copy_out(0, bytes);
    let (bytes, behind) = bytes.split_at_mut(entry.stored as usize);
    if behind.iter().any(|byte| *byte != 0) {
        return Err(damage("there is something behind it"));
    }
    if let Some(seal) = seal {
        let opened = seal.open(index, entry, bytes);
        return opened.map_err(|_| damage("it is not what was sealed"));
    }
    sum.add(bytes);
    if sum.end() != entry.sum {
        return Err(damage("its checksum is wrong"));
    }
    Ok(())
}

/// The sum of some pages of a memory.
fn sum_pages(
    mut sum: Sum,
    memory: &Region,
    pages: impl Iterator<Item = usize>,
    copy: &mut Page,
) -> [u8; 16] {
    for page in pages {
        copy_page(memory, page, copy, None);
        sum.add(copy.as_bytes());
    }
    sum.end()
}

/// Copies the pages at the start of a lane to their `places`, if there is a
/// memory; the sum of what was copied.
fn place_pages(
    mut sum: Sum,
    lane: &Region,
    places: impl Iterator<Item = usize>,
    into: Option<&Region>,
    copy: &mut Page,
) -> [u8; 16] {
    for (at, place) in places.enumerate() {
        copy_page(lane, at, copy, into.map(|memory| (memory, place * PAGE)));
        sum.add(copy.as_bytes());
    }
    sum.end()
}

/// A table from its bytes, which end with the zeros behind it.
fn parse_table(
    header: Header,
    area: Area,
    slot: SlotId,
    key: Option<&Key>,
    bytes: &[u8],
) -> Result<Table, Damage> {
    let wrong = Damage::Table;
    let seal = match (header.sealed, key) {
        (true, Some(key)) => Some(Seal::new(key, &header)),
        (false, None) => None,
        _ => return Err(Damage::Seal),
    };
    let split = header.disks as usize * ENTRY_BYTES;
    let end = header.table_bytes() as usize;
    let (disks, rest) = bytes.split_at_checked(split).ok_or(wrong("it is short"))?;
    let entries = rest.get(..end - split).ok_or(wrong("it is short"))?;
    let behind = bytes.get(end..).unwrap_or_default();
    if behind.iter().any(|byte| *byte != 0) {
        return Err(wrong("there is something behind it"));
    }
    let disks = list::<RawDisk>(disks).ok_or(wrong("no room for it"))?;
    let entries = list::<RawEntry>(entries).ok_or(wrong("no room for it"))?;
    match &seal {
        Some(seal) => {
            // The header first: a wrong key shows there.
            if seal.header(&header) != header.layout.tag {
                return Err(Damage::Seal);
            }
            let tag = seal
                .table(&disks, &entries)
                .ok_or(wrong("no room for it"))?;
            if tag != header.layout.table_sum {
                return Err(wrong("it is not what was sealed"));
            }
        }
        None => {
            let sum = crate::format::sum::of_table(header.generation, &disks, &entries);
            if sum != header.layout.table_sum {
                return Err(wrong("its checksum is wrong"));
            }
        }
    }
    table::check(&header, &entries).map_err(wrong)?;
    Ok(Table {
        header,
        area,
        slot,
        disks: table::disks(&disks).map_err(wrong)?,
        entries,
        seal,
    })
}

/// Fixed-size records from bytes.
fn list<T: FromBytes>(bytes: &[u8]) -> Option<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(bytes.len() / size_of::<T>()).ok()?;
    let pieces = bytes.chunks_exact(size_of::<T>());
    all.extend(pieces.filter_map(|piece| T::read_from_bytes(piece).ok()));
    Some(all)
}

const _: () = assert!(MAX_RUNS <= DEPTH && MAX_RUNS <= u8::MAX as usize);
