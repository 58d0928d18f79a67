//! Writing the memory: chunks and table.

use super::{DEPTH, MAX_RUNS, Page, Store};
use crate::codec::Codec;
use crate::format::sum::{self, Of, Sum};
use crate::format::table::{LZ4, RAW, RawEntry};
use crate::format::{CHUNK_PAGES, TABLE_PLACE, padded, table_bytes};
use crate::io::{Purpose, Span};
use crate::plan::Stage;
use crate::seal::Seal;
use crate::{CHUNK, Device, Error, Plan, Source};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;
use firn_block::shm::Region;
use firn_block::{Op, PAGE};
use zerocopy::IntoBytes;

/// What an error of a chunk's request says.
const WHAT: &str = "writing the memory";

/// What [`Store::write_chunks`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages that were stored.
    pub pages: u64,
    /// Pages left out because they are zero.
    pub zero: u64,
    /// Pages left out because they are free.
    pub free: u64,
    /// Bytes that went to the data area.
    pub bytes: u64,
    /// Chunks that were compressed.
    pub compressed: u32,
    /// Requests that went straight from the memory.
    pub in_place: u64,
    /// Requests that went through the store's own memory.
    pub staged: u64,
}

/// Pages of a chunk that are not stored.
#[derive(Default)]
struct Left {
    zero: u64,
    free: u64,
}

/// Everything about the chunk that is being written.
struct Chunk {
    index: u32,
    /// Its first page in the memory.
    first: usize,
    entry: RawEntry,
}

impl<D: Device> Store<D> {
    /// F8: writes the chunks. A blank disk gets its headers first.
    ///
    /// # Errors
    /// [`Error`]; the previous state of the disk still holds.
    pub async fn write_chunks(
        &mut self,
        plan: &mut Plan,
        source: &Source<'_>,
    ) -> Result<Written, Error> {
        if plan.stage != Stage::Planned {
            return Err(Error::Order("an image is written once"));
        }
        if source.memory.len() as u64 != plan.header.heap.bytes {
            return Err(Error::Order("the memory is not the planned one"));
        }
        if plan.format_first {
            self.empty_headers(&plan.area).await?;
            plan.format_first = false;
        }
        self.begin(Some(source.memory)).await?;
        let outcome = self.chunks(plan, source).await;
        let written = self.end(outcome).await?;
        plan.header.pages = written.pages;
        plan.header.stored = written.bytes;
        plan.stage = Stage::Chunks;
        Ok(written)
    }

    async fn chunks(&mut self, plan: &mut Plan, source: &Source<'_>) -> Result<Written, Error> {
        let seal = plan.seal();
        let mut written = Written::default();
        let mut free = Free::new(source.free);
        for index in 0..plan.header.chunks {
            let mut chunk = Chunk {
                index,
                first: index as usize * CHUNK_PAGES,
                entry: RawEntry {
                    place: written.bytes,
                    ..RawEntry::default()
                },
            };
            let lane = match plan.codec.is_none() && self.mapped {
                true => Some(self.lane(1, self.own_lanes()).await?),
                false => None,
            };
            let seal = seal.as_ref();
            let left = self.prepare(plan, seal, source.memory, &mut free, &mut chunk, lane);
            written.zero += left.zero;
            written.free += left.free;
            if chunk.entry.page_count() > 0 {
                self.send_chunk(plan, source.memory, &chunk, lane, &mut written)
                    .await?;
            }
            // Nobody starves, the ring neither, while there is more to look at.
            self.io.glance().await?;
            plan.entries.push(chunk.entry);
        }
        Ok(written)
    }

    /// Looks at a chunk's pages, once, and completes its entry. What is to be
    /// compressed or sealed is in the codec then; without one, what is stored is
    /// in the lane, if there is one.
    fn prepare(
        &mut self,
        plan: &mut Plan,
        seal: Option<&Seal>,
        memory: &Region,
        free: &mut Free<'_>,
        chunk: &mut Chunk,
        lane: Option<usize>,
    ) -> Left {
        let page = &mut self.page;
        let lane = lane.map(|lane| self.io.memory(lane));
        let mut sum = Sum::new(plan.header.generation, Of::Chunk(chunk.index));
        let mut length = 0;
        let left = match &mut plan.codec {
            None => scan(memory, chunk, free, (page, lane), |bytes| sum.add(bytes)),
            Some(codec) => {
                let input = codec.input();
                scan(memory, chunk, free, (page, None), |bytes| {
                    input[length..length + PAGE].copy_from_slice(bytes);
                    length += PAGE;
                })
            }
        };
        let entry = &mut chunk.entry;
        match (&mut plan.codec, entry.page_count()) {
            (_, 0) => *entry = RawEntry::default(),
            (None, pages) => {
                entry.coding = RAW;
                entry.stored = (pages * PAGE) as u32;
                entry.sum = sum.end();
            }
            (Some(codec), _) => encode(codec, seal, sum, chunk, length),
        }
        left
    }

    /// Puts one chunk under way, and takes what has come back meanwhile.
    async fn send_chunk(
        &mut self,
        plan: &Plan,
        memory: &Region,
        chunk: &Chunk,
        lane: Option<usize>,
        written: &mut Written,
    ) -> Result<(), Error> {
        let entry = &chunk.entry;
        let place = plan.header.data_place() + entry.place;
        match (&plan.codec, lane) {
            (_, Some(lane)) => {
                self.send_staged(plan, lane, place, entry).await?;
                written.staged += 1;
            }
            (Some(codec), None) => {
                let lane = self.lane(1, self.own_lanes()).await?;
                let bytes = &codec.coded[..entry.stored as usize];
                fill(&self.io.memory(lane), bytes, entry.padded() as usize);
                self.send_staged(plan, lane, place, entry).await?;
                written.staged += 1;
            }
            (None, None) if entry.runs().count() > MAX_RUNS => {
                let lane = self.lane(1, self.own_lanes()).await?;
                gather(memory, chunk, &self.io.memory(lane));
                self.send_staged(plan, lane, place, entry).await?;
                written.staged += 1;
            }
            (None, None) => {
                let mut place = place;
                for (first, count) in entry.runs() {
                    let lane = self.lane(self.own_lanes(), usize::MAX).await?;
                    let span = Span {
                        offset: (chunk.first + first) * PAGE,
                        ..plan.area.span(place, count * PAGE)
                    };
                    let purpose = purpose(chunk.index);
                    self.io.send(lane, Op::Write, span, purpose).await?;
                    place += (count * PAGE) as u64;
                    written.in_place += 1;
                }
            }
        }
        self.io.kick()?;
        written.pages += entry.page_count() as u64;
        written.bytes += entry.padded();
        written.compressed += u32::from(entry.coding == LZ4);
        Ok(())
    }

    async fn send_staged(
        &mut self,
        plan: &Plan,
        lane: usize,
        place: u64,
        entry: &RawEntry,
    ) -> Result<(), Error> {
        let span = plan.area.span(place, entry.padded() as usize);
        self.io.send(lane, Op::Write, span, purpose(0)).await
    }

    /// An idle lane from `first` on, before `end`, as soon as there is one.
    async fn lane(&mut self, first: usize, end: usize) -> Result<usize, Error> {
        loop {
            while self.io.harvest()?.is_some() {}
            if let Some(lane) = self.io.idle(first, end) {
                return Ok(lane);
            }
            self.io.kick()?;
            self.io.turn(WHAT).await?;
        }
    }

    /// F9: writes the chunk table.
    ///
    /// # Errors
    /// [`Error`]; the previous state of the disk still holds.
    pub async fn write_table(&mut self, plan: &mut Plan) -> Result<(), Error> {
        if plan.stage != Stage::Chunks {
            return Err(Error::Order("the table comes after the chunks"));
        }
        let header = &mut plan.header;
        match plan.how.key.as_ref().map(|key| Seal::new(key, header)) {
            None => {
                let sum = sum::of_table(header.generation, &plan.disks, &plan.entries);
                header.layout.table_sum = sum;
            }
            Some(seal) => {
                let tag = seal.table(&plan.disks, &plan.entries);
                let none = Error::Memory("no room to seal the table");
                header.layout.table_sum = tag.ok_or(none)?;
                header.layout.tag = seal.header(header);
            }
        }
        let what = "writing the chunk table";
        let bytes = table_bytes(plan.disks.len() as u64, plan.entries.len() as u64);
        let parts = [plan.disks.as_bytes(), plan.entries.as_bytes()];
        self.write_parts(&plan.area, parts, padded(bytes), what)
            .await?;
        plan.stage = Stage::Table;
        Ok(())
    }

    /// Writes two byte strings, one behind the other, and zeros up to `length`.
    async fn write_parts(
        &mut self,
        area: &super::Area,
        parts: [&[u8]; 2],
        length: u64,
        what: &'static str,
    ) -> Result<(), Error> {
        let memory = self.io.memory(super::BLOCK);
        let mut bytes = parts.into_iter().flatten().copied();
        let mut piece = Vec::new();
        let none = Error::Memory("no room for the table's bytes");
        piece.try_reserve_exact(memory.len()).map_err(|_| none)?;
        let mut at = 0;
        while at < length {
            let count = (length - at).min(memory.len() as u64) as usize;
            piece.clear();
            piece.extend(bytes.by_ref().take(count));
            piece.resize(count, 0);
            self.io.settle(what).await?;
            memory.copy_in(0, &piece);
            let span = area.span(TABLE_PLACE + at, count);
            self.io.once(super::BLOCK, Op::Write, span, what).await?;
            at += count as u64;
        }
        Ok(())
    }
}

const fn purpose(tag: u32) -> Purpose {
    Purpose { what: WHAT, tag }
}

/// Looks at a chunk's pages once: notes those that are to be stored, puts them
/// one behind the other into the lane, if there is one, and hands each out.
fn scan(
    memory: &Region,
    chunk: &mut Chunk,
    free: &mut Free<'_>,
    (copy, lane): (&mut Page, Option<Region>),
    mut each: impl FnMut(&[u8]),
) -> Left {
    let mut left = Left::default();
    let mut place = 0;
    let end = memory.page_count().min(chunk.first + CHUNK_PAGES);
    for page in chunk.first..end {
        if free.has(page) {
            left.free += 1;
        } else if copy_page(memory, page, copy, lane.as_ref().map(|lane| (lane, place))) {
            left.zero += 1;
        } else {
            place += PAGE;
            chunk.entry.set(page - chunk.first);
            each(copy.as_bytes());
        }
    }
    left
}

/// Copies a page out of shared memory, and to a place in other such memory, if
/// one is given; whether it is all zero.
pub(super) fn copy_page(
    memory: &Region,
    page: usize,
    copy: &mut Page,
    also: Option<(&Region, usize)>,
) -> bool {
    let any = memory.load(page * PAGE, copy, also);
    any == 0
}

/// Compresses and seals what was packed; `length` bytes of it, not none.
fn encode(codec: &mut Codec, seal: Option<&Seal>, mut sum: Sum, chunk: &mut Chunk, length: usize) {
    let (coding, stored) = codec.encode(length);
    chunk.entry.coding = coding;
    chunk.entry.stored = stored as u32;
    let bytes = &mut codec.coded[..stored];
    chunk.entry.sum = match seal {
        Some(seal) => seal.chunk(chunk.index, &chunk.entry, bytes),
        None => {
            sum.add(bytes);
            sum.end()
        }
    };
}

/// Puts `bytes` at the start of a lane, and zeros behind them up to `length`.
fn fill(lane: &Region, bytes: &[u8], length: usize) {
    lane.copy_in(0, bytes);
    let end = bytes.len().next_multiple_of(8);
    for at in bytes.len()..end {
        lane.atomic_u8(at).store(0, Relaxed);
    }
    lane.zero(end, length - end);
}

/// Copies the chunk's stored pages to the start of a lane.
fn gather(memory: &Region, chunk: &Chunk, lane: &Region) {
    let pages = (0..CHUNK_PAGES).filter(|page| chunk.entry.has(*page));
    for (at, page) in pages.enumerate() {
        let from = memory.words((chunk.first + page) * PAGE, PAGE / 8);
        let to = lane.words(at * PAGE, PAGE / 8);
        for (to, from) in to.iter().zip(from) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }
}

/// Free pages, asked for in rising order.
struct Free<'a> {
    ranges: &'a [Range<usize>],
}

impl<'a> Free<'a> {
    const fn new(ranges: &'a [Range<usize>]) -> Self {
        Self { ranges }
    }

    fn has(&mut self, page: usize) -> bool {
        while let [first, rest @ ..] = self.ranges {
            if page < first.end {
                return page >= first.start;
            }
            self.ranges = rest;
        }
        false
    }
}

const _: () = assert!(MAX_RUNS <= DEPTH);
const _: () = assert!(CHUNK / PAGE == CHUNK_PAGES);
