//! The grant table, version 1 entries (`grant_table.h`).
//!
//! A grant lets another domain map one of our pages. Giving is a memory write;
//! taking back may fail while the other side has the page mapped, and then the
//! page must not be used for anything else. Such references go on a deferred
//! list, with a warning that names them; the page itself is given up.
//!
//! A reference that was told to a backend outlives its grant: a backend that was busy
//! may yet come and map it, and must not find another page there. So where a backend
//! was not waited for, its references are [set aside](Reuse::AfterDevice).

use crate::hal::{Fixed, Hal};
use crate::hypercall::Hypercall;
use crate::wire::errno::Errno;
use crate::wire::grant_table::{
    ENTRIES_PER_FRAME, ENTRY_SIZE, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING,
    GrantRef, QuerySize, RESERVED_ENTRIES,
};
use crate::wire::memory::{AddToPhysmap, SPACE_GRANT_TABLE};
use crate::wire::{DomId, Gfn};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::time::Duration;
use firn_block::PAGE;
use firn_block::shm::Region;
use firn_task::Instant;

/// How often the deferred list is tried, and how many entries each time.
const RETRY_EVERY: Duration = Duration::from_secs(1);
const RETRY_BATCH: usize = 16;
/// Xen sets and clears the mapping bits concurrently; each change can make one
/// compare-and-exchange fail, and a domain maps with at most a few at a time.
const EXCHANGE_TRIES: usize = 16;

/// What the other domain may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// A live grant, as `grants` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveGrant {
    /// Its reference.
    pub reference: GrantRef,
    /// The page.
    pub gfn: Gfn,
    /// Who may map it.
    pub domain: DomId,
    /// What for.
    pub purpose: &'static str,
    /// Whether it is on the deferred list.
    pub deferred: bool,
    /// Whether Xen says that it is mapped right now.
    pub mapped: bool,
}

/// Why there is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The table is full and Xen lets it grow no further.
    Exhausted {
        /// Entries in use.
        entries: u32,
    },
    /// Xen would not map another frame of the table.
    Grow(Errno),
    /// The page's frame number does not fit into a version 1 entry.
    FrameTooHigh(Gfn),
    /// The table's frames cannot be reached.
    Unreachable,
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted { entries } => {
                write!(f, "all {entries} grant references are in use")
            }
            Self::Grow(errno) => write!(f, "the grant table cannot grow: {errno}"),
            Self::FrameTooHigh(gfn) => write!(f, "frame {:#x} needs grant table v2", gfn.0),
            Self::Unreachable => f.write_str("the grant table's frames are not mapped"),
        }
    }
}

impl core::error::Error for GrantError {}

/// The other domain has the page mapped; the grant is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillMapped(pub GrantRef);

#[derive(Clone, Copy)]
struct Entry {
    gfn: Gfn,
    domain: DomId,
    purpose: &'static str,
    state: EntryState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Free,
    Live,
    Deferred,
    /// Not in force, and not free before this device's backend has let go.
    SetAside(u32),
}

/// When a reference may stand for another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Nobody will look it up any more.
    Now,
    /// When the backend of this virtual device has let go ([`Grants::free_set_aside`]):
    /// it was told of the reference, and has not said that it is done with it.
    AfterDevice(u32),
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    deferred: Vec<GrantRef>,
    retry_at: Option<Instant>,
}

/// This domain's grant table.
pub struct Grants {
    frames: Region,
    first: Gfn,
    /// Frames that there is room for.
    room: u32,
    /// Frames that this host allows.
    max_frames: Cell<u32>,
    table: RefCell<Table>,
}

impl Grants {
    /// Maps the first frame of the table.
    ///
    /// # Errors
    /// [`GrantError`] when not even that can be had.
    pub fn new(hal: &impl Hal) -> Result<Self, GrantError> {
        let window = hal.fixed(Fixed::GrantTable);
        let frames = hal
            .map_frames(window.first, window.count as usize)
            .ok_or(GrantError::Unreachable)?;
        let grants = Self {
            frames,
            first: window.first,
            room: window.count,
            max_frames: Cell::new(allowed_frames(hal).min(window.count)),
            table: RefCell::default(),
        };
        grants.grow(hal)?;
        Ok(grants)
    }

    /// Takes up the table of a new host, in which no grant is in force. Every
    /// reference of the old one's is void and must not be ended; pages that were
    /// given up stay given up.
    ///
    /// # Errors
    /// [`GrantError`] when not one frame can be had.
    pub fn resume(&self, hal: &impl Hal) -> Result<(), GrantError> {
        self.max_frames.set(allowed_frames(hal).min(self.room));
        let old = core::mem::take(&mut *self.table.borrow_mut());
        if !old.deferred.is_empty() {
            let count = old.deferred.len();
            log::info!("{count} grants that were never given back stayed on the old host");
        }
        self.grow(hal)
    }

    /// Doubles the table, highest frame first, so that Xen grows it once.
    fn grow(&self, hal: &impl Hal) -> Result<(), GrantError> {
        let mut table = self.table.borrow_mut();
        let have = u32::try_from(table.entries.len()).unwrap_or(u32::MAX) / ENTRIES_PER_FRAME;
        let want = (have * 2).clamp(1, self.max_frames.get());
        if want <= have {
            return Err(GrantError::Exhausted {
                entries: have * ENTRIES_PER_FRAME,
            });
        }
        let (old, new) = (have * ENTRIES_PER_FRAME, want * ENTRIES_PER_FRAME);
        // Room for all of them: ending a grant never allocates. Without it,
        // requests wait for the grants that there are.
        let (entries, free) = (new as usize - old as usize, new as usize - table.free.len());
        let none = GrantError::Exhausted { entries: old };
        table.entries.try_reserve_exact(entries).map_err(|_| none)?;
        table.free.try_reserve_exact(free).map_err(|_| none)?;
        for frame in (have..want).rev() {
            let map = AddToPhysmap {
                domid: DomId::SELF.0,
                size: 0,
                space: SPACE_GRANT_TABLE,
                idx: u64::from(frame),
                gpfn: self.first.0 + u64::from(frame),
            };
            hal.hypercall(Hypercall::AddToPhysmap(&map))
                .map_err(GrantError::Grow)?;
        }
        let free = Entry {
            gfn: Gfn(0),
            domain: DomId(0),
            purpose: "",
            state: EntryState::Free,
        };
        table.entries.resize(new as usize, free);
        table.free.extend((old.max(RESERVED_ENTRIES)..new).rev());
        Ok(())
    }

    /// Lets `domain` map the page `gfn`. `purpose` is for people.
    ///
    /// # Errors
    /// [`GrantError`] when there is no reference left.
    pub fn grant(
        &self,
        hal: &impl Hal,
        domain: DomId,
        gfn: Gfn,
        access: Access,
        purpose: &'static str,
    ) -> Result<GrantRef, GrantError> {
        let frame = u32::try_from(gfn.0).map_err(|_| GrantError::FrameTooHigh(gfn))?;
        if self.table.borrow().free.is_empty() {
            self.grow(hal)?;
        }
        let mut table = self.table.borrow_mut();
        let Some(index) = table.free.pop() else {
            let entries = u32::try_from(table.entries.len()).unwrap_or(u32::MAX);
            return Err(GrantError::Exhausted { entries });
        };
        table.entries[index as usize] = Entry {
            gfn,
            domain,
            purpose,
            state: EntryState::Live,
        };
        let at = index as usize * ENTRY_SIZE;
        let flags = match access {
            Access::Read => GTF_PERMIT_ACCESS | GTF_READONLY,
            Access::ReadWrite => GTF_PERMIT_ACCESS,
        };
        self.frames.atomic_u32(at + 4).store(frame, Relaxed);
        self.frames.atomic_u16(at + 2).store(domain.0, Relaxed);
        // The flags make the entry valid: last, after the rest is visible.
        self.frames.atomic_u16(at).store(flags, Release);
        Ok(GrantRef(index))
    }

    /// Takes a grant back.
    ///
    /// # Errors
    /// [`StillMapped`]: the grant stays in force and the page must not be
    /// reused. Try again, or [`Grants::defer`].
    pub fn end(&self, reference: GrantRef) -> Result<(), StillMapped> {
        if !self.revoke(reference) {
            return Err(StillMapped(reference));
        }
        self.release(reference, Reuse::Now);
        Ok(())
    }

    fn revoke(&self, reference: GrantRef) -> bool {
        let flags = self.frames.atomic_u16(reference.0 as usize * ENTRY_SIZE);
        let mut seen = flags.load(Acquire);
        for _ in 0..EXCHANGE_TRIES {
            if seen & (GTF_READING | GTF_WRITING) != 0 {
                return false;
            }
            match flags.compare_exchange(seen, 0, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    fn release(&self, reference: GrantRef, reuse: Reuse) {
        let mut table = self.table.borrow_mut();
        let entry = &mut table.entries[reference.0 as usize];
        match reuse {
            _ if entry.state == EntryState::Free => {}
            Reuse::AfterDevice(number) => entry.state = EntryState::SetAside(number),
            Reuse::Now => {
                entry.state = EntryState::Free;
                table.free.push(reference.0);
            }
        }
    }

    /// Frees the references that were set aside for a device: its backend has let go.
    pub fn free_set_aside(&self, number: u32) {
        let table = &mut *self.table.borrow_mut();
        for (index, entry) in (0u32..).zip(&mut table.entries) {
            if entry.state == EntryState::SetAside(number) {
                entry.state = EntryState::Free;
                table.free.push(index);
            }
        }
    }

    /// How many references are set aside.
    #[must_use]
    pub fn set_aside(&self) -> usize {
        let table = self.table.borrow();
        let aside = |entry: &&Entry| matches!(entry.state, EntryState::SetAside(_));
        table.entries.iter().filter(aside).count()
    }

    /// Gives up on a page that the other domain keeps mapped: its reference is
    /// reclaimed when the domain lets go, the page never.
    pub fn defer(&self, StillMapped(reference): StillMapped, now: Instant) {
        let mut table = self.table.borrow_mut();
        let entry = &mut table.entries[reference.0 as usize];
        if entry.state != EntryState::Live {
            return;
        }
        entry.state = EntryState::Deferred;
        log::warn!(
            "{reference} ({}, frame {:#x}) is still mapped by {}: its page is given up",
            entry.purpose,
            entry.gfn.0,
            entry.domain
        );
        table.deferred.push(reference);
        table.retry_at.get_or_insert(now + RETRY_EVERY);
    }

    /// Takes a grant back, or defers it. Returns whether the page is free.
    pub fn end_or_defer(&self, reference: GrantRef, reuse: Reuse, now: Instant) -> bool {
        let revoked = self.revoke(reference);
        match revoked {
            true => self.release(reference, reuse),
            false => self.defer(StillMapped(reference), now),
        }
        revoked
    }

    /// Tries some of the deferred references again when their time has come.
    pub fn retry_deferred(&self, now: Instant) {
        if self.table.borrow().retry_at.is_none_or(|at| now < at) {
            return;
        }
        for _ in 0..RETRY_BATCH.min(self.deferred()) {
            let reference = self.table.borrow_mut().deferred.remove(0);
            if self.revoke(reference) {
                log::info!("{reference} was given back at last");
                self.release(reference, Reuse::Now);
            } else {
                self.table.borrow_mut().deferred.push(reference);
            }
        }
        let again = (self.deferred() > 0).then_some(now + RETRY_EVERY);
        self.table.borrow_mut().retry_at = again;
    }

    /// When [`Grants::retry_deferred`] has something to do.
    #[must_use]
    pub fn next_retry(&self) -> Option<Instant> {
        self.table.borrow().retry_at
    }

    /// References on the deferred list.
    #[must_use]
    pub fn deferred(&self) -> usize {
        self.table.borrow().deferred.len()
    }

    /// References that can be had without growing the table.
    #[must_use]
    pub fn free(&self) -> usize {
        self.table.borrow().free.len()
    }

    /// Every grant in force.
    #[must_use]
    pub fn live(&self) -> Vec<LiveGrant> {
        let table = self.table.borrow();
        let mut live = Vec::new();
        for (index, entry) in (0u32..).zip(&table.entries) {
            if matches!(entry.state, EntryState::Free | EntryState::SetAside(_)) {
                continue;
            }
            let flags = self.frames.atomic_u16(index as usize * ENTRY_SIZE);
            live.push(LiveGrant {
                reference: GrantRef(index),
                gfn: entry.gfn,
                domain: entry.domain,
                purpose: entry.purpose,
                deferred: entry.state == EntryState::Deferred,
                mapped: flags.load(Relaxed) & (GTF_READING | GTF_WRITING) != 0,
            });
        }
        live
    }
}

/// How many frames Xen lets the table have.
fn allowed_frames(hal: &impl Hal) -> u32 {
    let mut size = QuerySize {
        dom: DomId::SELF.0,
        pad: 0,
        nr_frames: 0,
        max_nr_frames: 0,
        status: 0,
        pad2: 0,
    };
    let answered = hal.hypercall(Hypercall::QueryGrants(&mut size)).is_ok();
    // A hypervisor that does not say allows at least four frames.
    if answered && size.status == 0 {
        size.max_nr_frames.max(1)
    } else {
        4
    }
}

const _: () = assert!(PAGE == ENTRIES_PER_FRAME as usize * ENTRY_SIZE);
