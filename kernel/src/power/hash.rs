//! A hash over the memory that a freeze saves, so that people see that what
//! came back is what went away. XXH64, as the image's checksums: docs/adr/0010
//! says why.

use core::ops::Range;

use firn_block::PAGE;
use firn_block::shm::Region;
use firn_jobs::MemoryHash;
use xxhash_rust::xxh64::Xxh64;

use super::audit::used;

/// Hashes all pages of `memory` but the `free` ones (rising ranges of page
/// numbers), in order.
#[must_use]
pub fn memory_hash(memory: &Region, free: &[Range<usize>]) -> MemoryHash {
    let mut hasher = Xxh64::new(0);
    let mut page = [0; PAGE];
    let mut bytes = 0;
    for number in used(memory.page_count(), free) {
        memory.copy_out(number * PAGE, &mut page);
        hasher.update(&page);
        bytes += PAGE as u64;
    }
    let hash = hasher.digest();
    MemoryHash { hash, bytes }
}

#[cfg(test)]
mod tests {
    use firn_peers::memory::take;

    use super::*;

    #[test]
    fn every_byte_counts_but_those_that_are_free() {
        let memory = take(3);
        memory.zero(0, memory.len());
        let hash = |free: &[Range<usize>]| memory_hash(&memory, free);
        let free = core::iter::once(1..2).collect::<std::vec::Vec<_>>();
        let (all, part) = (hash(&[]), hash(&free));
        assert_eq!((all.bytes, part.bytes), (3 * 4096, 2 * 4096));
        memory.write(PAGE + 123, &1_u8);
        assert_ne!(hash(&[]), all);
        assert_eq!(hash(&free), part);
        memory.write(PAGE + 123, &0_u8);
        assert_eq!(hash(&[]), all);
    }
}
