//! Which units a target has (SPC-4, section 6.33; SAM-5, section 4.7).

use crate::bytes::u32_at;
use crate::error::DataError;
use alloc::vec::Vec;

/// Units of a target that one byte can name.
pub const MOST_LUNS: usize = 256;

/// The answer to REPORT LUNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Luns {
    /// Those that one byte can name, in order and each once.
    pub units: Vec<u8>,
    /// Units that cannot be named like this, or did not fit into the answer.
    pub others: usize,
}

impl Luns {
    /// Bytes of an answer with so many units.
    #[must_use]
    pub const fn bytes(units: usize) -> usize {
        8 + 8 * units
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`DataError`] when its length cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self, DataError> {
        let what = "list of units";
        let length = u32_at(bytes, 0).filter(|_| bytes.len() >= 8);
        let Some(length) = length else {
            let bytes = bytes.len();
            return Err(DataError::Short { what, bytes });
        };
        if !length.is_multiple_of(8) {
            return Err(DataError::Length { what, length });
        }
        let announced = length as usize / 8;
        let (entries, _) = bytes[8..].as_chunks::<8>();
        let entries = &entries[..entries.len().min(announced)];
        let mut named = [false; 256];
        let mut others = announced;
        for unit in entries.iter().filter_map(single_level) {
            named[usize::from(unit)] = true;
            others -= 1;
        }
        let units = (0..=u8::MAX).filter(|unit| named[usize::from(*unit)]);
        let units = units.collect();
        Ok(Self { units, others })
    }
}

/// The number of a unit that the peripheral or the flat form names.
fn single_level(entry: &[u8; 8]) -> Option<u8> {
    let rest_is_zero = entry[2..].iter().all(|byte| *byte == 0);
    // Method 00 with bus 0, or method 01 with the upper bits zero.
    (rest_is_zero && matches!(entry[0], 0x00 | 0x40)).then_some(entry[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn answer(length: u32, entries: &[[u8; 8]]) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(entries.as_flattened());
        bytes
    }

    #[test]
    fn units_in_order_and_once() {
        let entry = |first, second| [first, second, 0, 0, 0, 0, 0, 0];
        let entries = [entry(0, 7), entry(0x40, 2), entry(0x80, 1), entry(0, 7)];
        let luns = Luns::parse(&answer(32, &entries)).expect("whole");
        assert_eq!((luns.units, luns.others), (vec![2, 7], 1));
        // More than came.
        let luns = Luns::parse(&answer(64, &entries[..1])).expect("cut");
        assert_eq!((luns.units, luns.others), (vec![7], 7));
        // Fewer than came: the rest is not an answer.
        let luns = Luns::parse(&answer(8, &entries)).expect("whole");
        assert_eq!((luns.units, luns.others), (vec![7], 0));
        assert!(Luns::parse(&answer(12, &entries)).is_err());
        assert!(Luns::parse(&[0; 7]).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(luns) = Luns::parse(&bytes) {
                prop_assert!(luns.units.len() <= bytes.len() / 8);
                prop_assert!(luns.units.is_sorted());
            }
        }
    }
}
