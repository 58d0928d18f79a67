//! Standard inquiry data (SPC-4, section 6.6.2).

use crate::error::DataError;
use alloc::string::String;

firn_block::open_enum! {
    /// What a unit is.
    pub enum DeviceType: u8 {
        /// A disk.
        DISK = 0x00 => "disk",
        /// A CD or DVD drive.
        CD = 0x05 => "CD",
        /// Nobody knows; there is no unit.
        UNKNOWN = 0x1f => "unknown",
    }
}

/// Who a unit says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Whether there is a unit at all.
    pub present: bool,
    /// What it is.
    pub device_type: DeviceType,
    /// Whether its medium can be changed.
    pub removable: bool,
    /// The standard it follows.
    pub version: u8,
    /// Who made it; trimmed.
    pub vendor: String,
    /// What they call it; trimmed.
    pub product: String,
}

impl Inquiry {
    /// Bytes to ask for.
    pub const BYTES: u16 = 36;

    /// Reads inquiry data.
    ///
    /// # Errors
    /// [`DataError::Short`] for less than [`Inquiry::BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DataError> {
        let Some(bytes) = bytes.first_chunk::<{ Self::BYTES as usize }>() else {
            let (what, bytes) = ("inquiry data", bytes.len());
            return Err(DataError::Short { what, bytes });
        };
        Ok(Self {
            present: bytes[0] >> 5 == 0,
            device_type: DeviceType(bytes[0] & 0x1f),
            removable: bytes[1] & 0x80 != 0,
            version: bytes[2],
            vendor: text(&bytes[8..16]),
            product: text(&bytes[16..32]),
        })
    }
}

/// Printable characters, trimmed.
pub(crate) fn text(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        0x20..=0x7e => char::from(*byte),
        _ => ' ',
    };
    let all: String = bytes.iter().map(shown).collect();
    all.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_and_whether_it_is() {
        let mut bytes = [b' '; 36];
        bytes[..8].copy_from_slice(&[0, 0x80, 5, 2, 31, 0, 0, 2]);
        bytes[8..12].copy_from_slice(b"Msft");
        bytes[16..28].copy_from_slice(b"Virtual Disk");
        let inquiry = Inquiry::parse(&bytes).expect("whole");
        assert!(inquiry.present && inquiry.removable);
        assert_eq!(inquiry.device_type, DeviceType::DISK);
        assert_eq!(inquiry.product, "Virtual Disk");
        bytes[0] = 0x7f;
        let inquiry = Inquiry::parse(&bytes).expect("whole");
        assert!(!inquiry.present);
        let short = Inquiry::parse(&bytes[..35]);
        assert!(matches!(short, Err(DataError::Short { bytes: 35, .. })));
    }
}
