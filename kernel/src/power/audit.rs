//! Does anything in job memory point at the boot that made it?
//!
//! Boot memory lies where no integer points by accident
//! (docs/adr/0001-two-memories.md), so a word of job memory that is such an
//! address was a pointer once. Most are dead: whoever moves a value moves its
//! unused bytes too, with what the stack held there. The rest would lead into
//! another boot's memory after a restore. Nobody can tell the two apart by
//! looking, so an audit makes every such word unusable as an address: whoever
//! still follows it faults, here or after the restore, at the very place. Whatever
//! goes on after an audited freeze has shown that it needs nothing of its former
//! boot (docs/adr/0012-adopting-job-memory.md). Code and constants of the image are
//! allowed, as the build must be the same.
//!
//! A word can be dead in part: the tag of an enum lies in its lowest bytes, and
//! what is left of a pointer in the rest. So only what makes a word an address of
//! the upper half is replaced, its highest bytes; they say where it pointed, too.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

use firn_block::PAGE;
use firn_block::shm::Region;

const WORD: usize = 8;
/// Findings that are kept; the rest is counted.
const KEPT: usize = 32;

/// The highest bytes of a word that was an address: who follows it faults, as they
/// are neither all ones nor all zeroes (Intel SDM, volume 1, 3.3.7.1).
const POISON: u64 = 0xdead << KEPT_BITS;
/// How much of such a word stays as it is.
const KEPT_BITS: u32 = 48;

/// `word` as an audit leaves it: no address any more, its lower bytes unchanged.
#[must_use]
pub const fn poisoned(word: u64) -> u64 {
    POISON | word & ((1 << KEPT_BITS) - 1)
}

/// A word of job memory that was an address of boot memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where the word lies.
    pub at: usize,
    /// What it is: an address.
    pub word: u64,
    /// The part of boot memory that it points at.
    pub into: &'static str,
    /// What lies there in job memory, as far as that is known.
    pub owner: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            word,
            into,
            owner,
        } = self;
        write!(f, "{at:#x} holds {word:#x}, in the {into}: {owner}")
    }
}

/// Something in job memory that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its addresses.
    pub range: Range<usize>,
    /// Its name.
    pub name: String,
    /// It is a buffer: any word may be in it.
    pub data: bool,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Words that were looked at.
    pub words: u64,
    /// Words that were made unusable.
    pub count: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Words of jobs' data that look the same by accident: left alone.
    pub data: u64,
}

/// Looks at every word of `memory` but those on `free` pages (rising ranges of
/// page numbers) for addresses in one of the `forbidden` windows, and makes them
/// [`poisoned`]. `owners` are sorted by address; what jobs read from and write to
/// disks is data and stays as it is.
pub fn audit(
    memory: &Region,
    free: &[Range<usize>],
    forbidden: &[(&'static str, Range<u64>)],
    owners: &[Owner],
) -> Audit {
    let mut audit = Audit::default();
    let mut page = [0; PAGE];
    for number in used(memory.page_count(), free) {
        memory.copy_out(number * PAGE, &mut page);
        for (index, bytes) in page.as_chunks::<WORD>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*bytes);
            let hit = forbidden.iter().find(|(_, window)| window.contains(&word));
            let Some((into, _)) = hit else { continue };
            let offset = number * PAGE + index * WORD;
            let at = memory.addr() + offset;
            if nearest(owners, at).is_some_and(|o| o.data && o.range.contains(&at)) {
                audit.data += 1;
                continue;
            }
            memory.atomic_u64(offset).store(poisoned(word), Relaxed);
            audit.count += 1;
            if audit.findings.len() < KEPT {
                let owner = owner(owners, at);
                audit.findings.push(Finding {
                    at,
                    word,
                    into,
                    owner,
                });
            }
        }
        audit.words += (PAGE / WORD) as u64;
    }
    audit
}

/// The numbers of the pages that are not free.
pub(super) fn used(pages: usize, free: &[Range<usize>]) -> impl Iterator<Item = usize> {
    let ends = free.iter().map(|range| range.end);
    let starts = free.iter().map(|range| range.start);
    let used = core::iter::once(0).chain(ends).zip(starts.chain([pages]));
    used.flat_map(move |(start, end)| start..end.min(pages))
}

/// The last one that begins at or before `at`.
fn nearest(owners: &[Owner], at: usize) -> Option<&Owner> {
    let after = owners.partition_point(|owner| owner.range.start <= at);
    owners.get(after.checked_sub(1)?)
}

/// What lies at `at`, or what is nearest before it.
fn owner(owners: &[Owner], at: usize) -> String {
    let Some(before) = nearest(owners, at) else {
        return String::from("before everything that is known");
    };
    let offset = at - before.range.start;
    let name = &before.name;
    match before.range.contains(&at) {
        true => alloc::format!("offset {offset:#x} of {name}"),
        false => alloc::format!("{offset:#x} after the start of {name}, in something else"),
    }
}

#[cfg(test)]
mod tests {
    use firn_peers::memory::take;
    use std::string::ToString;

    use super::*;

    const BOOT: u64 = 0xffff_9000_0000_0000;

    fn windows() -> [(&'static str, Range<u64>); 2] {
        [
            ("boot heap", BOOT..BOOT + (4 << 30)),
            ("statics", 0xffff_ffff_8010_0000..0xffff_ffff_8020_0000),
        ]
    }

    #[test]
    fn pointers_into_boot_memory_are_found_and_named() {
        let memory = take(4);
        memory.zero(0, memory.len());
        let at = |page: usize, word: usize| page * PAGE + word * 8;
        for (offset, word) in [
            (at(0, 0), BOOT - 1),
            (at(0, 511), BOOT),
            (at(1, 1), BOOT + (4 << 30)),
            (at(2, 7), 0xffff_ffff_8010_0008_u64),
            (at(3, 0), memory.addr() as u64),
        ] {
            memory.write(offset, &word);
        }
        let owners = [Owner {
            range: memory.addr()..memory.addr() + PAGE,
            name: "task 3".to_string(),
            data: false,
        }];
        let audit = audit(&memory, &[], &windows(), &owners);
        assert_eq!((audit.count, audit.words), (2, 4 * 512));
        let [first, second] = &audit.findings[..] else {
            panic!("{audit:?}");
        };
        assert_eq!(first.at, memory.addr() + at(0, 511));
        assert_eq!((first.word, first.into), (BOOT, "boot heap"));
        assert_eq!(first.owner, "offset 0xff8 of task 3");
        assert_eq!(second.into, "statics");
        assert!(second.owner.ends_with("in something else"));
        assert_eq!(memory.read::<u64>(at(0, 511)), poisoned(BOOT));
        assert_eq!(memory.read::<u64>(at(0, 0)), BOOT - 1);
        let again = super::audit(&memory, &[], &windows(), &owners);
        assert_eq!(again.count, 0);
    }

    /// A value whose tag lies before bytes that nobody uses, as a completion's
    /// result in a queue: what the stack held there was a pointer.
    #[test]
    fn the_live_half_of_a_word_stays_as_it_is() {
        let memory = take(1);
        memory.zero(0, memory.len());
        memory.write(8, &(BOOT + 0x7dea_d000));
        memory.write(8, &6_u16);
        let audit = audit(&memory, &[], &windows(), &[]);
        assert_eq!(audit.count, 1);
        assert_eq!(memory.read::<u16>(8), 6);
        let highest = memory.read::<u64>(8).cast_signed() >> 47;
        assert!(![0, -1].contains(&highest), "still an address");
    }

    #[test]
    fn data_is_left_alone() {
        let memory = take(2);
        memory.zero(0, memory.len());
        memory.write(PAGE + 16, &BOOT);
        memory.write(16, &BOOT);
        let owners = [Owner {
            range: memory.addr() + PAGE..memory.addr() + 2 * PAGE,
            name: "a buffer".to_string(),
            data: true,
        }];
        let audit = audit(&memory, &[], &windows(), &owners);
        assert_eq!((audit.count, audit.data), (1, 1));
        assert_eq!(memory.read::<u64>(PAGE + 16), BOOT);
    }

    #[test]
    fn free_pages_are_not_looked_at() {
        let memory = take(5);
        memory.zero(0, memory.len());
        for page in 0..5 {
            memory.write(page * PAGE, &BOOT);
        }
        let found = |free: &[Range<usize>]| audit(&memory, free, &windows(), &[]).count;
        assert_eq!(found(&[0..2, 2..5]), 0);
        assert_eq!(found(&[1..2, 3..5]), 2);
        assert_eq!(found(&[]), 3);
    }

    #[test]
    fn many_findings_are_counted() {
        let memory = take(1);
        for word in 0..512 {
            memory.write(word * 8, &BOOT);
        }
        let audit = audit(&memory, &[], &windows(), &[]);
        assert_eq!((audit.count, audit.findings.len()), (512, KEPT));
    }
}
