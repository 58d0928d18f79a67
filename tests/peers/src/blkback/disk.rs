//! A disk in memory: sparse, with a volatile cache and a log.

use firn_block::SECTOR;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const BYTES: usize = SECTOR as usize;
type Sector = [u8; BYTES];

/// Something the disk was asked to do and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Sectors were read.
    Read {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Sectors were written.
    Write {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// The cache was emptied.
    Flush,
    /// Sectors were discarded: they read as zeros.
    Discard {
        /// The first.
        sector: u64,
        /// How many.
        sectors: u64,
        /// Whether it was to be secure.
        secure: bool,
    },
}

#[derive(Default)]
struct State {
    capacity: u64,
    sectors: BTreeMap<u64, Box<Sector>>,
    /// What is on the medium where the cache holds something newer.
    behind: BTreeMap<u64, Option<Box<Sector>>>,
    bad: BTreeSet<u64>,
    log: Vec<DiskOp>,
}

/// A handle to a disk; clones are the same disk. Addresses are in sectors of
/// 512 bytes.
#[derive(Clone)]
pub struct Disk(Rc<RefCell<State>>);

impl Disk {
    /// A disk of zeros.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let state = State {
            capacity,
            ..State::default()
        };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Size in sectors.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.0.borrow().capacity
    }

    /// Grows or shrinks it; whoever offers it says so at the next connection.
    pub fn set_capacity(&self, capacity: u64) {
        self.0.borrow_mut().capacity = capacity;
    }

    /// Marks a sector as unreadable and unwritable.
    pub fn break_sector(&self, sector: u64) {
        self.0.borrow_mut().bad.insert(sector);
    }

    /// Content of some sectors, as the guest would read it.
    #[must_use]
    pub fn content(&self, sector: u64, sectors: u64) -> Vec<u8> {
        let state = self.0.borrow();
        (sector..sector + sectors)
            .flat_map(|at| state.sectors.get(&at).map_or([0; BYTES], |data| **data))
            .collect()
    }

    /// Sets content from outside, as somebody who edits the disk's file does.
    ///
    /// # Panics
    /// When the data are no whole sectors.
    pub fn set_content(&self, sector: u64, data: &[u8]) {
        let (chunks, rest) = data.as_chunks::<BYTES>();
        assert!(rest.is_empty(), "whole sectors only");
        let mut state = self.0.borrow_mut();
        for (at, chunk) in (sector..).zip(chunks) {
            state.sectors.insert(at, Box::new(*chunk));
            state.behind.remove(&at);
        }
    }

    /// Sectors that would be lost if the power failed now.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        self.0.borrow().behind.len()
    }

    /// The power fails: what was not flushed is lost.
    pub fn crash(&self) {
        let mut state = self.0.borrow_mut();
        for (sector, old) in std::mem::take(&mut state.behind) {
            match old {
                Some(data) => state.sectors.insert(sector, data),
                None => state.sectors.remove(&sector),
            };
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn log(&self) -> Vec<DiskOp> {
        self.0.borrow().log.clone()
    }

    /// Forgets the log.
    pub fn clear_log(&self) {
        self.0.borrow_mut().log.clear();
    }

    pub(super) fn record(&self, op: DiskOp) {
        self.0.borrow_mut().log.push(op);
    }

    /// Whether the range lies on the disk.
    pub(super) fn contains(&self, sector: u64, sectors: u64) -> bool {
        let end = sector.checked_add(sectors);
        end.is_some_and(|end| end <= self.capacity())
    }

    /// Whether every sector of the range works.
    pub(super) fn is_sound(&self, sector: u64, sectors: u64) -> bool {
        let state = self.0.borrow();
        state.bad.range(sector..sector + sectors).next().is_none()
    }

    pub(super) fn read(&self, sector: u64, to: &mut [u8]) {
        let (chunks, _) = to.as_chunks_mut::<BYTES>();
        let state = self.0.borrow();
        for (at, chunk) in (sector..).zip(chunks) {
            *chunk = state.sectors.get(&at).map_or([0; BYTES], |data| **data);
        }
    }

    pub(super) fn write(&self, sector: u64, from: &[u8]) {
        let (chunks, _) = from.as_chunks::<BYTES>();
        let mut state = self.0.borrow_mut();
        for (at, chunk) in (sector..).zip(chunks) {
            let old = state.sectors.insert(at, Box::new(*chunk));
            state.behind.entry(at).or_insert(old);
        }
    }

    pub(super) fn flush(&self) {
        self.0.borrow_mut().behind.clear();
    }

    pub(super) fn discard(&self, sector: u64, sectors: u64) {
        let mut state = self.0.borrow_mut();
        let range = sector..sector + sectors;
        let gone: Vec<u64> = state.sectors.range(range).map(|(at, _)| *at).collect();
        for at in gone {
            let old = state.sectors.remove(&at);
            state.behind.entry(at).or_insert(old);
        }
    }
}
