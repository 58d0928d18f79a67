//! What a loader sees: segments, entry point, notes.

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian as LE, elf};

/// `XEN_ELFNOTE_PHYS32_ENTRY` (xen/include/public/elfnote.h).
const PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);

type Elf<'a> = ElfFile64<'a, LE>;

fn parse(file: &[u8]) -> Result<Elf<'_>> {
    let elf = Elf::parse(file).context("not a 64-bit little-endian ELF file")?;
    ensure!(
        elf.elf_header().e_machine(LE) == elf::EM_X86_64,
        "not for x86-64"
    );
    Ok(elf)
}

/// The segment with the physical address, if it may be executed.
fn executable_at(elf: &Elf<'_>, address: u64) -> bool {
    elf.elf_program_headers().iter().any(|segment| {
        let start = segment.p_paddr(LE);
        segment.p_type(LE) == elf::PT_LOAD
            && segment.p_flags(LE).0 & elf::PF_X.0 != 0
            && (start..start.saturating_add(segment.p_filesz(LE))).contains(&address)
    })
}

/// The 32-bit entry of the PVH boot protocol, from the note that Xen and
/// others look for; it must point into a loaded, executable segment.
pub(crate) fn pvh_entry(file: &[u8]) -> Result<u64> {
    let elf = parse(file)?;
    for segment in elf.elf_program_headers() {
        let Some(mut notes) = segment.notes(LE, file)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() != b"Xen" || note.n_type(LE) != PHYS32_ENTRY {
                continue;
            }
            let entry = match *note.desc() {
                [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
                ref desc => bail!("the note holds {} bytes instead of 4", desc.len()),
            };
            ensure!(
                executable_at(&elf, entry),
                "the note points to {entry:#x}, which no executable segment holds"
            );
            return Ok(entry);
        }
    }
    bail!("no note of owner Xen and type 18 in a PT_NOTE segment")
}

/// Of the Multiboot2 Specification 2.0, "OS image format".
const MULTIBOOT2_MAGIC: u32 = 0xe852_50d6;
const MULTIBOOT2_WITHIN: usize = 32 << 10;

/// The 32-bit entry of Multiboot2, from the header that GRUB looks for; it must
/// point into a loaded, executable segment.
pub(crate) fn multiboot2_entry(file: &[u8]) -> Result<u64> {
    let elf = parse(file)?;
    let head = &file[..file.len().min(MULTIBOOT2_WITHIN)];
    let words: Vec<_> = head
        .as_chunks()
        .0
        .iter()
        .map(|w| u32::from_le_bytes(*w))
        .collect();
    // Loaders take the first one that adds up, 8 bytes aligned.
    let adds_up = |header: &&[u32]| {
        let sum = header[..4]
            .iter()
            .fold(0, |sum: u32, word| sum.wrapping_add(*word));
        header[0] == MULTIBOOT2_MAGIC && sum == 0
    };
    let starts = (0..words.len().saturating_sub(3)).step_by(2);
    let header = starts
        .map(|at| &words[at..])
        .find(adds_up)
        .with_context(|| {
            format!("no Multiboot2 header that adds up in the first {MULTIBOOT2_WITHIN} bytes")
        })?;
    ensure!(
        header[1] == 0,
        "the Multiboot2 header is not for 32-bit x86"
    );
    let tags = header.get(4..header[2] as usize / 4);
    let mut tags = tags.context("the Multiboot2 header runs out of its room")?;
    let mut entry = None;
    while let [kind, size, ..] = *tags {
        match (kind & 0xffff, tags) {
            (0, _) => {
                let entry = entry.context("the Multiboot2 header has no entry address tag")?;
                ensure!(
                    executable_at(&elf, entry),
                    "the Multiboot2 header points to {entry:#x}, which no executable segment holds"
                );
                return Ok(entry);
            }
            (3, [_, 12, address, ..]) => entry = Some(u64::from(*address)),
            (other, _) => bail!("the Multiboot2 header has a tag {other} of {size} bytes"),
        }
        tags = tags
            .get(size.next_multiple_of(8) as usize / 4..)
            .unwrap_or(&[]);
    }
    bail!("the Multiboot2 header has no last tag")
}

/// The 64-bit entry (the Linux boot protocol) lies in executable memory, at
/// the address where it is loaded.
pub(crate) fn entry(file: &[u8]) -> Result<()> {
    let elf = parse(file)?;
    let entry = elf.elf_header().e_entry(LE);
    ensure!(
        executable_at(&elf, entry),
        "e_entry is {entry:#x}, which no executable segment holds"
    );
    Ok(())
}

/// Nothing is left for a dynamic loader to do.
pub(crate) fn is_static(file: &[u8]) -> Result<()> {
    let elf = parse(file)?;
    ensure!(
        elf.elf_header().e_type(LE) == elf::ET_EXEC,
        "not an ET_EXEC file: it would need relocation"
    );
    for segment in elf.elf_program_headers() {
        let kind = segment.p_type(LE);
        ensure!(
            kind != elf::PT_INTERP && kind != elf::PT_DYNAMIC,
            "it has a PT_INTERP or PT_DYNAMIC segment"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::sample::Sample;

    fn message(result: Result<impl Sized>) -> String {
        format!("{:#}", result.err().expect("it must fail"))
    }

    #[test]
    fn a_good_file_passes() {
        let file = Sample::default().bytes();
        assert_eq!(pvh_entry(&file).unwrap(), 0x10_0010);
        assert_eq!(multiboot2_entry(&file).unwrap(), 0x10_0008);
        entry(&file).unwrap();
        is_static(&file).unwrap();
    }

    #[test]
    fn each_broken_note_is_found() {
        let owner = Sample {
            note_name: *b"GNU\0",
            ..Sample::default()
        };
        assert!(message(pvh_entry(&owner.bytes())).contains("no note"));
        let kind = Sample {
            note_type: 17,
            ..Sample::default()
        };
        assert!(message(pvh_entry(&kind.bytes())).contains("no note"));
        let segment = Sample {
            note_segment: elf::PT_NULL.0,
            ..Sample::default()
        };
        assert!(message(pvh_entry(&segment.bytes())).contains("no note"));
        let outside = Sample {
            note_entry: 0x20_0000,
            ..Sample::default()
        };
        assert!(message(pvh_entry(&outside.bytes())).contains("0x200000"));
        let data = Sample {
            load_flags: elf::PF_R.0,
            ..Sample::default()
        };
        assert!(message(pvh_entry(&data.bytes())).contains("no executable"));
    }

    #[test]
    fn each_broken_header_is_found() {
        let broken = |sample: Sample| message(multiboot2_entry(&sample.bytes()));
        let odd = Sample {
            header_at: 268,
            ..Sample::default()
        };
        assert!(broken(odd).contains("no Multiboot2 header"));
        let late = Sample {
            header_at: MULTIBOOT2_WITHIN - 8,
            ..Sample::default()
        };
        assert!(broken(late).contains("no Multiboot2 header"));
        let sum = Sample {
            header_sum: 1,
            ..Sample::default()
        };
        assert!(broken(sum).contains("adds up"));
        let tag = Sample {
            header_tag: 9,
            ..Sample::default()
        };
        assert!(broken(tag).contains("a tag 9 of 12 bytes"));
        let outside = Sample {
            header_entry: 0x20_0000,
            ..Sample::default()
        };
        assert!(broken(outside).contains("0x200000"));
        let mut cut = Sample::default().bytes();
        cut.truncate(cut.len() - 8);
        assert!(message(multiboot2_entry(&cut)).contains("runs out"));
    }

    #[test]
    fn an_entry_outside_the_code_is_found() {
        let outside = Sample {
            entry: 0xf_ffff,
            ..Sample::default()
        };
        assert!(message(entry(&outside.bytes())).contains("0xfffff"));
    }

    #[test]
    fn a_dynamic_file_is_found() {
        let pie = Sample {
            kind: elf::ET_DYN.0,
            ..Sample::default()
        };
        assert!(message(is_static(&pie.bytes())).contains("ET_EXEC"));
        let dynamic = Sample {
            note_segment: elf::PT_DYNAMIC.0,
            ..Sample::default()
        };
        assert!(message(is_static(&dynamic.bytes())).contains("PT_DYNAMIC"));
    }

    #[test]
    fn junk_is_no_elf_file() {
        assert!(message(entry(b"#!/bin/sh")).contains("not a 64-bit"));
    }
}
