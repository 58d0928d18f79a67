//! Writing the memory: chunks and table.

use super::{DEPTH, MAX_RUNS, PART, PART_PAGES, Page, Store};
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
const PURPOSE: Purpose = Purpose { what: WHAT, tag: 0 };

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
    /// Requests that went through the store's own memory, in parts of 512 KiB.
    pub staged: u64,
}

impl Written {
    /// Counts a chunk whose entry is complete.
    fn add(&mut self, chunk: &Chunk) {
        self.pages += chunk.entry.page_count() as u64;
        self.zero += chunk.zero;
        self.free += chunk.free;
        self.bytes += chunk.entry.padded();
        self.compressed += u32::from(chunk.entry.coding == LZ4);
    }
}

/// Everything about the chunk that is being written.
struct Chunk {
    index: u32,
    /// Its first page in the memory.
    first: usize,
    /// Its pages that nobody has looked at.
    rest: Range<usize>,
    entry: RawEntry,
    /// Pages left out because they are zero.
    zero: u64,
    /// Pages left out because they are free.
    free: u64,
}

impl Chunk {
    /// A chunk that will lie at byte `place` of the data area.
    fn new(index: u32, memory: &Region, place: u64) -> Self {
        let first = index as usize * CHUNK_PAGES;
        Self {
            index,
            first,
            rest: first..memory.page_count().min(first + CHUNK_PAGES),
            entry: RawEntry {
                place,
                ..RawEntry::default()
            },
            zero: 0,
            free: 0,
        }
    }

    /// Where it lies on the disk, as a byte of the image's area.
    fn place(&self, plan: &Plan) -> u64 {
        plan.header.data_place() + self.entry.place
    }

    /// Its pages are stored as they are, if there are any.
    fn is_raw(&mut self, sum: &Sum) {
        match self.entry.page_count() {
            0 => self.entry = RawEntry::default(),
            pages => {
                self.entry.coding = RAW;
                self.entry.stored = (pages * PAGE) as u32;
                self.entry.sum = sum.end();
            }
        }
    }
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
        let free: usize = source.free.iter().map(ExactSizeIterator::len).sum();
        let pages = source.memory.page_count().saturating_sub(free);
        self.begin(Some(source.memory), pages).await?;
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
            let mut chunk = Chunk::new(index, source.memory, written.bytes);
            if plan.codec.is_none() && self.mapped {
                self.pass_chunk(plan, source.memory, &mut free, &mut chunk, &mut written)
                    .await?;
            } else {
                self.prepare(plan, seal.as_ref(), source.memory, &mut free, &mut chunk);
                self.send_chunk(plan, source.memory, &chunk, &mut written)
                    .await?;
            }
            written.add(&chunk);
            // Nobody starves, the ring neither, while there is more to look at.
            self.io.glance().await?;
            plan.entries.push(chunk.entry);
        }
        Ok(written)
    }

    /// Looks at a chunk's pages, once: those that are stored go into lanes by
    /// this, and a lane that is full is on its way before the next is filled.
    async fn pass_chunk(
        &mut self,
        plan: &Plan,
        memory: &Region,
        free: &mut Free<'_>,
        chunk: &mut Chunk,
        written: &mut Written,
    ) -> Result<(), Error> {
        let mut sum = Sum::new(plan.header.generation, Of::Chunk(chunk.index));
        let mut place = chunk.place(plan);
        while !chunk.rest.is_empty() {
            let lane = self.lane(1, self.used_lanes()).await?;
            let (copy, to) = (&mut self.page, self.io.memory(lane));
            let bytes = scan(memory, chunk, free, (copy, Some(to)), |bytes| {
                sum.add(bytes);
            });
            if bytes > 0 {
                self.send_part(plan, lane, place, bytes, written).await?;
                place += bytes as u64;
            }
        }
        chunk.is_raw(&sum);
        Ok(())
    }

    /// Looks at a chunk's pages, once, and completes its entry. What is to be
    /// compressed or sealed is in the codec then.
    fn prepare(
        &mut self,
        plan: &mut Plan,
        seal: Option<&Seal>,
        memory: &Region,
        free: &mut Free<'_>,
        chunk: &mut Chunk,
    ) {
        let mut sum = Sum::new(plan.header.generation, Of::Chunk(chunk.index));
        let copy = &mut self.page;
        match &mut plan.codec {
            None => {
                scan(memory, chunk, free, (copy, None), |bytes| sum.add(bytes));
                chunk.is_raw(&sum);
            }
            Some(codec) => {
                let (input, mut at) = (codec.input(), 0);
                let length = scan(memory, chunk, free, (copy, None), |bytes| {
                    input[at..at + PAGE].copy_from_slice(bytes);
                    at += PAGE;
                });
                match length {
                    0 => chunk.entry = RawEntry::default(),
                    _ => encode(codec, seal, sum, chunk, length),
                }
            }
        }
    }

    /// Puts one chunk under way, and takes what has come back meanwhile.
    async fn send_chunk(
        &mut self,
        plan: &Plan,
        memory: &Region,
        chunk: &Chunk,
        written: &mut Written,
    ) -> Result<(), Error> {
        let entry = &chunk.entry;
        let mut place = chunk.place(plan);
        if plan.codec.is_none() && entry.runs().count() <= MAX_RUNS {
            return self.send_in_place(plan, chunk, written).await;
        }
        let mut pages = (0..CHUNK_PAGES).filter(|page| entry.has(*page));
        let mut left = entry.padded() as usize;
        while left > 0 {
            let bytes = left.min(PART);
            let lane = self.lane(1, self.used_lanes()).await?;
            let to = self.io.memory(lane);
            match &plan.codec {
                Some(codec) => {
                    let coded = &codec.coded[..entry.stored as usize];
                    let at = entry.padded() as usize - left;
                    let coded = coded.get(at..).unwrap_or_default();
                    fill(&to, &coded[..coded.len().min(bytes)], bytes);
                }
                None => gather(memory, chunk.first, pages.by_ref().take(PART_PAGES), &to),
            }
            self.send_part(plan, lane, place, bytes, written).await?;
            place += bytes as u64;
            left -= bytes;
        }
        Ok(())
    }

    /// Each run of pages by a request straight from the memory.
    async fn send_in_place(
        &mut self,
        plan: &Plan,
        chunk: &Chunk,
        written: &mut Written,
    ) -> Result<(), Error> {
        let mut place = chunk.place(plan);
        for (first, count) in chunk.entry.runs() {
            let lane = self.lane(self.own_lanes(), usize::MAX).await?;
            let span = Span {
                offset: (chunk.first + first) * PAGE,
                ..plan.area.span(place, count * PAGE)
            };
            self.io.send(lane, Op::Write, span, PURPOSE).await?;
            place += (count * PAGE) as u64;
            written.in_place += 1;
        }
        self.io.kick()
    }

    /// Puts what is at the start of a lane under way.
    async fn send_part(
        &mut self,
        plan: &Plan,
        lane: usize,
        place: u64,
        bytes: usize,
        written: &mut Written,
    ) -> Result<(), Error> {
        let span = plan.area.span(place, bytes);
        self.io.send(lane, Op::Write, span, PURPOSE).await?;
        written.staged += 1;
        self.io.kick()
    }

    /// An idle lane from `first` on, before `end`, as soon as there is one.
    async fn lane(&mut self, first: usize, end: usize) -> Result<usize, Error> {
        loop {
            while self.io.harvest(0, usize::MAX)?.is_some() {}
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

/// Looks at pages of a chunk once, as many as are left or fit into the lane, if
/// there is one: notes those that are to be stored, puts them one behind the other
/// into the lane, and hands each out. Returns their bytes.
fn scan(
    memory: &Region,
    chunk: &mut Chunk,
    free: &mut Free<'_>,
    (copy, lane): (&mut Page, Option<Region>),
    mut each: impl FnMut(&[u8]),
) -> usize {
    let mut bytes = 0;
    let room = lane.as_ref().map_or(usize::MAX, Region::len);
    while bytes < room
        && let Some(page) = chunk.rest.next()
    {
        if free.has(page) {
            chunk.free += 1;
        } else if copy_page(memory, page, copy, lane.as_ref().map(|lane| (lane, bytes))) {
            chunk.zero += 1;
        } else {
            bytes += PAGE;
            chunk.entry.set(page - chunk.first);
            each(copy.as_bytes());
        }
    }
    bytes
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

/// Copies pages of the chunk that begins at page `first` to the start of a lane.
fn gather(memory: &Region, first: usize, pages: impl Iterator<Item = usize>, lane: &Region) {
    for (at, page) in pages.enumerate() {
        let from = memory.words((first + page) * PAGE, PAGE / 8);
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
