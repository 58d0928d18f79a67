//! Memory that somebody else may write at any time.
//!
//! The one room of the driver crates with unsafe code. A [`Region`] never hands
//! out a reference to plain bytes: all access is by atomics of relaxed order or
//! by copies made of such accesses, so a host that writes while we read can
//! confuse values but not the compiler. Ordering is the caller's business:
//! indices are read and written through [`Region::atomic_u32`] with the order
//! that the protocol asks for.
//!
//! Accesses of different sizes may overlap. Rust's memory model has no rules
//! for such races, x86-64 has: each access is one move instruction.
#![expect(unsafe_code, reason = "the shared-memory room of all driver crates")]

use crate::PAGE;
use core::iter::{once, repeat};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Words that are copied in one turn of a loop: where the CPU is emulated, the
/// turn itself costs as much as a few of them.
const TURN: usize = 16;

/// A run of whole pages that is, or will be, shared with the host.
///
/// It is a handle, not an owner: dropping it frees nothing. Whoever allocated
/// the memory gets the `Region` back when the host can no longer reach it.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is an address range that stays valid wherever it is used
// from (a promise made to `Region::new`), and all access to it is atomic.
unsafe impl Send for Region {}
// SAFETY: as above; shared use is what atomics are for.
unsafe impl Sync for Region {}

impl Region {
    /// A region of `bytes` bytes at `base`.
    ///
    /// `base` must be page-aligned and `bytes` a multiple of the page size;
    /// both are checked.
    ///
    /// # Safety
    /// The memory must stay valid for reads and writes until the last handle to
    /// it (this one and its [`Region::alias`]es) is gone, and nobody in this
    /// program may access it other than through such handles.
    ///
    /// # Panics
    /// When the range is not made of whole pages: a mistake of the caller.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, bytes: usize) -> Self {
        assert!(
            base.addr().get().is_multiple_of(PAGE),
            "region not page-aligned"
        );
        assert!(bytes.is_multiple_of(PAGE), "region not of whole pages");
        Self { base, bytes }
    }

    /// A second handle to the same memory.
    #[must_use]
    pub fn alias(&self) -> Self {
        Self { ..*self }
    }

    /// A handle to some of the pages.
    ///
    /// # Panics
    /// When the pages are not all inside.
    #[must_use]
    pub fn pages(&self, first: usize, count: usize) -> Self {
        let (start, bytes) = (first * PAGE, count * PAGE);
        Self {
            base: self.at(start, bytes),
            bytes,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the region has no pages.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Number of pages.
    #[must_use]
    pub const fn page_count(&self) -> usize {
        self.bytes / PAGE
    }

    /// The address where this program sees the region.
    #[must_use]
    pub fn addr(&self) -> usize {
        self.base.addr().get()
    }

    /// The start of `len` bytes at `offset`: every access goes through here.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let inside = offset <= self.bytes && len <= self.bytes - offset;
        assert!(inside, "access outside a shared region");
        // SAFETY: the offset was just checked to lie inside the region.
        unsafe { self.base.add(offset) }
    }

    #[inline]
    fn aligned<T>(&self, offset: usize) -> &T {
        let pointer = self.at(offset, size_of::<T>()).cast::<T>();
        assert!(pointer.is_aligned(), "misaligned access to a shared region");
        // SAFETY: in bounds (`at`), aligned (checked), valid for as long as
        // `self` by the contract of `new`; `T` is one of the atomics below, so
        // the bytes are always a valid value and writes through `&T` are fine.
        unsafe { pointer.as_ref() }
    }

    /// The byte at `offset`.
    #[inline]
    #[must_use]
    pub fn atomic_u8(&self, offset: usize) -> &AtomicU8 {
        self.aligned(offset)
    }

    /// The 16-bit word at `offset`, a multiple of 2.
    #[inline]
    #[must_use]
    pub fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        self.aligned(offset)
    }

    /// The 32-bit word at `offset`, a multiple of 4.
    #[inline]
    #[must_use]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        self.aligned(offset)
    }

    /// The 64-bit word at `offset`, a multiple of 8.
    #[inline]
    #[must_use]
    pub fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        self.aligned(offset)
    }

    /// The `count` 64-bit words from `offset`, a multiple of 8, on. The fastest
    /// way to look at much memory: bounds are checked once.
    #[inline]
    #[must_use]
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let bytes = count.saturating_mul(size_of::<u64>());
        let pointer = self.at(offset, bytes).cast::<AtomicU64>();
        assert!(pointer.is_aligned(), "misaligned access to a shared region");
        // SAFETY: in bounds (`at`), aligned (checked), valid for as long as
        // `self` by the contract of `new`; atomics may be written by others.
        unsafe { core::slice::from_raw_parts(pointer.as_ptr(), count) }
    }

    /// Writes to each page, from the first on, what it holds: whoever watches which
    /// pages this machine writes sees them all as written. What others write
    /// meanwhile stays.
    pub fn touch(&self) {
        for page in 0..self.page_count() {
            let word = self.atomic_u64(page * PAGE);
            let held = word.load(Relaxed);
            // Not `fetch_or(0)`: compilers know that it changes nothing, and leave the
            // write out. Where the word was another by now, this writes all the same.
            let _other = word.compare_exchange(held, held, Relaxed, Relaxed);
        }
    }

    /// Copies words out from `offset`, a multiple of 8, on; to `place` of another
    /// region, too, if that is given: what is looked at later is what went there.
    /// Returns all words or-ed together: zero if they all are.
    #[inline]
    pub fn load(&self, offset: usize, to: &mut [u64], also: Option<(&Self, usize)>) -> u64 {
        let (from, from_rest) = self.words(offset, to.len()).as_chunks::<TURN>();
        let (to, to_rest) = to.as_chunks_mut::<TURN>();
        let mut any = 0;
        let mut load = |to: &mut u64, from: &AtomicU64| {
            *to = from.load(Relaxed);
            any |= *to;
        };
        match also {
            None => {
                along(to.iter_mut().zip(from), &mut load);
                along(once((to_rest, from_rest)), &mut load);
            }
            Some((other, place)) => {
                let length = to.len() * TURN + to_rest.len();
                let (put, put_rest) = other.words(place, length).as_chunks::<TURN>();
                let mut load = |to: &mut u64, (from, put): (&AtomicU64, &AtomicU64)| {
                    load(to, from);
                    put.store(*to, Relaxed);
                };
                let pairs = from.iter().zip(put).map(|(from, put)| from.iter().zip(put));
                along(to.iter_mut().zip(pairs), &mut load);
                along(once((to_rest, from_rest.iter().zip(put_rest))), &mut load);
            }
        }
        any
    }

    /// Copies a wire structure out, once. What is then checked is the copy.
    #[inline]
    #[must_use]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        let mut value = T::new_zeroed();
        self.copy_out(offset, value.as_mut_bytes());
        value
    }

    /// Copies a wire structure in.
    #[inline]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) {
        self.copy_in(offset, value.as_bytes());
    }

    /// Copies bytes out of the region, by words where alignment allows.
    #[inline]
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let _ = self.at(offset, to.len());
        let head = to.len().min(offset.next_multiple_of(8) - offset);
        let (start, rest) = to.split_at_mut(head);
        for (i, byte) in start.iter_mut().enumerate() {
            *byte = self.atomic_u8(offset + i).load(Relaxed);
        }
        let (words, tail) = rest.as_chunks_mut::<8>();
        let mut at = offset + head;
        if !words.is_empty() {
            let shared = self.words(at, words.len());
            at += 8 * words.len();
            let mut load = |word: &mut [u8; 8], from: &AtomicU64| {
                *word = from.load(Relaxed).to_ne_bytes();
            };
            let (turns, rest) = words.as_chunks_mut::<TURN>();
            let (from, from_rest) = shared.as_chunks::<TURN>();
            along(turns.iter_mut().zip(from), &mut load);
            along(once((rest, from_rest)), &mut load);
        }
        for (i, byte) in tail.iter_mut().enumerate() {
            *byte = self.atomic_u8(at + i).load(Relaxed);
        }
    }

    /// Copies bytes into the region, by words where alignment allows.
    #[inline]
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let _ = self.at(offset, from.len());
        let head = from.len().min(offset.next_multiple_of(8) - offset);
        let (start, rest) = from.split_at(head);
        for (i, byte) in start.iter().enumerate() {
            self.atomic_u8(offset + i).store(*byte, Relaxed);
        }
        let (words, tail) = rest.as_chunks::<8>();
        let mut at = offset + head;
        if !words.is_empty() {
            let shared = self.words(at, words.len());
            at += 8 * words.len();
            let mut store = |word: &[u8; 8], to: &AtomicU64| {
                to.store(u64::from_ne_bytes(*word), Relaxed);
            };
            let (turns, rest) = words.as_chunks::<TURN>();
            let (to, to_rest) = shared.as_chunks::<TURN>();
            along(turns.iter().zip(to), &mut store);
            along(once((rest, to_rest)), &mut store);
        }
        for (i, byte) in tail.iter().enumerate() {
            self.atomic_u8(at + i).store(*byte, Relaxed);
        }
    }

    /// Sets `len` bytes from `offset` on to zero; both multiples of 8.
    pub fn zero(&self, offset: usize, len: usize) {
        let _ = self.at(offset, len);
        let (turns, rest) = self.words(offset, len / 8).as_chunks::<TURN>();
        let mut zero = |word: &AtomicU64, ()| word.store(0, Relaxed);
        along(turns.iter().map(|turn| (turn, repeat(()))), &mut zero);
        along(once((rest, repeat(()))), &mut zero);
    }
}

/// Walks along two runs of words, a turn at a time.
#[inline]
fn along<A: IntoIterator, B: IntoIterator>(
    turns: impl Iterator<Item = (A, B)>,
    mut each: impl FnMut(A::Item, B::Item),
) {
    for (a, b) in turns {
        a.into_iter().zip(b).for_each(|(a, b)| each(a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;

    #[repr(align(4096))]
    struct Pages([u8; 2 * PAGE]);

    fn region() -> Region {
        let memory = Box::leak(Box::new(Pages([0; 2 * PAGE])));
        let base = NonNull::from(&mut memory.0).cast();
        // SAFETY: leaked, so valid for ever, and only used through the region.
        unsafe { Region::new(base, 2 * PAGE) }
    }

    #[test]
    fn copies_at_every_alignment_and_length() {
        let region = region();
        for offset in 0..17 {
            for len in 0..40 {
                let data: vec::Vec<u8> = (0..len).map(|i| (offset * 41 + i) as u8 | 1).collect();
                region.zero(0, 64);
                region.copy_in(offset, &data);
                let mut back = vec![0; len];
                region.copy_out(offset, &mut back);
                assert_eq!(back, data);
                let mut all = [0; 64];
                region.copy_out(0, &mut all);
                assert!(all[..offset].iter().all(|b| *b == 0));
                assert!(all[offset + len..].iter().all(|b| *b == 0));
            }
        }
    }

    #[test]
    fn words_are_little_endian_views_of_the_bytes() {
        let region = region();
        region.copy_in(8, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(region.atomic_u32(8).load(Relaxed), 0x0403_0201);
        assert_eq!(region.atomic_u16(14).load(Relaxed), 0x0807);
        assert_eq!(region.read::<u64>(8), 0x0807_0605_0403_0201);
    }

    #[test]
    fn sub_pages_alias_the_whole() {
        let region = region();
        let second = region.pages(1, 1);
        second.write(0, &0xabcd_u32);
        assert_eq!(region.read::<u32>(PAGE), 0xabcd);
        assert_eq!(second.page_count(), 1);
    }

    #[test]
    fn many_words_are_the_same_bytes() {
        let region = region();
        region.copy_in(16, &[1; 16]);
        let words: vec::Vec<u64> = region
            .words(8, 4)
            .iter()
            .map(|word| word.load(Relaxed))
            .collect();
        assert_eq!(words, [0, 0x0101_0101_0101_0101, 0x0101_0101_0101_0101, 0]);
    }

    #[test]
    fn words_are_loaded_and_put_elsewhere_in_one_pass() {
        let region = region();
        let data: vec::Vec<u8> = (0..=255).cycle().take(PAGE).collect();
        region.copy_in(8, &data);
        for words in [0, 1, 15, 16, 17, 40] {
            let (mut to, mut put) = (vec![0; words + 1], vec![0; 8 * words + 8]);
            region.zero(PAGE + 8, PAGE - 8);
            let also = Some((&region, PAGE + 16));
            let any = region.load(8, &mut to[..words], also);
            assert_eq!(to[..words].as_bytes(), &data[..8 * words]);
            assert_eq!(any, to.iter().fold(0, |any, word| any | word));
            region.copy_out(PAGE + 16, &mut put);
            assert_eq!(put[..8 * words], data[..8 * words]);
            assert_eq!(put[8 * words..], [0; 8], "not beyond the end");
            assert_eq!(region.load(8, &mut to[..words], None), any);
        }
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn many_words_stay_inside() {
        let _ = region().words(PAGE, PAGE / 8 + 1);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn an_access_beyond_the_end_is_a_bug() {
        let _ = region().read::<u64>(2 * PAGE - 4);
    }

    #[test]
    #[should_panic(expected = "misaligned")]
    fn a_misaligned_word_is_a_bug() {
        let _ = region().atomic_u32(2);
    }
}
