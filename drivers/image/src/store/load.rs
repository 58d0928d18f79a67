//! Reading an image: its table, and every chunk into its place.

use super::table::parse_table;
use super::write::copy_page;
use super::{Area, DEPTH, MAX_RUNS, PART, Page, Store, Table, Target};
use crate::codec::Codec;
use crate::format::sum::{Of, Sum};
use crate::format::table::{NOTHING, RAW, RawEntry};
use crate::format::{TABLE_PLACE, padded};
use crate::io::{Purpose, Span};
use crate::seal::Seal;
use crate::{Damage, Device, Error, Key, Slots, Verdict};
use alloc::vec::Vec;
use firn_block::shm::Region;
use firn_block::{Op, PAGE};
use zerocopy::IntoBytes;

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

/// A load under way.
struct Reader<'a> {
    table: &'a Table,
    /// Where to; nowhere when the image is only to be verified.
    into: Option<&'a Target<'a>>,
    /// Requests go straight into the memory, where there is one.
    in_place: bool,
    /// The next chunk to ask for...
    next: u32,
    /// ...and how many bytes of it were asked for.
    asked: usize,
    /// Requests out for each chunk that goes in place.
    left: Vec<u8>,
    /// Parts that were asked for, and that were taken. The lanes for parts are
    /// used in turn, and what came is taken in the order in which it was asked for.
    parts: (usize, usize),
    /// The chunk of which parts come in.
    coming: Option<Coming>,
    codec: Option<Codec>,
    loaded: Loaded,
}

/// A chunk of which some parts came.
struct Coming {
    /// Of its stored bytes.
    sum: Sum,
    /// How many bytes came.
    bytes: usize,
    /// Stored pages that came.
    pages: usize,
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
            in_place: into.is_some() && !self.mapped,
            next: 0,
            asked: 0,
            left,
            parts: (0, 0),
            coming: None,
            codec,
            loaded: Loaded::default(),
        };
        let pages = table.header.pages as usize;
        self.begin(into.map(|target| &target.memory), pages).await?;
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
            } else if self.io.in_flight() == 0 {
                // Where a buffer stayed with the queue, something was not verified.
                return reader.has_all().then_some(()).ok_or(Error::Gone);
            } else {
                self.io.turn(WHAT).await?;
            }
        }
    }

    /// Takes one request that came back; false where there is none.
    fn verify_one(&mut self, reader: &mut Reader<'_>) -> Result<bool, Error> {
        if let Some((_, purpose)) = self.io.harvest(self.own_lanes(), usize::MAX)? {
            let left = &mut reader.left[purpose.tag as usize];
            *left -= 1;
            if *left == 0 {
                reader.take_in_place(purpose.tag, &mut self.page)?;
            }
            return Ok(true);
        }
        let (asked, taken) = reader.parts;
        if asked == taken {
            return Ok(false);
        }
        let lane = self.part_lane(taken);
        let Some((_, purpose)) = self.io.harvest(lane, lane + 1)? else {
            return Ok(false);
        };
        reader.parts.1 += 1;
        reader.take_part(purpose.tag, &self.io.memory(lane), &mut self.page)?;
        Ok(true)
    }

    /// Asks for the next stored chunk, or part of one; false where there is none
    /// or no lane.
    async fn ask(&mut self, reader: &mut Reader<'_>) -> Result<bool, Error> {
        let table = reader.table;
        reader.skip_empty();
        let Some(entry) = table.entries.get(reader.next as usize) else {
            return Ok(false);
        };
        let purpose = Purpose {
            what: WHAT,
            tag: reader.next,
        };
        let place = table.header.data_place() + entry.place;
        if reader.goes_in_place(entry) {
            let runs = entry.runs().count();
            if self.io.idle_count(self.own_lanes(), usize::MAX) < runs {
                return Ok(false);
            }
            reader.left[purpose.tag as usize] = runs as u8;
            self.ask_in_place(table, entry, place, purpose).await?;
            reader.next += 1;
            return Ok(true);
        }
        let lane = self.part_lane(reader.parts.0);
        if self.io.idle(lane, lane + 1).is_none() {
            return Ok(false);
        }
        let all = entry.padded() as usize;
        let bytes = PART.min(all - reader.asked);
        let span = table.area.span(place + reader.asked as u64, bytes);
        self.io.send(lane, Op::Read, span, purpose).await?;
        reader.parts.0 += 1;
        reader.asked += bytes;
        if reader.asked == all {
            reader.next += 1;
            reader.asked = 0;
        }
        Ok(true)
    }

    /// The lane of a part, of which each has its number.
    const fn part_lane(&self, part: usize) -> usize {
        1 + part % self.used
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

    /// Whether a chunk is read straight into the memory.
    fn goes_in_place(&self, entry: &RawEntry) -> bool {
        self.in_place && self.table.in_place(entry)
    }

    /// Whether every chunk came.
    fn has_all(&self) -> bool {
        let (asked, taken) = self.parts;
        self.next >= self.table.header.chunks
            && asked == taken
            && self.left.iter().all(|left| *left == 0)
    }

    /// All of chunk `index` is in its place: verifies it.
    fn take_in_place(&mut self, index: u32, page: &mut Page) -> Result<(), Error> {
        let entry = &self.table.entries[index as usize];
        let Some(target) = self.into else {
            return Err(Error::Order("there is no memory to read into"));
        };
        let mut sum = Sum::new(self.table.header.generation, Of::Chunk(index));
        for place in self.table.stored(index, 0) {
            copy_page(&target.memory, place, page, None);
            sum.add(page.as_bytes());
        }
        if sum.end() != entry.sum {
            return Err(damage(index, "its checksum is wrong"));
        }
        self.count(entry);
        Ok(())
    }

    /// The next part of chunk `index` is in the lane: takes it, once; with the
    /// last one, the chunk is verified.
    fn take_part(&mut self, index: u32, lane: &Region, page: &mut Page) -> Result<(), Error> {
        let table = self.table;
        let entry = &table.entries[index as usize];
        let generation = table.header.generation;
        let coming = self.coming.get_or_insert_with(|| Coming {
            sum: Sum::new(generation, Of::Chunk(index)),
            bytes: 0,
            pages: 0,
        });
        let all = entry.padded() as usize;
        let bytes = PART.min(all - coming.bytes);
        let into = self.into.map(|target| &target.memory);
        match &mut self.codec {
            Some(codec) => {
                let to = codec.coded.get_mut(coming.bytes..coming.bytes + bytes);
                let to = to.ok_or_else(|| damage(index, "its length cannot be"))?;
                lane.copy_out(0, to);
            }
            None => {
                let places = table.stored(index, coming.pages);
                for (at, place) in (0..bytes).step_by(PAGE).zip(places) {
                    copy_page(
                        lane,
                        at / PAGE,
                        page,
                        into.map(|memory| (memory, place * PAGE)),
                    );
                    coming.sum.add(page.as_bytes());
                    coming.pages += 1;
                }
            }
        }
        coming.bytes += bytes;
        if coming.bytes < all {
            return Ok(());
        }
        let sum = self.coming.take().map(|coming| coming.sum);
        match (&mut self.codec, sum) {
            (Some(codec), Some(sum)) => {
                open(codec, index, entry, table.seal.as_ref(), sum)?;
                let plain = codec.decode(index, entry).map_err(Error::Damaged)?;
                if let Some(memory) = into {
                    let pages = plain.chunks_exact(PAGE).zip(table.stored(index, 0));
                    pages.for_each(|(bytes, place)| memory.copy_in(place * PAGE, bytes));
                }
            }
            (None, Some(sum)) if sum.end() == entry.sum => {}
            _ => return Err(damage(index, "its checksum is wrong")),
        }
        self.count(entry);
        Ok(())
    }

    fn count(&mut self, entry: &RawEntry) {
        self.loaded.pages += entry.page_count() as u64;
        self.loaded.bytes += entry.padded();
    }
}

const fn damage(index: u32, what: &'static str) -> Error {
    Error::Damaged(Damage::Chunk { index, what })
}

/// Verifies the stored chunk in `codec.coded`, and opens it if it is sealed.
fn open(
    codec: &mut Codec,
    index: u32,
    entry: &RawEntry,
    seal: Option<&Seal>,
    mut sum: Sum,
) -> Result<(), Error> {
    let bytes = codec.coded.get_mut(..entry.padded() as usize);
    let bytes = bytes.ok_or_else(|| damage(index, "its length cannot be"))?;
    let (bytes, behind) = bytes.split_at_mut(entry.stored as usize);
    if behind.iter().any(|byte| *byte != 0) {
        return Err(damage(index, "there is something behind it"));
    }
    if let Some(seal) = seal {
        let opened = seal.open(index, entry, bytes);
        return opened.map_err(|_| damage(index, "it is not what was sealed"));
    }
    sum.add(bytes);
    if sum.end() != entry.sum {
        return Err(damage(index, "its checksum is wrong"));
    }
    Ok(())
}

const _: () = assert!(MAX_RUNS <= DEPTH && MAX_RUNS <= u8::MAX as usize);
