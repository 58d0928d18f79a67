//! One direction of a ring of bytes with free-running indices, as the store's
//! and the console's pages have them.
//!
//! Of the two shared indices only the other end's is ever read, once per use,
//! and checked against private copies; ours is only written.

use alloc::collections::VecDeque;
use core::ops::Range;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use firn_block::shm::Region;

/// Where a ring lies in its page: offsets in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) data: usize,
    /// Bytes of the ring: a power of two.
    pub(crate) size: u32,
    pub(crate) prod: usize,
    pub(crate) cons: usize,
}

/// The other end's index cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadIndex {
    pub(crate) theirs: u32,
    pub(crate) ours: u32,
}

impl Place {
    /// Calls `run` for each run of `len` bytes from free-running index `from`:
    /// with the offset in the page and the range of the bytes.
    fn runs(&self, from: u32, len: usize, mut run: impl FnMut(usize, Range<usize>)) {
        let start = (from % self.size) as usize;
        let first = len.min(self.size as usize - start);
        run(self.data + start, 0..first);
        if first < len {
            run(self.data, first..len);
        }
    }
}

fn is_zero(page: &Region, place: &Place) -> bool {
    let zero = |at| page.atomic_u32(at).load(Acquire) == 0;
    zero(place.prod) && zero(place.cons)
}

/// The end that writes.
pub(crate) struct Producer {
    page: Region,
    place: Place,
    prod: u32,
    /// Where the reader was last; it only goes forward from here.
    cons: u32,
}

impl Producer {
    pub(crate) const fn new(page: Region, place: Place) -> Self {
        Self {
            page,
            place,
            prod: 0,
            cons: 0,
        }
    }

    /// Takes the indices as they are in the page. Returns how many bytes seem
    /// to be unread.
    pub(crate) fn adopt(&mut self) -> u32 {
        self.prod = self.page.atomic_u32(self.place.prod).load(Acquire);
        self.cons = self.page.atomic_u32(self.place.cons).load(Acquire);
        self.prod.wrapping_sub(self.cons)
    }

    /// The indices, for who finds them impossible.
    pub(crate) const fn bad_index(&self) -> BadIndex {
        let (theirs, ours) = (self.cons, self.prod);
        BadIndex { theirs, ours }
    }

    /// Whether both indices in the page are 0 and ours is not: the other end
    /// has set the ring up anew.
    pub(crate) fn is_zeroed(&self) -> bool {
        self.prod != 0 && is_zero(&self.page, &self.place)
    }

    /// How many bytes fit now.
    pub(crate) fn room(&mut self) -> Result<usize, BadIndex> {
        let cons = self.page.atomic_u32(self.place.cons).load(Acquire);
        let unread = self.prod.wrapping_sub(cons);
        if unread > self.prod.wrapping_sub(self.cons) {
            let (theirs, ours) = (cons, self.prod);
            return Err(BadIndex { theirs, ours });
        }
        self.cons = cons;
        Ok((self.place.size - unread) as usize)
    }

    /// Moves as much of `out` as fits; returns how many bytes.
    pub(crate) fn send(&mut self, out: &mut VecDeque<u8>) -> Result<usize, BadIndex> {
        let room = self.room()?;
        let mut sent = 0;
        let (front, back) = out.as_slices();
        for part in [front, back] {
            let part = &part[..part.len().min(room - sent)];
            self.place.runs(self.prod, part.len(), |at, range| {
                self.page.copy_in(at, &part[range]);
            });
            self.prod = self.prod.wrapping_add(part.len() as u32);
            sent += part.len();
        }
        out.drain(..sent);
        if sent > 0 {
            let shared = self.page.atomic_u32(self.place.prod);
            shared.store(self.prod, Release);
        }
        Ok(sent)
    }
}

/// The end that reads.
pub(crate) struct Consumer {
    page: Region,
    place: Place,
    cons: u32,
}

impl Consumer {
    pub(crate) const fn new(page: Region, place: Place) -> Self {
        Self {
            page,
            place,
            cons: 0,
        }
    }

    /// Takes our index as it is in the page. Returns how many bytes seem to be
    /// unread.
    pub(crate) fn adopt(&mut self) -> u32 {
        self.cons = self.page.atomic_u32(self.place.cons).load(Acquire);
        let prod = self.page.atomic_u32(self.place.prod).load(Acquire);
        prod.wrapping_sub(self.cons)
    }

    /// As [`Producer::is_zeroed`].
    pub(crate) fn is_zeroed(&self) -> bool {
        self.cons != 0 && is_zero(&self.page, &self.place)
    }

    /// Fills as much of `buffer` as there are bytes. The flag tells whether the
    /// writer may wait for the room that this made.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), BadIndex> {
        let (shared, cons) = (self.page.atomic_u32(self.place.prod), self.cons);
        let prod = shared.load(Acquire);
        let ready = prod.wrapping_sub(cons);
        if ready > self.place.size {
            let (theirs, ours) = (prod, cons);
            return Err(BadIndex { theirs, ours });
        }
        let len = buffer.len().min(ready as usize);
        if len == 0 {
            return Ok((0, false));
        }
        self.place.runs(cons, len, |at, range| {
            self.page.copy_out(at, &mut buffer[range]);
        });
        self.cons = cons.wrapping_add(len as u32);
        let shared_cons = self.page.atomic_u32(self.place.cons);
        shared_cons.store(self.cons, Release);
        // The writer sleeps when it finds the ring full; it may have filled it
        // since `prod` was read and not have seen our new index.
        fence(SeqCst);
        let was_full = shared.load(Relaxed).wrapping_sub(cons) >= self.place.size;
        Ok((len, was_full))
    }
}
