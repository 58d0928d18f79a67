//! Memory outside job memory that the image code works with.

use alloc::vec::Vec;
use core::cell::RefCell;

use firn_block::DiskId;
use firn_block::shm::Region;
use firn_image::{CHUNK, Store};
use firn_power::Fault;

use crate::drives::{DriveDevice, Drives};
use crate::mm::PAGE;

/// Chunks of working memory for an image, if there is enough; else fewer. More
/// are not used where a backend keeps them mapped.
const MOST_CHUNKS: usize = 4;
const CHUNK_PAGES: usize = CHUNK / PAGE as usize;

/// Memory that is lent, or kept for the next time.
struct Piece {
    /// The disk that has it, or whose backend may still have it mapped.
    disk: Option<DiskId>,
    lent: bool,
    region: Region,
}

/// What the image code has of boot memory, and may have again: a backend that
/// keeps grants mapped never gives memory back before it is disconnected.
pub(super) struct Scratch<D: Drives> {
    drives: D,
    pieces: RefCell<Vec<Piece>>,
}

impl<D: Drives> Scratch<D> {
    const LOOK: usize = Store::<DriveDevice<D>>::LOOK_SCRATCH;

    pub(super) fn new(drives: D) -> Self {
        Self {
            drives,
            pieces: RefCell::default(),
        }
    }

    /// Takes the memory for an image from the machine, unless it is there.
    pub(super) fn reserve(&self) -> Result<(), Fault> {
        let mut pieces = self.pieces.borrow_mut();
        if pieces.iter().any(|p| p.region.page_count() > Self::LOOK) {
            return Ok(());
        }
        let region = (1..=MOST_CHUNKS).rev().find_map(|chunks| self.take(chunks));
        pieces.push(Piece {
            disk: None,
            lent: false,
            region: region.ok_or(Fault::NoMemory)?,
        });
        Ok(())
    }

    /// Memory for so many chunks. More than one only where another is left: the
    /// compressor has to live, too. The ring of the image disk needs less than
    /// the one that it replaces.
    fn take(&self, chunks: usize) -> Option<Region> {
        let region = self
            .drives
            .alloc_shared(Self::LOOK + chunks * CHUNK_PAGES)?;
        if chunks > 1 {
            let Some(rest) = self.drives.alloc_shared(CHUNK_PAGES) else {
                self.drives.free_shared(region);
                return None;
            };
            self.drives.free_shared(rest);
        }
        Some(region)
    }

    /// Lends memory to work with a whole image on `disk`.
    pub(super) fn for_image(&self, disk: DiskId) -> Result<Region, Fault> {
        self.reserve()?;
        self.lend(disk, |pages| pages > Self::LOOK)
            .ok_or(Fault::NoMemory)
    }

    /// Lends memory to look at `disk`.
    pub(super) fn for_look(&self, disk: DiskId) -> Result<Region, Fault> {
        if let Some(region) = self.lend(disk, |pages| pages == Self::LOOK) {
            return Ok(region);
        }
        let region = self.drives.alloc_shared(Self::LOOK);
        let region = region.ok_or(Fault::NoMemory)?;
        self.pieces.borrow_mut().push(Piece {
            disk: Some(disk),
            lent: true,
            region: region.alias(),
        });
        Ok(region)
    }

    fn lend(&self, disk: DiskId, fits: impl Fn(usize) -> bool) -> Option<Region> {
        let mut pieces = self.pieces.borrow_mut();
        let piece = pieces.iter_mut().find(|piece| {
            !piece.lent
                && piece.disk.is_none_or(|owner| owner == disk)
                && fits(piece.region.page_count())
        })?;
        piece.disk = Some(disk);
        piece.lent = true;
        Some(piece.region.alias())
    }

    /// Takes back what was lent for work on `disk`; not `free` if its backend
    /// may still use it.
    pub(super) fn give_back(&self, disk: DiskId, free: bool) {
        for piece in self.pieces.borrow_mut().iter_mut() {
            if piece.lent && piece.disk == Some(disk) {
                piece.lent = false;
                if free {
                    piece.disk = None;
                }
            }
        }
    }

    /// The disk was disconnected: its backend has nothing any more.
    pub(super) fn disconnected(&self, disk: DiskId) {
        for piece in self.pieces.borrow_mut().iter_mut() {
            if !piece.lent && piece.disk == Some(disk) {
                piece.disk = None;
            }
        }
    }

    /// Whether somebody has some of it.
    pub(super) fn is_lent(&self) -> bool {
        self.pieces.borrow().iter().any(|piece| piece.lent)
    }
}
