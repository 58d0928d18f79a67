//! Little-endian numbers at offsets of a message.

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A message of a kind: its head and further words.
pub(super) fn message(kind: u32, words: &[u32]) -> Vec<u8> {
    let head = [kind, 0];
    let all = head.iter().chain(words);
    all.flat_map(|word| word.to_le_bytes()).collect()
}
