//! A small ELF file for tests, with every field that the checks read.

use object::elf;

/// The fields; the default passes every check of `layout`.
pub(crate) struct Sample {
    pub(crate) kind: u16,
    pub(crate) entry: u64,
    pub(crate) load_flags: u32,
    pub(crate) note_segment: u32,
    pub(crate) note_name: [u8; 4],
    pub(crate) note_type: u32,
    pub(crate) note_entry: u32,
    /// Where the Multiboot2 header begins.
    pub(crate) header_at: usize,
    /// What all of its first four words add up to.
    pub(crate) header_sum: u32,
    pub(crate) header_tag: u16,
    pub(crate) header_entry: u32,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            kind: elf::ET_EXEC.0,
            entry: 0x10_0020,
            load_flags: elf::PF_R.0 | elf::PF_X.0,
            note_segment: elf::PT_NOTE.0,
            note_name: *b"Xen\0",
            note_type: 18,
            note_entry: 0x10_0010,
            header_at: 264,
            header_sum: 0,
            header_tag: 3,
            header_entry: 0x10_0008,
        }
    }
}

impl Sample {
    /// Header, two program headers (a segment of 64 bytes loaded at 1 MiB,
    /// the note), the note, the segment, the Multiboot2 header.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend(self.kind.to_le_bytes());
        file.extend(elf::EM_X86_64.0.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 2, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        segment(
            &mut file,
            elf::PT_LOAD.0,
            self.load_flags,
            [196, 0x10_0000, 64],
        );
        segment(&mut file, self.note_segment, elf::PF_R.0, [176, 0, 20]);
        for word in [4, 4, self.note_type] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(self.note_name);
        file.extend(self.note_entry.to_le_bytes());
        file.extend([0x90; 64]);
        file.resize(self.header_at, 0);
        let head = [0xe852_50d6, 0, 40u32];
        let sum = head
            .iter()
            .fold(0, |sum: u32, word| sum.wrapping_add(*word));
        let check = self.header_sum.wrapping_sub(sum);
        let tag = [u32::from(self.header_tag), 12, self.header_entry, 0];
        for word in head.into_iter().chain([check]).chain(tag).chain([0, 8]) {
            file.extend(word.to_le_bytes());
        }
        file
    }
}

fn segment(file: &mut Vec<u8>, kind: u32, flags: u32, [offset, address, size]: [u64; 3]) {
    file.extend(kind.to_le_bytes());
    file.extend(flags.to_le_bytes());
    for field in [offset, address, address, size, size, 4] {
        file.extend(field.to_le_bytes());
    }
}
