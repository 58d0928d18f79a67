//! Does anything in job memory point at the boot that made it?
//!
//! Boot memory lies where no integer points by accident
//! (docs/adr/0001-two-memories.md), so a word of job memory that is such an
//! address is a pointer, and a mistake: after a restore it would lead into
//! another boot's memory. Code and constants of the image are allowed, as the
//! build must be the same.

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

/// A word of job memory that must not be there.
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
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Words that were looked at.
    pub words: u64,
    /// Words that must not be there.
    pub count: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

/// Looks at every word of `memory` but those on `free` pages (rising ranges of
/// page numbers) for addresses in one of the `forbidden` windows. `owners` are
/// sorted by address.
#[must_use]
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
            audit.count += 1;
            if audit.findings.len() < KEPT {
                let at = memory.addr() + number * PAGE + index * WORD;
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

/// No address of x86-64: who follows it faults.
const POISON: u64 = 0x8b00_7dea_d000_0000;

/// Makes words in `states` (addresses, within `memory`) that are addresses in
/// one of the `forbidden` windows unusable. Returns how many there were.
///
/// For the states of `async` tasks alone. Such a state is moved when it is made,
/// whole, with bytes that nothing was ever written to: what the stack held there
/// comes along, and that are now and then addresses of the kernel's. Nobody reads
/// these bytes. Should somebody all the same keep such an address in a state,
/// this makes it a fault at its next use, in this boot or after a restore,
/// instead of a look into another boot's memory.
pub fn scrub(
    memory: &Region,
    states: &[Range<usize>],
    forbidden: &[(&'static str, Range<u64>)],
) -> u64 {
    let mut scrubbed = 0;
    for state in states {
        let start = state.start.saturating_sub(memory.addr());
        let end = state.end.saturating_sub(memory.addr()).min(memory.len());
        for offset in (start.next_multiple_of(WORD)..end / WORD * WORD).step_by(WORD) {
            let word = memory.atomic_u64(offset);
            let address = word.load(Relaxed);
            if forbidden
                .iter()
                .any(|(_, window)| window.contains(&address))
            {
                word.store(POISON, Relaxed);
                scrubbed += 1;
            }
        }
    }
    scrubbed
}

/// The numbers of the pages that are not free.
pub(super) fn used(pages: usize, free: &[Range<usize>]) -> impl Iterator<Item = usize> {
    let ends = free.iter().map(|range| range.end);
    let starts = free.iter().map(|range| range.start);
    let used = core::iter::once(0).chain(ends).zip(starts.chain([pages]));
    used.flat_map(move |(start, end)| start..end.min(pages))
}

/// What lies at `at`, or what is nearest before it.
fn owner(owners: &[Owner], at: usize) -> String {
    let after = owners.partition_point(|owner| owner.range.start <= at);
    let Some(before) = after.checked_sub(1).map(|index| &owners[index]) else {
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
    }

    #[test]
    fn scrubbing_leaves_everything_but_the_addresses_in_the_states() {
        let memory = take(2);
        memory.zero(0, memory.len());
        for (offset, word) in [(8, BOOT), (64, BOOT + 1), (72, 5), (4096, BOOT)] {
            memory.write(offset, &word);
        }
        let at = memory.addr();
        let states = [at + 60..at + 80, at + 4096..at + 4104];
        assert_eq!(scrub(&memory, &states, &windows()), 2);
        let words = [8, 64, 72, 4096].map(|offset| memory.read::<u64>(offset));
        assert_eq!(words, [BOOT, POISON, 5, POISON]);
        assert_eq!(audit(&memory, &[], &windows(), &[]).count, 1);
    }

    #[test]
    fn free_pages_are_not_looked_at() {
        let memory = take(5);
        memory.zero(0, memory.len());
        for page in 0..5 {
            memory.write(page * PAGE, &BOOT);
        }
        let found = |free: &[Range<usize>]| audit(&memory, free, &windows(), &[]).count;
        assert_eq!(found(&[]), 5);
        assert_eq!(found(&[1..2, 3..5]), 2);
        assert_eq!(found(&[0..5]), 0);
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
