//! What MODE SENSE tells (SPC-4, section 7.5; SBC-3, section 6.5.1).

use crate::error::DataError;

/// Bytes that are asked for: a head, and some of the pages that nobody reads.
pub const BYTES: u8 = 192;
/// The bit of the head's third byte that says so.
const WRITE_PROTECTED: u8 = 0x80;

/// Whether a disk may not be written, by the head of its mode pages.
///
/// # Errors
/// [`DataError::Short`].
pub fn is_write_protected(bytes: &[u8]) -> Result<bool, DataError> {
    let Some([_, _, specific, _]) = bytes.first_chunk::<4>() else {
        let (what, bytes) = ("MODE SENSE", bytes.len());
        return Err(DataError::Short { what, bytes });
    };
    Ok(specific & WRITE_PROTECTED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_says_so() {
        assert_eq!(is_write_protected(&[3, 0, 0x90, 0]), Ok(true));
        assert_eq!(is_write_protected(&[3, 0, 0x10, 0, 0xff]), Ok(false));
        assert!(is_write_protected(&[0, 0, 0x80]).is_err());
    }
}
