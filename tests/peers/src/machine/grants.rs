//! The grant table as Xen sees it, and mappings that peers hold.

use super::{FakeMachine, Violation};
use firn_block::PAGE;
use firn_block::shm::Region;
use firn_xen::wire::grant_table::{
    ENTRIES_PER_FRAME, ENTRY_SIZE, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING,
    GrantRef,
};
use firn_xen::wire::{DomId, Gfn};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering::SeqCst;

/// Frames that the grant table may grow to.
pub const MAX_GRANT_FRAMES: u32 = 64;

/// The low bits of the flags hold the type of the entry.
const TYPE_MASK: u16 = 3;

/// Why a grant could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The reference lies outside the table.
    BadRef(GrantRef),
    /// The entry permits nothing to this domain.
    NotGranted(GrantRef),
    /// Write access to a read-only grant.
    ReadOnly(GrantRef),
    /// The entry names a frame where the guest has no memory.
    BadFrame(GrantRef, Gfn),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRef(gref) => write!(f, "{gref} is outside the table"),
            Self::NotGranted(gref) => write!(f, "{gref} is not granted to this domain"),
            Self::ReadOnly(gref) => write!(f, "{gref} is read-only"),
            Self::BadFrame(gref, gfn) => write!(f, "{gref} names frame {:#x}: no memory", gfn.0),
        }
    }
}

impl std::error::Error for GrantError {}

#[derive(Clone, Copy, Default)]
struct Active {
    frame: u32,
    readers: u32,
    writers: u32,
}

/// Xen's side of the guest's table.
pub(super) struct GrantTable {
    table: Region,
    pub(super) frames: u32,
    pub(super) max_frames: u32,
    active: BTreeMap<u32, Active>,
    pub(super) maps: u64,
    /// Frames of the table that the guest has not asked for on this host.
    absent: BTreeSet<u32>,
    /// Counts hosts: a mapping belongs to one.
    generation: u32,
}

impl GrantTable {
    pub(super) fn new(table: Region) -> Self {
        Self {
            table,
            frames: 1,
            max_frames: MAX_GRANT_FRAMES,
            active: BTreeMap::new(),
            maps: 0,
            absent: BTreeSet::new(),
            generation: 0,
        }
    }

    /// A new host: no grant, no mapping, and no frame of the table where the
    /// guest looks for it.
    pub(super) fn forget(&mut self) {
        self.frames = 1;
        self.active.clear();
        self.generation += 1;
        self.absent = (0..MAX_GRANT_FRAMES).collect();
        for at in (0..self.table.len()).step_by(8) {
            self.table.atomic_u64(at).store(u64::MAX, SeqCst);
        }
    }

    /// The guest asks for a frame of the table.
    pub(super) fn appear(&mut self, frame: u32) {
        if self.absent.remove(&frame) {
            self.table.zero(frame as usize * PAGE, PAGE);
        }
        self.frames = self.frames.max(frame + 1);
    }

    fn offset(gref: u32) -> usize {
        gref as usize * ENTRY_SIZE
    }

    fn flags(&self, gref: u32) -> u16 {
        self.table.atomic_u16(Self::offset(gref)).load(SeqCst)
    }

    fn domid(&self, gref: u32) -> u16 {
        self.table.atomic_u16(Self::offset(gref) + 2).load(SeqCst)
    }

    fn frame(&self, gref: u32) -> u32 {
        self.table.atomic_u32(Self::offset(gref) + 4).load(SeqCst)
    }

    /// Pins an entry: checks it and marks it as in use, in one atomic step.
    fn pin(&mut self, domid: u16, gref: u32, write: bool) -> Result<Gfn, GrantError> {
        let name = GrantRef(gref);
        if gref >= self.frames * ENTRIES_PER_FRAME {
            return Err(GrantError::BadRef(name));
        }
        let used = GTF_READING | if write { GTF_WRITING } else { 0 };
        let mut flags = self.flags(gref);
        loop {
            if flags & TYPE_MASK != GTF_PERMIT_ACCESS || self.domid(gref) != domid {
                return Err(GrantError::NotGranted(name));
            }
            if write && flags & GTF_READONLY != 0 {
                return Err(GrantError::ReadOnly(name));
            }
            let entry = self.table.atomic_u16(Self::offset(gref));
            match entry.compare_exchange(flags, flags | used, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => flags = now,
            }
        }
        let frame = self.frame(gref);
        let active = self.active.entry(gref).or_default();
        active.frame = frame;
        active.readers += 1;
        active.writers += u32::from(write);
        self.maps += 1;
        Ok(Gfn(u64::from(frame)))
    }

    /// Whether the entry is still what was pinned.
    fn is_intact(&self, gref: u32, write: bool) -> bool {
        let used = GTF_READING | if write { GTF_WRITING } else { 0 };
        let flags = self.flags(gref);
        let frame = self.active.get(&gref).map(|active| active.frame);
        flags & TYPE_MASK == GTF_PERMIT_ACCESS
            && flags & used == used
            && Some(self.frame(gref)) == frame
    }

    fn unpin(&mut self, gref: u32, write: bool) {
        let Some(active) = self.active.get_mut(&gref) else {
            return;
        };
        active.readers -= 1;
        active.writers -= u32::from(write);
        let (readers, writers) = (active.readers, active.writers);
        let mut clear = 0;
        if writers == 0 {
            clear |= GTF_WRITING;
        }
        if readers == 0 {
            clear |= GTF_READING;
            self.active.remove(&gref);
        }
        let entry = self.table.atomic_u16(Self::offset(gref));
        entry.fetch_and(!clear, SeqCst);
    }

    /// A mapped grant of one of these frames.
    pub(super) fn mapped_in(&self, frames: &std::ops::Range<u64>) -> Option<GrantRef> {
        let hit = |active: &Active| frames.contains(&u64::from(active.frame));
        let found = self.active.iter().find(|(_, active)| hit(active));
        found.map(|(gref, _)| GrantRef(*gref))
    }

    /// An entry that permits access to one of these frames.
    pub(super) fn granted_in(&self, frames: &std::ops::Range<u64>) -> Option<GrantRef> {
        self.live()
            .into_iter()
            .find(|gref| frames.contains(&u64::from(self.frame(gref.0))))
    }

    /// Every entry that permits access.
    pub(super) fn live(&self) -> Vec<GrantRef> {
        (0..self.frames * ENTRIES_PER_FRAME)
            .filter(|gref| self.flags(*gref) & TYPE_MASK == GTF_PERMIT_ACCESS)
            .map(GrantRef)
            .collect()
    }

    pub(super) fn mapped(&self) -> usize {
        self.active.len()
    }
}

/// A guest page that a peer has mapped; dropping it unmaps.
///
/// Every access looks whether the guest has meanwhile taken the grant away,
/// which a sane guest cannot do while the page is mapped, and notes a
/// [`Violation`] if so.
pub struct Mapping {
    machine: FakeMachine,
    gref: GrantRef,
    write: bool,
    page: Region,
    generation: u32,
}

impl Mapping {
    /// The page. Checked as said above.
    pub fn page(&self) -> &Region {
        let grants = self.machine.grants.borrow();
        if self.is_of(&grants) && !grants.is_intact(self.gref.0, self.write) {
            self.machine.note(Violation::RevokedUnderMapping(self.gref));
        }
        &self.page
    }

    /// Writes to the page by this mapping, which stays.
    pub fn write_unseen(&self, offset: usize, bytes: &[u8]) {
        self.machine.write_unseen(self.page(), offset, bytes);
    }

    /// Whether it was made on the present host.
    const fn is_of(&self, grants: &GrantTable) -> bool {
        self.generation == grants.generation
    }

    /// Which grant.
    #[must_use]
    pub const fn gref(&self) -> GrantRef {
        self.gref
    }

    /// Whether it may be written.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.write
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.page();
        let mut grants = self.machine.grants.borrow_mut();
        if self.is_of(&grants) {
            grants.unpin(self.gref.0, self.write);
            self.machine.see(&self.page);
        }
    }
}

impl FakeMachine {
    /// Maps a page that the guest granted to `domid`.
    ///
    /// # Errors
    /// [`GrantError`], and nothing is mapped.
    pub fn map_grant(
        &self,
        domid: DomId,
        gref: GrantRef,
        write: bool,
    ) -> Result<Mapping, GrantError> {
        let gfn = self.grants.borrow_mut().pin(domid.0, gref.0, write)?;
        let Some(frame) = self.frames.borrow().frame(gfn) else {
            self.grants.borrow_mut().unpin(gref.0, write);
            return Err(GrantError::BadFrame(gref, gfn));
        };
        if frame.freed {
            self.note(Violation::GrantOfFreedPage(gref));
        }
        debug_assert_eq!(frame.page.len(), PAGE);
        Ok(Mapping {
            machine: self.clone(),
            gref,
            write,
            page: frame.page,
            generation: self.grants.borrow().generation,
        })
    }

    /// Every grant that is open to somebody, mapped or not.
    #[must_use]
    pub fn live_grants(&self) -> Vec<GrantRef> {
        self.grants.borrow().live()
    }

    /// How many grants peers have mapped now.
    #[must_use]
    pub fn mapped_grants(&self) -> usize {
        self.grants.borrow().mapped()
    }

    /// How often a grant was mapped so far.
    #[must_use]
    pub fn map_count(&self) -> u64 {
        self.grants.borrow().maps
    }
}
