//! Hyper-V's ABI: structures and numbers, no logic.
//!
//! Every structure states its size and offsets once, and the compiler checks
//! them. Values that come from the host are plain integers or open enums;
//! nothing here can be made invalid by what the host writes. Sources: the
//! Hypervisor Top-Level Functional Specification (TLFS) for CPUID, MSRs,
//! hypercalls and the SynIC; the public guest drivers for VMBus and storvsc.

pub mod cpuid;
pub mod hypercall;
pub mod ic;
pub mod msr;
pub mod ring;
pub mod synic;
pub mod vmbus;
pub mod vstor;

use core::fmt;

/// States the size of a structure and the offsets of its fields, checked at
/// compile time.
macro_rules! layout {
    ($ty:ty, $size:literal, { $($field:ident @ $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;

/// A GUID as it stands on the wire: the first three fields little-endian.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
)]
#[repr(transparent)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// From the fields as they are written: `first` to `third`, then the last
    /// two groups as one number.
    #[must_use]
    pub const fn new(first: u32, second: u16, third: u16, rest: u64) -> Self {
        let (a, b, c) = (
            first.to_le_bytes(),
            second.to_le_bytes(),
            third.to_le_bytes(),
        );
        let d = rest.to_be_bytes();
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        let first = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let second = u16::from_le_bytes([b[4], b[5]]);
        let third = u16::from_le_bytes([b[6], b[7]]);
        write!(f, "{first:08x}-{second:04x}-{third:04x}-")?;
        for (at, byte) in b.iter().enumerate().skip(8) {
            if at == 10 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_guid_is_shown_as_it_is_written() {
        assert_eq!(
            vmbus::class::SCSI.to_string(),
            "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
        );
        assert_eq!(vmbus::class::SCSI.0[..4], [0xd9, 0x63, 0x61, 0xba]);
    }
}
