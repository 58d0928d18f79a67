//! Vital product data (SPC-4, section 7.8; SBC-3, section 6.5).

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::error::DataError;
use crate::inquiry::text;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which pages there are.
pub const SUPPORTED: u8 = 0x00;
/// The serial number.
pub const SERIAL: u8 = 0x80;
/// Names of the unit.
pub const IDENTIFICATION: u8 = 0x83;
/// Limits of requests.
pub const LIMITS: u8 = 0xb0;
/// What the medium is like.
pub const CHARACTERISTICS: u8 = 0xb1;
/// What unmapping does.
pub const PROVISIONING: u8 = 0xb2;

/// Bytes to ask for; pages that matter are shorter.
pub const BYTES: u16 = 252;

/// The content of a page, if it is the one that was asked for. A page that was
/// cut off is what is there of it.
///
/// # Errors
/// [`DataError`].
pub fn page(asked: u8, bytes: &[u8]) -> Result<&[u8], DataError> {
    let (Some(&came), Some(length)) = (bytes.get(1), u16_at(bytes, 2)) else {
        let (what, bytes) = ("VPD page", bytes.len());
        return Err(DataError::Short { what, bytes });
    };
    if came != asked {
        return Err(DataError::WrongPage { asked, came });
    }
    let content = &bytes[4..];
    Ok(&content[..content.len().min(length.into())])
}

/// The pages that a unit has.
///
/// # Errors
/// [`DataError`].
pub fn supported(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    page(SUPPORTED, bytes).map(<[u8]>::to_vec)
}

/// The serial number, trimmed; `None` if it is empty.
///
/// # Errors
/// [`DataError`].
pub fn serial(bytes: &[u8]) -> Result<Option<String>, DataError> {
    let serial = text(page(SERIAL, bytes)?);
    Ok((!serial.is_empty()).then_some(serial))
}

/// A name of a unit, that is the same wherever it is plugged in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Designator {
    /// How it was made; the higher, the better for our purpose.
    pub kind: u8,
    /// The name.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Designator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Designator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The best name that a unit has for itself: NAA before EUI-64 before a
/// vendor's; `None` if it has none of these.
///
/// # Errors
/// [`DataError`].
pub fn identification(bytes: &[u8]) -> Result<Option<Designator>, DataError> {
    let mut rest = page(IDENTIFICATION, bytes)?;
    let mut best: Option<Designator> = None;
    // Each is at least its head, so this ends.
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(head[3]);
        let Some((name, next)) = after.split_at_checked(length) else {
            break;
        };
        rest = next;
        let (kind, of_unit) = (head[1] & 0xf, head[1] >> 4 & 3 == 0);
        let known = of_unit && (1..=3).contains(&kind) && !name.is_empty();
        if known && best.as_ref().is_none_or(|best| best.kind < kind) {
            let bytes = name.to_vec();
            best = Some(Designator { kind, bytes });
        }
    }
    Ok(best)
}

/// What requests a unit takes; zero: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most blocks of a transfer.
    pub transfer: u32,
    /// Most blocks of an UNMAP.
    pub unmap_blocks: u32,
    /// Most ranges of an UNMAP.
    pub unmap_ranges: u32,
    /// Blocks that are unmapped together.
    pub unmap_granularity: u32,
    /// Where the first such run begins, in blocks.
    pub unmap_alignment: u32,
    /// Most blocks of a WRITE SAME.
    pub write_same_blocks: u64,
}

/// Reads [`LIMITS`]; what an old unit's page does not have is zero.
///
/// # Errors
/// [`DataError`].
pub fn limits(bytes: &[u8]) -> Result<Limits, DataError> {
    page(LIMITS, bytes)?;
    let number = |at| u32_at(bytes, at).unwrap_or(0);
    let alignment = number(32);
    Ok(Limits {
        transfer: number(8),
        unmap_blocks: number(20),
        unmap_ranges: number(24),
        unmap_granularity: number(28),
        // Only valid with its highest bit.
        unmap_alignment: if alignment >> 31 == 1 {
            alignment & (u32::MAX >> 1)
        } else {
            0
        },
        write_same_blocks: u64_at(bytes, 36).unwrap_or(0),
    })
}

/// Whether the medium does not rotate ([`CHARACTERISTICS`]).
///
/// # Errors
/// [`DataError`].
pub fn is_solid_state(bytes: &[u8]) -> Result<bool, DataError> {
    let content = page(CHARACTERISTICS, bytes)?;
    Ok(u16_at(content, 0) == Some(1))
}

/// How blocks can be unmapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// By UNMAP.
    pub unmap: bool,
    /// By WRITE SAME (16).
    pub write_same: bool,
    /// Unmapped blocks read as zeros.
    pub reads_zeros: bool,
}

/// Reads [`PROVISIONING`].
///
/// # Errors
/// [`DataError`].
pub fn provisioning(bytes: &[u8]) -> Result<Provisioning, DataError> {
    let content = page(PROVISIONING, bytes)?;
    let Some(flags) = content.get(1) else {
        let (what, bytes) = ("VPD page b2", bytes.len());
        return Err(DataError::Short { what, bytes });
    };
    Ok(Provisioning {
        unmap: flags & 0x80 != 0,
        write_same: flags & 0x40 != 0,
        reads_zeros: flags & 0x04 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn bytes(page: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, page, 0, content.len() as u8];
        bytes.extend(content);
        bytes
    }

    #[test]
    fn the_best_name_is_taken() {
        let vendor = [0x02, 0x01, 0, 3, b'a', b'b', b'c'];
        let naa = [0x01, 0x03, 0, 2, 0x60, 0x02];
        let of_port = [0x01, 0x13, 0, 1, 9];
        let all = [&of_port[..], &naa, &vendor].concat();
        let best = identification(&bytes(0x83, &all)).expect("whole");
        let best = best.expect("two names");
        assert_eq!((best.kind, best.bytes.as_slice()), (3, &[0x60, 0x02][..]));
        let only = identification(&bytes(0x83, &[&of_port[..], &vendor].concat()));
        assert_eq!(only.expect("whole").expect("one name").kind, 1);
        // Cut in the middle of a name: what was whole before it counts.
        let cut = identification(&bytes(0x83, &[&vendor[..], &naa[..5]].concat()));
        assert_eq!(cut.expect("cut").expect("one name").kind, 1);
        assert_eq!(identification(&bytes(0x83, &of_port)), Ok(None));
    }

    #[test]
    fn pages_are_told_apart_and_may_be_cut() {
        let wrong = DataError::WrongPage {
            asked: 0x80,
            came: 0x83,
        };
        assert_eq!(serial(&bytes(0x83, b"abc")), Err(wrong));
        assert_eq!(serial(&bytes(0x80, b" 17 ")), Ok(Some("17".into())));
        assert_eq!(serial(&bytes(0x80, b"   ")), Ok(None));
        assert!(serial(&[0, 0x80, 0]).is_err());
        assert_eq!(supported(&bytes(0, &[0, 0x80])), Ok(vec![0, 0x80]));
        let mut wide = [0; 60];
        wide[4..8].copy_from_slice(&100u32.to_be_bytes());
        wide[16..20].copy_from_slice(&200u32.to_be_bytes());
        wide[24..28].copy_from_slice(&8u32.to_be_bytes());
        wide[28..32].copy_from_slice(&3u32.to_be_bytes());
        let limits_of = |content: &[u8]| limits(&bytes(0xb0, content)).expect("whole");
        let found = limits_of(&wide);
        assert_eq!((found.transfer, found.unmap_blocks), (100, 200));
        assert_eq!((found.unmap_granularity, found.unmap_alignment), (8, 0));
        wide[28] = 0x80;
        assert_eq!(limits_of(&wide).unmap_alignment, 3);
        assert_eq!(limits_of(&wide[..12]).unmap_blocks, 0);
        assert_eq!(is_solid_state(&bytes(0xb1, &[0, 1, 0, 0])), Ok(true));
        let thin = provisioning(&bytes(0xb2, &[0, 0xc4, 2, 0])).expect("whole");
        assert!(thin.unmap && thin.write_same && thin.reads_zeros);
        assert!(provisioning(&bytes(0xb2, &[0])).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for asked in [SUPPORTED, SERIAL, IDENTIFICATION, LIMITS, CHARACTERISTICS, PROVISIONING] {
                let mut bytes = bytes.clone();
                if let Some(page) = bytes.get_mut(1) {
                    *page = asked;
                }
                let _ = (supported(&bytes), serial(&bytes), limits(&bytes));
                let _ = (is_solid_state(&bytes), provisioning(&bytes));
                if let Ok(Some(name)) = identification(&bytes) {
                    prop_assert!(name.bytes.len() < bytes.len());
                }
            }
        }
    }
}
