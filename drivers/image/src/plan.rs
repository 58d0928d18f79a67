//! Asking first: will the image fit, and may it be written?

use crate::codec::Codec;
use crate::format::table::{RawDisk, RawEntry};
use crate::format::{self, padded};
use crate::seal::Seal;
use crate::slots::Layout;
use crate::{Area, Damage, Device, Generation, Header, Meta, SlotId, Slots, State, Store, Verdict};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use firn_block::shm::Region;
use firn_block::{DiskInfo, Durability, PAGE, SECTOR};

/// The memory to be saved.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// All of it; nobody but the host's disk code touches it while it is read.
    pub memory: &'a Region,
    /// Pages whose content does not matter, in rising order: they are left out,
    /// and are zero after a restore.
    pub free: &'a [Range<usize>],
}

impl Source<'_> {
    /// How many pages may have to be stored.
    #[must_use]
    pub fn pages(&self) -> usize {
        let free: usize = self.free.iter().map(ExactSizeIterator::len).sum();
        self.memory.page_count().saturating_sub(free)
    }
}

/// A key for sealed images.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub secret: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Compress chunks where that saves space.
    pub compress: bool,
    /// Encrypt and authenticate.
    pub key: Option<Key>,
    /// Fresh random bytes for this one image; needed with a key.
    pub salt: [u8; 12],
}

/// Why an image cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// The disk is somebody else's.
    Foreign,
    /// The disk holds another format version.
    Version(u32),
    /// The headers are damaged.
    Damaged(Damage),
    /// An image that may still be restored is on the disk.
    HasImage(Generation),
    /// The disk is read-only.
    ReadOnly,
    /// The host offers nothing to make writes durable.
    NoFlush,
    /// The disk's blocks are larger than a page.
    BlockSize(u32),
    /// It does not fit.
    NoSpace {
        /// Sectors of 512 bytes that it may need.
        needs: u64,
        /// Sectors of 512 bytes that there are.
        have: u64,
    },
    /// The disk has no queue any more.
    Gone,
    /// More disks than an image can name.
    Disks(usize),
    /// The memory is none that an image can hold.
    Memory(&'static str),
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("not an image disk: `image format` makes it one"),
            Self::Version(version) => write!(
                f,
                "the disk has an image of format {version}: `image format` makes it ours"
            ),
            Self::Damaged(damage) => write!(f, "the image disk is damaged: {damage}"),
            Self::HasImage(generation) => write!(
                f,
                "image {generation} on the disk may still be restored: restore it, \
                 give it up with `cold`, or use another disk"
            ),
            Self::ReadOnly => f.write_str("the image disk is read-only"),
            Self::NoFlush => f.write_str("the host offers no flush for the image disk"),
            Self::BlockSize(bytes) => {
                write!(
                    f,
                    "the image disk has blocks of {bytes} bytes, more than a page"
                )
            }
            Self::NoSpace { needs, have } => {
                write!(f, "the image may need {needs} sectors, the disk has {have}")
            }
            Self::Gone => f.write_str("the image disk is gone"),
            Self::Disks(count) => write!(f, "{count} disks are more than an image can name"),
            Self::Memory(what) => write!(f, "the memory cannot be saved: {what}"),
        }
    }
}

impl core::error::Error for WhyNot {}

/// How far a freeze is: its steps have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Planned,
    Chunks,
    Table,
    Committed,
}

/// A freeze that fits: what [`Store::write_chunks`] and the steps after it
/// work on. All memory that they need is in it, but for their requests.
pub struct Plan {
    pub(crate) header: Header,
    pub(crate) area: Area,
    /// The slot that will hold the image's header.
    pub(crate) target: SlotId,
    /// The disk was blank: it gets empty headers first.
    pub(crate) format_first: bool,
    pub(crate) how: How,
    pub(crate) disks: Vec<RawDisk>,
    pub(crate) entries: Vec<RawEntry>,
    pub(crate) codec: Option<Codec>,
    pub(crate) stage: Stage,
    needs: u64,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plan = f.debug_struct("Plan");
        plan.field("header", &self.header);
        plan.field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Plan {
    /// The generation that the image will have.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.header.generation
    }

    /// The header as it will be, or is, written.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The most bytes of the area that the image can take, headers and all.
    #[must_use]
    pub const fn needs(&self) -> u64 {
        self.needs
    }

    /// The seal of the image, where there is a key.
    pub(crate) fn seal(&self) -> Option<Seal> {
        let key = self.how.key.as_ref()?;
        Some(Seal::new(key, &self.header))
    }
}

impl<D: Device> Store<D> {
    /// F0: whether an image of this memory can be written here. Does no I/O,
    /// and looks at none of the memory: it counts as if no page were zero.
    ///
    /// A VALID image on the disk is a refusal: it is never written over.
    ///
    /// # Errors
    /// [`WhyNot`] names the reason.
    pub fn plan(
        &self,
        area: Area,
        slots: &Slots,
        source: &Source<'_>,
        meta: &Meta,
        how: How,
    ) -> Result<Plan, WhyNot> {
        let info = self.device().with_queue(|queue| queue.info().clone());
        let info = info.map_err(|_| WhyNot::Gone)?;
        writable(&info)?;
        let (target, format_first) = target(slots)?;
        let header = describe(source, meta, &how, area, slots.next_generation())?;
        let pages = source.memory.page_count() - free_pages(source);
        let needs = header.data_place() + (pages * PAGE) as u64;
        let have = area.sectors;
        if needs.div_ceil(SECTOR) > have {
            let needs = needs.div_ceil(SECTOR);
            return Err(WhyNot::NoSpace { needs, have });
        }
        let mut plan = Plan {
            header,
            area,
            target,
            format_first,
            disks: meta.disks.iter().map(RawDisk::from).collect(),
            entries: Vec::new(),
            codec: None,
            stage: Stage::Planned,
            needs,
            how,
        };
        let chunks = plan.header.chunks as usize;
        let none = WhyNot::Memory("no room for the table of chunks");
        plan.entries.try_reserve_exact(chunks).map_err(|_| none)?;
        if plan.how.compress || plan.how.key.is_some() {
            let none = WhyNot::Memory("no room to compress or seal a chunk");
            plan.codec = Some(Codec::to_write(plan.how.compress).ok_or(none)?);
        }
        Ok(plan)
    }
}

fn writable(info: &DiskInfo) -> Result<(), WhyNot> {
    if info.read_only {
        return Err(WhyNot::ReadOnly);
    }
    if info.durability == Durability::None {
        return Err(WhyNot::NoFlush);
    }
    if info.logical_block as usize > PAGE {
        return Err(WhyNot::BlockSize(info.logical_block));
    }
    Ok(())
}

/// The slot to commit to: the one that does not hold the latest state. Whether
/// the disk has no headers yet.
fn target(slots: &Slots) -> Result<(SlotId, bool), WhyNot> {
    match slots.verdict() {
        Verdict::Blank => Ok((SlotId::A, true)),
        Verdict::Ended(_, latest) => Ok((latest.other(), false)),
        Verdict::Valid(header, _) => Err(WhyNot::HasImage(header.generation)),
        Verdict::Foreign => Err(WhyNot::Foreign),
        Verdict::Version(version) => Err(WhyNot::Version(version)),
        Verdict::Damaged(damage) => Err(WhyNot::Damaged(damage)),
    }
}

fn describe(
    source: &Source<'_>,
    meta: &Meta,
    how: &How,
    area: Area,
    generation: Generation,
) -> Result<Header, WhyNot> {
    let bytes = source.memory.len() as u64;
    if bytes == 0 || bytes > format::MAX_HEAP {
        return Err(WhyNot::Memory("its length cannot be"));
    }
    if meta.heap.bytes != bytes || !meta.heap.address.is_multiple_of(PAGE as u64) {
        return Err(WhyNot::Memory(
            "its bounds are not those it is said to have",
        ));
    }
    if meta.heap.address.checked_add(bytes).is_none() {
        return Err(WhyNot::Memory("its bounds cannot be"));
    }
    if meta.disks.len() > Meta::MAX_DISKS {
        return Err(WhyNot::Disks(meta.disks.len()));
    }
    let chunks = u32::try_from(format::chunks(bytes));
    Ok(Header {
        generation,
        state: State::Valid,
        build: meta.build,
        heap: meta.heap,
        cpu: meta.cpu,
        time: meta.time,
        reason: meta.reason,
        chunks: chunks.map_err(|_| WhyNot::Memory("its length cannot be"))?,
        disks: meta.disks.len() as u32,
        pages: 0,
        stored: 0,
        area_sectors: area.sectors,
        sealed: how.key.is_some(),
        layout: Layout {
            salt: if how.key.is_some() { how.salt } else { [0; 12] },
            ..Layout::default()
        },
    })
}

/// How many pages are certainly left out.
fn free_pages(source: &Source<'_>) -> usize {
    let (mut end, mut count) = (0, 0);
    for range in source.free {
        let from = range.start.max(end);
        let to = range.end.min(source.memory.page_count());
        count += to.saturating_sub(from);
        end = end.max(to);
    }
    count
}

const _: () = assert!(padded(1) == PAGE as u64);
