//! A disk in memory: sparse, with a volatile cache and a log. Or one whose data lie
//! elsewhere.

use firn_block::SECTOR;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::mpsc::Receiver;

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

/// The end of something that somebody else carries out; with it what was read.
pub type Later = Receiver<io::Result<Vec<u8>>>;

/// Something that a disk can be asked to do while its guest goes on.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Read so many bytes from a sector on.
    Read(u64, usize),
    /// Write these bytes from a sector on, if only into a cache.
    Write(u64, &'a [u8]),
    /// Make durable all that was written before.
    Flush,
}

/// Where the data of a disk lie that is not in memory. Whole sectors only, all of
/// them on the disk.
pub trait Backing {
    /// Reads sectors.
    ///
    /// # Errors
    /// What the medium says.
    fn read(&mut self, sector: u64, to: &mut [u8]) -> io::Result<()>;

    /// Writes sectors, if only into a cache.
    ///
    /// # Errors
    /// What the medium says.
    fn write(&mut self, sector: u64, from: &[u8]) -> io::Result<()>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the medium says.
    fn flush(&mut self) -> io::Result<()>;

    /// Gives sectors back.
    ///
    /// # Errors
    /// What the medium says.
    fn discard(&mut self, sector: u64, sectors: u64) -> io::Result<()>;

    /// Begins any of these, in the order of the calls; `None` if it knows only the
    /// ways above, which have it done when they return.
    fn begin(&mut self, _: Work<'_>) -> Option<Later> {
        None
    }
}

/// Told of everything that a disk did, right after it.
type Observer = Rc<dyn Fn(&Disk, DiskOp)>;

#[derive(Default)]
struct State {
    capacity: u64,
    /// Where its data lie, if not here.
    backing: Option<Box<dyn Backing>>,
    sectors: BTreeMap<u64, Box<Sector>>,
    /// What a sector was since the last flush, where the cache holds something
    /// newer: what is on the medium first.
    behind: BTreeMap<u64, Vec<Option<Box<Sector>>>>,
    bad: BTreeSet<u64>,
    lies: bool,
    /// So many requests are still carried out, all others fail.
    failing: Option<usize>,
    writes: u64,
    log: Vec<DiskOp>,
    observer: Option<Observer>,
}

impl State {
    fn put(&mut self, sector: u64, data: Option<Box<Sector>>) {
        let old = match data {
            Some(data) => self.sectors.insert(sector, data),
            None => self.sectors.remove(&sector),
        };
        self.behind.entry(sector).or_default().push(old);
    }
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

    /// A disk whose data lie elsewhere. It keeps no log, and loses nothing: what
    /// becomes of unflushed data is its backing's affair.
    #[must_use]
    pub fn over(capacity: u64, backing: impl Backing + 'static) -> Self {
        let disk = Self::new(capacity);
        disk.0.borrow_mut().backing = Some(Box::new(backing));
        disk
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

    /// Fails every request from now on, once so many more were carried out;
    /// `None` ends that.
    pub fn fail_after(&self, requests: Option<usize>) {
        self.0.borrow_mut().failing = requests;
    }

    /// Tells `observer` of everything that the disk does, right after it.
    pub fn observe(&self, observer: impl Fn(&Self, DiskOp) + 'static) {
        self.0.borrow_mut().observer = Some(Rc::new(observer));
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
        self.power_cut(|_, _| 0);
    }

    /// The power fails: of what was written to each sector since the last
    /// flush, `choose` says how much arrived: it is given the sector and the
    /// number of writes, and answers how many of them count, the first first.
    pub fn power_cut(&self, mut choose: impl FnMut(u64, usize) -> usize) {
        let mut state = self.0.borrow_mut();
        for (sector, mut old) in std::mem::take(&mut state.behind) {
            let arrived = choose(sector, old.len());
            if arrived >= old.len() {
                continue;
            }
            match old.swap_remove(arrived) {
                Some(data) => state.sectors.insert(sector, data),
                None => state.sectors.remove(&sector),
            };
        }
    }

    /// From now on a flush is only said to be done, or really done again.
    pub fn lie_about_flush(&self, lies: bool) {
        self.0.borrow_mut().lies = lies;
    }

    /// How many writes and discards the disk has seen.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.0.borrow().writes
    }

    /// A disk with the same content, that goes its own way; as a copy of the
    /// disk's file would be. What is only cached is copied as that.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.0.borrow();
        Self(Rc::new(RefCell::new(State {
            capacity: state.capacity,
            sectors: state.sectors.clone(),
            behind: state.behind.clone(),
            bad: state.bad.clone(),
            lies: state.lies,
            writes: state.writes,
            ..State::default()
        })))
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

    pub(crate) fn record(&self, op: DiskOp) {
        let observer = {
            let mut state = self.0.borrow_mut();
            if state.backing.is_none() {
                state.log.push(op);
            }
            state.observer.clone()
        };
        if let Some(observer) = observer {
            observer(self, op);
        }
    }

    /// Whether the range lies on the disk.
    pub(crate) fn contains(&self, sector: u64, sectors: u64) -> bool {
        let end = sector.checked_add(sectors);
        end.is_some_and(|end| end <= self.capacity())
    }

    /// Whether a request for these sectors is carried out.
    pub(crate) fn admits(&self, sector: u64, sectors: u64) -> bool {
        let mut state = self.0.borrow_mut();
        match &mut state.failing {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        state.bad.range(sector..sector + sectors).next().is_none()
    }

    /// Reads whole sectors, cache included.
    ///
    /// # Errors
    /// What its backing says.
    pub fn read(&self, sector: u64, to: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if let Some(backing) = &mut state.backing {
            return backing.read(sector, to);
        }
        let (chunks, _) = to.as_chunks_mut::<BYTES>();
        for (at, chunk) in (sector..).zip(chunks) {
            *chunk = state.sectors.get(&at).map_or([0; BYTES], |data| **data);
        }
        Ok(())
    }

    /// Writes whole sectors into the cache.
    ///
    /// # Errors
    /// What its backing says.
    pub fn write(&self, sector: u64, from: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.writes += 1;
        if let Some(backing) = &mut state.backing {
            return backing.write(sector, from);
        }
        let (chunks, _) = from.as_chunks::<BYTES>();
        for (at, chunk) in (sector..).zip(chunks) {
            state.put(at, Some(Box::new(*chunk)));
        }
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// What its backing says.
    pub fn flush(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        if let Some(backing) = &mut state.backing {
            return backing.flush();
        }
        if !state.lies {
            state.behind.clear();
        }
        Ok(())
    }

    /// Begins something that ends while others go on, where its backing can.
    #[must_use]
    pub fn begin(&self, work: Work<'_>) -> Option<Later> {
        let mut state = self.0.borrow_mut();
        let later = state.backing.as_mut()?.begin(work)?;
        state.writes += u64::from(matches!(work, Work::Write(..)));
        Some(later)
    }

    /// Makes sectors read as zeros.
    ///
    /// # Errors
    /// What its backing says.
    pub fn discard(&self, sector: u64, sectors: u64) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.writes += 1;
        if let Some(backing) = &mut state.backing {
            return backing.discard(sector, sectors);
        }
        let range = sector..sector + sectors;
        let gone: Vec<u64> = state.sectors.range(range).map(|(at, _)| *at).collect();
        for at in gone {
            state.put(at, None);
        }
        Ok(())
    }
}
