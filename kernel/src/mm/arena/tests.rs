use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use core::mem::MaybeUninit;

use super::*;

const PAGES: usize = 8;

/// Two arenas of [`PAGES`] pages each, leaked.
fn memories() -> (&'static Memories, [Range<usize>; 2]) {
    #[repr(align(4096))]
    struct Pages {
        _bytes: [u8; PAGES * PAGE as usize],
    }
    let memories = Box::leak(Box::new(Memories::new()));
    let ranges = [Memory::Boot, Memory::Job].map(|which| {
        let pages: *mut Pages = Box::into_raw(Box::new(Pages {
            _bytes: [0; PAGES * PAGE as usize],
        }));
        let start = pages.expose_provenance();
        let range = start..start + size_of::<Pages>();
        // SAFETY: a fresh, leaked, page-aligned allocation.
        unsafe { memories.give(which, range.clone()) };
        range
    });
    (memories, ranges)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a valid layout")
}

fn alloc(memories: &Memories, size: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { memories.alloc(layout(size)) }
}

#[test]
fn without_memory_allocation_fails() {
    assert!(alloc(&Memories::new(), 16).is_null());
}

#[test]
fn allocation_goes_by_who_runs() {
    let (memories, [boot, job]) = memories();
    assert!(boot.contains(&alloc(memories, 100).addr()));
    {
        let _job = memories.enter(Memory::Job);
        assert!(job.contains(&alloc(memories, 100).addr()));
        {
            let _boot = memories.enter(Memory::Boot);
            assert!(boot.contains(&alloc(memories, 100).addr()));
        }
        assert!(job.contains(&alloc(memories, 100).addr()));
    }
    assert!(boot.contains(&alloc(memories, 100).addr()));
    assert_eq!(memories.counts(Memory::Boot).allocations, 3);
    assert_eq!(memories.counts(Memory::Job).allocations, 2);
}

#[test]
fn freeing_goes_by_address() {
    let (memories, _) = memories();
    let block = alloc(memories, 100);
    let _job = memories.enter(Memory::Job);
    // SAFETY: allocated above with this layout.
    unsafe { memories.dealloc(block, layout(100)) };
    assert_eq!(memories.counts(Memory::Boot).frees, 1);
    assert_eq!(memories.counts(Memory::Boot).used, 0);
    assert_eq!(memories.counts(Memory::Job).frees, 0);
}

#[test]
fn growing_stays_in_its_memory_and_keeps_the_bytes() {
    let (memories, [boot, _]) = memories();
    let block = alloc(memories, 16);
    let _job = memories.enter(Memory::Job);
    // SAFETY: the block is 16 bytes long, allocated with this layout.
    let grown = unsafe {
        block.write_bytes(0x5a, 16);
        memories.realloc(block, layout(16), 4000)
    };
    assert!(boot.contains(&grown.addr()));
    // SAFETY: the first 16 of 4000 bytes were written before growing.
    let kept = unsafe { core::slice::from_raw_parts(grown, 16) };
    assert_eq!(kept, [0x5a; 16]);
    assert_eq!(memories.counts(Memory::Job).allocations, 0);
}

#[test]
fn exhaustion_is_null_and_counted_and_passes() {
    let (memories, _) = memories();
    let mut blocks = Vec::new();
    while let Some(block) = NonNull::new(alloc(memories, 1000)) {
        blocks.push(block);
    }
    assert!(blocks.len() >= (PAGES - 1) * PAGE as usize / 1100);
    assert_eq!(memories.counts(Memory::Boot).failures, 1);
    for block in blocks {
        // SAFETY: allocated above with this layout, freed once.
        unsafe { memories.dealloc(block.as_ptr(), layout(1000)) };
    }
    assert!(!alloc(memories, (PAGES - 1) * PAGE as usize - 64).is_null());
}

#[test]
fn freed_job_memory_is_wiped() {
    let (memories, _) = memories();
    let _job = memories.enter(Memory::Job);
    let (block, _after) = (alloc(memories, 64), alloc(memories, 64));
    // SAFETY: 64 bytes, allocated with this layout; then the memory is still
    // the leaked pages of the test.
    let left = unsafe {
        block.write_bytes(0x5a, 64);
        memories.dealloc(block, layout(64));
        core::slice::from_raw_parts(block, 64)
    };
    // The heap's own note on the hole comes first.
    assert!(left[16..].iter().all(|byte| *byte == 0));
}

/// What the tests hang on the root.
type Root = MaybeUninit<[u64; 12]>;

/// The bytes of a frozen arena of `frozen` pages, and what it held: a block of
/// 100 bytes, which is its root.
fn frozen(range: &Range<usize>, frozen: usize) -> (Vec<u8>, usize) {
    let memories = Memories::new();
    let part = range.start..range.start + frozen * PAGE as usize;
    // SAFETY: the leaked pages of the test, which nobody uses now.
    unsafe { memories.give(Memory::Job, part) };
    let _job = memories.enter(Memory::Job);
    // The first block keeps the list of holes from beginning where the heap does.
    let _first = alloc(&memories, 16);
    let (gone, block) = (alloc(&memories, 5000), alloc(&memories, 100));
    let root = ptr::with_exposed_provenance::<Root>(block.expose_provenance());
    // SAFETY: 100 bytes that are initialized below, before they are read.
    memories.set_root(Memory::Job, unsafe { &*root });
    // SAFETY: both blocks were allocated with these layouts.
    unsafe {
        block.write_bytes(7, 100);
        memories.dealloc(gone, layout(5000));
    }
    let start = ptr::with_exposed_provenance::<u8>(range.start);
    // SAFETY: the leaked pages, and nobody writes now.
    let bytes = unsafe { core::slice::from_raw_parts(start, frozen * PAGE as usize) };
    (bytes.to_vec(), block.addr())
}

/// A fresh boot with `range` as its job memory into which `image` is loaded.
fn adopt<T>(range: &Range<usize>, image: &[u8]) -> (Memories, Result<&'static T, AdoptError>) {
    let memories = Memories::new();
    let at = ptr::with_exposed_provenance_mut::<u8>(range.start);
    // SAFETY: the leaked pages of the test, which nobody else uses now.
    let root = unsafe {
        memories.give(Memory::Job, range.clone());
        ptr::copy_nonoverlapping(image.as_ptr(), at, image.len());
        memories.adopt(Memory::Job)
    };
    (memories, root)
}

#[test]
fn a_loaded_heap_goes_on_and_grows_into_more_memory() {
    let (_, [_, range]) = memories();
    let (image, block) = frozen(&range, PAGES - 2);
    let (memories, root) = adopt::<Root>(&range, &image);
    assert_eq!(root.map(|root| ptr::from_ref(root).addr()), Ok(block));
    assert_eq!(memories.top(Memory::Job), range.end - 2 * PAGE as usize);
    memories.grow(Memory::Job);
    memories.grow(Memory::Job);
    assert_eq!(memories.top(Memory::Job), range.end);
    let _job = memories.enter(Memory::Job);
    assert_eq!(
        memories.counts(Memory::Job).size,
        (PAGES - 1) * PAGE as usize
    );
    let more = alloc(&memories, 5 * PAGE as usize);
    assert!(
        range.contains(&more.addr()),
        "larger than any hole of the frozen heap"
    );
    let kept = ptr::with_exposed_provenance::<u8>(block);
    // SAFETY: a block of 100 bytes of the adopted heap.
    assert_eq!(unsafe { core::slice::from_raw_parts(kept, 100) }, [7; 100]);
}

#[test]
fn what_is_no_heap_of_ours_is_refused() {
    let (_, [_, range]) = memories();
    let (image, block) = frozen(&range, PAGES);
    let refused = |image: &[u8]| adopt::<Root>(&range, image).1.err();
    let other = adopt::<u64>(&range, &image).1.err();
    assert_eq!(
        other,
        Some(AdoptError::Root(block)),
        "a root of another type"
    );
    assert_eq!(refused(&vec![0; image.len()]), Some(AdoptError::NoHead));
    let less = range.start..range.end - PAGE as usize;
    let smaller = adopt::<Root>(&less, &image[..less.len()]).1;
    assert!(matches!(smaller, Err(AdoptError::Bounds { .. })));
    let position = |value: usize| {
        let words = image.chunks_exact(8).take(64);
        let found = words
            .map(|word| word == value.to_le_bytes())
            .collect::<Vec<_>>();
        found
            .iter()
            .position(|found| *found)
            .expect("in the head page")
            * 8
    };
    let with = |old: usize, new: usize| {
        let mut image = image.clone();
        let at = position(old);
        image[at..at + 8].copy_from_slice(&new.to_le_bytes());
        refused(&image)
    };
    assert_eq!(with(block, block + 4), Some(AdoptError::Root(block + 4)));
    assert_eq!(with(block, range.end), Some(AdoptError::Root(range.end)));
    let bottom = range.start + PAGE as usize;
    assert!(matches!(
        with(bottom, bottom + 8),
        Some(AdoptError::Bounds { .. })
    ));
    assert!(matches!(with(120, 1 << 40), Some(AdoptError::Used(_))));
}
