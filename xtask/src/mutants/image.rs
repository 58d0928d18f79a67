//! Guards of the freeze image.

use super::{Mutant, mutant};

const CHECK: &str = "drivers/image/src/check.rs";
const HEADER: &str = "drivers/image/src/format/header.rs";
const IO: &str = "drivers/image/src/io.rs";
const LOAD: &str = "drivers/image/src/store/load.rs";
const PLAN: &str = "drivers/image/src/plan.rs";
const SEAL: &str = "drivers/image/src/seal.rs";
const SLOTS: &str = "drivers/image/src/slots.rs";
const STATES: &str = "drivers/image/src/store/header.rs";
const SUM: &str = "drivers/image/src/format/sum.rs";
const TABLE: &str = "drivers/image/src/format/table.rs";
const TARGET: &str = "drivers/image/src/store/target.rs";
const WRITE: &str = "drivers/image/src/store/write.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "a chunk verifies in another chunk's place",
        SUM,
        "Of::Chunk(index) => u64::from(index),",
        "Of::Chunk(_) => 0,",
    ),
    mutant(
        "an older image's chunk verifies",
        SUM,
        "generation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place",
        "generation.0.wrapping_mul(0) ^ place",
    ),
    mutant(
        "a header's checksum is not compared",
        HEADER,
        "if raw.checksum != sum::of_header(&raw) {",
        "if raw.checksum != raw.checksum {",
    ),
    mutant(
        "a header is taken for the other slot's",
        HEADER,
        "raw.slot == slot as u32,",
        "raw.slot < 2 || slot == SlotId::A,",
    ),
    mutant(
        "a header's lengths are believed",
        HEADER,
        "if u64::from(header.chunks) != super::chunks(bytes) {",
        "if u64::from(header.chunks) == u64::MAX {",
    ),
    mutant(
        "a chunk's place is believed",
        TABLE,
        "if self.place != place {",
        "if self.place == u64::MAX - 1 {",
    ),
    mutant(
        "a chunk's length is believed",
        TABLE,
        "RAW => self.stored as usize == full,",
        "RAW => true,",
    ),
    mutant(
        "VALID beats the other slot's CONSUMED",
        SLOTS,
        "(_, state) if same && state.is_end() => Verdict::Ended(*old, other),",
        "",
    ),
    mutant(
        "the older generation counts",
        SLOTS,
        "match a.generation >= b.generation {",
        "match a.generation <= b.generation {",
    ),
    mutant(
        "a damaged slot is passed over",
        SLOTS,
        "(Slot::Header(_) | Slot::Damaged(_), other) => other_is_wrong(&self.a, other),",
        "(Slot::Header(a), _) if a.state == State::Valid => Verdict::Valid(*a, SlotId::A),
            (Slot::Header(_) | Slot::Damaged(_), other) => other_is_wrong(&self.a, other),",
    ),
    mutant(
        "a commit goes over the latest state",
        PLAN,
        "Verdict::Ended(_, latest) => Ok((latest.other(), false)),",
        "Verdict::Ended(_, latest) => Ok((latest, false)),",
    ),
    mutant(
        "a VALID image is written over",
        PLAN,
        "Verdict::Valid(header, _) => Err(WhyNot::HasImage(header.generation)),",
        "Verdict::Valid(_, slot) => Ok((slot.other(), false)),",
    ),
    mutant(
        "a disk without flush is used",
        PLAN,
        "if info.durability == Durability::None {",
        "if info.durability == Durability::None && info.read_only {",
    ),
    mutant(
        "no room is found in the middle of writing",
        PLAN,
        "if needs.div_ceil(SECTOR) > have {",
        "if needs.div_ceil(SECTOR) > have * 2 {",
    ),
    mutant(
        "VOID is written over the commit first",
        STATES,
        "for slot in [plan.target.other(), plan.target] {",
        "for slot in [plan.target] {",
    ),
    mutant(
        "a change of state is not flushed",
        STATES,
        "self.io.flush(\"flushing an image header\").await",
        "Ok(())",
    ),
    mutant(
        "a chunk's checksum is not compared",
        LOAD,
        "if sum_pages(sum, memory, places, page) != entry.sum {",
        "if sum_pages(sum, memory, places, page) == [1; 16] {",
    ),
    mutant(
        "a chunk's checksum is not compared where it goes through a lane",
        LOAD,
        "if place_pages(sum, lane, places, into, page) != entry.sum {",
        "if place_pages(sum, lane, places, into, page) == [1; 16] {",
    ),
    mutant(
        "pages that were not stored keep what was there",
        TARGET,
        "absent.for_each(|page| self.memory.zero(page * PAGE, PAGE));",
        "absent.for_each(|page| self.memory.zero(page * PAGE, 0));",
    ),
    mutant(
        "zero pages are stored",
        WRITE,
        "any == 0",
        "any == u64::MAX",
    ),
    mutant(
        "a host that does not answer is waited for",
        IO,
        "if waited >= self.limits.stall {",
        "if waited >= core::time::Duration::MAX {",
    ),
    mutant(
        "a late completion of a given up attempt is taken for our own",
        IO,
        "cookie if (cookie >> 32) as u32 != *epoch => Err(completion),",
        "cookie if (cookie >> 32) as u32 != *epoch => Ok(drop(completion)),",
    ),
    mutant(
        "a flush overlaps what it is to make durable",
        IO,
        "        self.settle(what).await?;\n        let cookie = self.cookie(FLUSH);",
        "        let cookie = self.cookie(FLUSH);",
    ),
    mutant(
        "chunks share a nonce",
        SEAL,
        "nonce[20..].copy_from_slice(&purpose.to_le_bytes());",
        "let _ = purpose;",
    ),
    mutant(
        "a wrong key is not noticed at the header",
        LOAD,
        "if seal.header(&header) != header.layout.tag {",
        "if seal.header(&header) == [1; 16] {",
    ),
    mutant(
        "an image without seal passes beside a key",
        CHECK,
        "(false, true) => Err(Refusal::NotSealed),",
        "(false, true) => Ok(()),",
    ),
];
