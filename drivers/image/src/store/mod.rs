//! One image disk, and every step on it.

mod header;
mod identify;
mod load;
mod target;
mod write;

pub use load::{Loaded, Table};
pub use target::Target;
pub use write::Written;

use crate::format::{CHUNK_PAGES, SLOT_BYTES, TABLE_PLACE};
use crate::io::{Io, Purpose, Span, sectors};
use crate::{Device, Error, Slot, Slots};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use firn_block::identity::PartitionTable;
use firn_block::shm::Region;
use firn_block::{Op, PAGE, SECTOR};

/// The part of a disk that holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its first sector of 512 bytes; 0 for a whole disk.
    pub first_sector: u64,
    /// Its length in sectors of 512 bytes.
    pub sectors: u64,
    /// The partition, where it is one.
    pub partition: Option<u32>,
}

impl Area {
    /// Part of the area, as a request for the start of a buffer.
    fn span(&self, place: u64, bytes: usize) -> Span {
        Span {
            sector: self.first_sector.saturating_add(sectors(place)),
            bytes,
            offset: 0,
        }
    }

    /// Whether `bytes` from `place` on lie within.
    fn holds(&self, place: u64, bytes: u64) -> bool {
        let end = place.checked_add(bytes);
        end.is_some_and(|end| sectors(end) <= self.sectors)
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest time without any completion.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(5),
        }
    }
}

/// The lane for headers and tables.
const BLOCK: usize = 0;
/// Its length in pages.
const BLOCK_PAGES: usize = 32;
/// Requests that go straight from or to the memory at the same time.
const DEPTH: usize = 64;
/// A chunk with more runs of pages than this goes through the store's own
/// memory: one large request is better than many small ones.
const MAX_RUNS: usize = 16;
/// More lanes for whole chunks are not worth their memory.
const MAX_STAGING: usize = 32;
/// So many with a host that keeps memory mapped: Linux keeps 1056 pages of a disk,
/// and maps and unmaps all beyond that with each request, which takes longer than
/// the request itself.
const MAPPED_STAGING: usize = 4;

/// A page copied out of shared memory, to be looked at.
type Page = [u64; PAGE / 8];

/// One disk in use for images. The steps are separate so that whoever freezes
/// or restores orders them; the crate's documentation says how. Nobody else
/// uses the disk's queue meanwhile.
///
/// A step that is dropped before it has ended, or that ended with
/// [`Error::Stalled`], leaves requests with the host: close the disk before
/// the memory is used for anything else, and make a new store.
pub struct Store<D: Device> {
    io: Io<D>,
    scratch: Region,
    /// Lanes for whole chunks; they follow the block lane.
    staging: usize,
    /// The memory goes through these lanes, too: they stay mapped.
    mapped: bool,
    page: Box<Page>,
}

impl<D: Device> Store<D> {
    /// The scratch memory, in pages, of a store that only reads or writes
    /// headers and tables and identifies disks.
    pub const LOOK_SCRATCH: usize = BLOCK_PAGES;
    /// The least scratch memory, in pages, of a store that writes or loads an
    /// image. Each further [`crate::CHUNK`] lets one more compressed, sealed or
    /// scattered chunk be under way.
    pub const MIN_SCRATCH: usize = BLOCK_PAGES + CHUNK_PAGES;

    /// A store on `device`. `scratch` is memory outside the image, at least
    /// [`Store::LOOK_SCRATCH`] pages; [`Store::close`] gives it back.
    ///
    /// # Errors
    /// [`Error::Memory`] when there is too little or the queue does not take
    /// it.
    pub fn open(device: D, scratch: Region, limits: Limits) -> Result<Self, Error> {
        let pages = scratch.page_count();
        let Some(more) = pages.checked_sub(BLOCK_PAGES) else {
            return Err(Error::Memory("too little scratch memory"));
        };
        let mapped = device.with_queue(|queue| queue.keeps_mapped())?;
        let most = if mapped { MAPPED_STAGING } else { MAX_STAGING };
        let staging = (more / CHUNK_PAGES).min(most);
        let mut io = Io::new(device, limits);
        io.add(1, |_| scratch.pages(0, BLOCK_PAGES))?;
        let chunk = |number| scratch.pages(BLOCK_PAGES + number * CHUNK_PAGES, CHUNK_PAGES);
        io.add(staging, chunk)?;
        Ok(Self {
            io,
            scratch,
            staging,
            mapped,
            page: Box::new([0; PAGE / 8]),
        })
    }

    /// A store of [`Store::LOOK_SCRATCH`] on memory that an earlier one could
    /// not take back, because the host keeps it mapped.
    ///
    /// # Errors
    /// The device itself where the queue has none.
    pub fn reopen(device: D, limits: Limits) -> Result<Self, D> {
        let kept = device.with_queue(|queue| queue.reuse(BLOCK_PAGES));
        let Ok(Some(buffer)) = kept else {
            return Err(device);
        };
        let scratch = buffer.region().alias();
        let mut io = Io::new(device, limits);
        io.add_kept(buffer);
        Ok(Self {
            io,
            scratch,
            staging: 0,
            mapped: true,
            page: Box::new([0; PAGE / 8]),
        })
    }

    /// The disk.
    pub const fn device(&self) -> &D {
        &self.io.device
    }

    /// Takes all memory back from the queue. Returns the scratch memory, or
    /// `None` while the host still has some of it.
    pub fn close(mut self) -> Option<Region> {
        self.io.remove(0).then(|| self.scratch.alias())
    }

    /// Finds the part of the disk that is for images: the partition of
    /// [`crate::PARTITION_TYPE`], or without a partition table the whole disk.
    /// `None` where there is a table without such a partition, and where there
    /// is no room for an image's headers.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read or its partition table is broken.
    pub async fn area(&mut self) -> Result<Option<Area>, Error> {
        let info = self.io.device.with_queue(|queue| queue.info().clone())?;
        let whole = Area {
            first_sector: 0,
            sectors: info.capacity,
            partition: None,
        };
        let wanted = PartitionTable::wanted(info.logical_block);
        let bytes = wanted.next_multiple_of(PAGE);
        if bytes > BLOCK_PAGES * PAGE || !whole.holds(0, TABLE_PLACE) {
            return Ok(None);
        }
        let start = self.read(&whole, 0, bytes, "reading the partition table");
        let start = start.await?;
        let table = PartitionTable::parse(&start, info.logical_block, info.capacity);
        let Some(table) = table.map_err(Error::Partitions)? else {
            return Ok(Some(whole));
        };
        let ours = |part: &&firn_block::identity::Partition| part.kind == crate::PARTITION_TYPE;
        Ok(table.partitions.iter().find(ours).map(|part| Area {
            first_sector: part.first,
            sectors: part.sectors,
            partition: Some(part.number),
        }))
    }

    /// Reads both header slots.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read. What is wrong with the headers
    /// is in the answer.
    pub async fn look(&mut self, area: Area) -> Result<Slots, Error> {
        if !area.holds(0, TABLE_PLACE) {
            return Ok(Slots {
                a: Slot::Foreign,
                b: Slot::Foreign,
                rest_blank: false,
            });
        }
        let front = self.read(&area, 0, TABLE_PLACE as usize, "reading the image headers");
        Ok(Slots::parse(&front.await?))
    }

    /// Makes everything written so far durable (F10, F12). Nothing overlaps it.
    ///
    /// # Errors
    /// [`Error`]: nothing is known to be durable.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.io.flush("flushing the image disk").await
    }

    /// Reads whole pages, by as many requests as it takes.
    async fn read(
        &mut self,
        area: &Area,
        place: u64,
        bytes: usize,
        what: &'static str,
    ) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        let none = Error::Memory("no room for what is on the disk");
        all.try_reserve_exact(bytes).map_err(|_| none)?;
        all.resize(bytes, 0);
        let memory = self.io.memory(BLOCK);
        let mut at = place;
        for piece in all.chunks_mut(BLOCK_PAGES * PAGE) {
            let span = area.span(at, piece.len());
            self.io.once(BLOCK, Op::Read, span, what).await?;
            memory.copy_out(0, piece);
            at += piece.len() as u64;
        }
        Ok(all)
    }

    /// Whether the memory goes through lanes that the host keeps mapped:
    /// [`Store::map_lanes`] is worth its time then.
    #[must_use]
    pub const fn keeps_mapped(&self) -> bool {
        self.mapped
    }

    /// Has the host map the lanes that an image of `pages` will go through. It does so
    /// when it first sees a page, and the first requests of the image would take
    /// several times as long as the rest. Reads the start of the area into each of
    /// the lanes, and changes nothing.
    ///
    /// # Errors
    /// [`Error`] when the disk cannot be read.
    pub async fn map_lanes(&mut self, area: &Area, pages: usize) -> Result<(), Error> {
        let what = "letting the host map the image's memory";
        self.io.settle(what).await?;
        let bytes = (area.sectors.saturating_mul(SECTOR) / PAGE as u64).min(CHUNK_PAGES as u64);
        let span = area.span(0, bytes as usize * PAGE);
        for lane in 1..=self.staging.min(pages.div_ceil(CHUNK_PAGES)) {
            let purpose = Purpose { what, tag: 0 };
            self.io.send(lane, Op::Read, span, purpose).await?;
        }
        self.io.settle(what).await
    }

    /// Before a step that moves the memory: what an earlier one left is over, and there
    /// are lanes for all of it.
    async fn begin(&mut self, memory: Option<&Region>) -> Result<(), Error> {
        if self.staging == 0 {
            return Err(Error::Memory("too little scratch memory"));
        }
        let _ = self.io.settle("waiting for earlier requests").await;
        self.io.remove(self.own_lanes());
        match memory {
            _ if self.mapped => Ok(()),
            Some(memory) => self.io.add(DEPTH, |_| memory.alias()),
            None => Ok(()),
        }
    }

    /// After it: the host has nothing of the memory any more, unless it stalls.
    async fn end<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        if matches!(outcome, Err(Error::Stalled { .. } | Error::Gone)) {
            return outcome;
        }
        let settled = self.io.settle("ending").await;
        if matches!(settled, Err(Error::Stalled { .. } | Error::Gone)) {
            return outcome.and_then(|value| settled.map(|()| value));
        }
        self.io.remove(self.own_lanes());
        outcome.and_then(|value| settled.map(|()| value))
    }

    /// The lanes that live as long as the store; those of the memory follow.
    const fn own_lanes(&self) -> usize {
        1 + self.staging
    }
}

const _: () = assert!(TABLE_PLACE as usize <= BLOCK_PAGES * PAGE);
const _: () = assert!(SLOT_BYTES <= BLOCK_PAGES * PAGE);
