//! How large a disk is (SBC-3, sections 5.15 and 5.16).

use crate::bytes::{u32_at, u64_at};
use crate::error::DataError;

/// What READ CAPACITY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// How many blocks.
    pub blocks: u64,
    /// Bytes in a block.
    pub block: u32,
    /// Bytes that the medium writes at once.
    pub physical: u32,
    /// Whether the disk is thin: unmapped blocks need no space.
    pub thin: bool,
}

impl Capacity {
    /// Bytes of the answer to READ CAPACITY (10).
    pub const SHORT: usize = 8;
    /// Bytes of the answer to READ CAPACITY (16).
    pub const LONG: usize = 32;

    /// Reads the answer to READ CAPACITY (10); `None` if the disk is too large
    /// for it: then (16) says how large.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn parse_10(bytes: &[u8]) -> Result<Option<Self>, DataError> {
        let (last, block) = (u32_at(bytes, 0), u32_at(bytes, 4));
        let (Some(last), Some(block)) = (last, block) else {
            return Err(short(bytes));
        };
        if last == u32::MAX {
            return Ok(None);
        }
        Self::new(last.into(), block, 0, false).map(Some)
    }

    /// Reads the answer to READ CAPACITY (16).
    ///
    /// # Errors
    /// [`DataError`].
    pub fn parse_16(bytes: &[u8]) -> Result<Self, DataError> {
        let (last, block) = (u64_at(bytes, 0), u32_at(bytes, 8));
        let (Some(last), Some(block), Some(flags)) = (last, block, bytes.get(12..15)) else {
            return Err(short(bytes));
        };
        Self::new(last, block, flags[1] & 0xf, flags[2] & 0x80 != 0)
    }

    fn new(last: u64, block: u32, exponent: u8, thin: bool) -> Result<Self, DataError> {
        if !block.is_power_of_two() || !(512..=65536).contains(&block) {
            return Err(DataError::BlockSize(block));
        }
        let blocks = last.checked_add(1);
        let bytes = blocks.and_then(|blocks| blocks.checked_mul(block.into()));
        let (Some(blocks), Some(_)) = (blocks, bytes) else {
            return Err(DataError::TooLarge { last });
        };
        // A physical block that cannot be is none of our business.
        let physical = block.checked_shl(exponent.into()).unwrap_or(block);
        let physical = if physical < block { block } else { physical };
        Ok(Self {
            blocks,
            block,
            physical,
            thin,
        })
    }
}

fn short(bytes: &[u8]) -> DataError {
    let (what, bytes) = ("capacity", bytes.len());
    DataError::Short { what, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sizes_are_read_or_refused(last: u64, exponent in 0..17u32, physical in 0..16u8, thin: bool) {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&last.to_be_bytes());
            bytes[8..12].copy_from_slice(&(1u32 << exponent).to_be_bytes());
            (bytes[13], bytes[14]) = (physical, u8::from(thin) << 7);
            match Capacity::parse_16(&bytes) {
                Ok(capacity) => {
                    prop_assert!(exponent >= 9);
                    prop_assert_eq!(capacity.blocks, last + 1);
                    prop_assert!(capacity.physical >= capacity.block);
                    prop_assert_eq!(capacity.thin, thin);
                }
                Err(DataError::BlockSize(_)) => prop_assert!(exponent < 9),
                Err(_) => prop_assert!(u128::from(last) + 1 >= 1 << (64 - exponent)),
            }
        }
    }

    #[test]
    fn short_form() {
        let disk = Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2, 0]).expect("whole");
        assert_eq!(disk.map(|disk| (disk.blocks, disk.block)), Some((10, 512)));
        let large = [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0];
        assert_eq!(Capacity::parse_10(&large), Ok(None));
        let odd = Capacity::parse_10(&[0, 0, 0, 9, 0, 0, 2, 1]);
        assert_eq!(odd, Err(DataError::BlockSize(513)));
        assert!(Capacity::parse_10(&large[..7]).is_err());
        assert!(Capacity::parse_16(&[0; 14]).is_err());
    }
}
