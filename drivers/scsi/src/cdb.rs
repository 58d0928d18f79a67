//! Command descriptor blocks.

/// Bytes of [`unmap_parameters`].
pub const UNMAP_BYTES: usize = 24;

mod code {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const MODE_SENSE_6: u8 = 0x1a;
    pub(super) const START_STOP_UNIT: u8 = 0x1b;
    pub(super) const READ_CAPACITY_10: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const WRITE_10: u8 = 0x2a;
    pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(super) const UNMAP: u8 = 0x42;
    pub(super) const READ_16: u8 = 0x88;
    pub(super) const WRITE_16: u8 = 0x8a;
    pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(super) const WRITE_SAME_16: u8 = 0x93;
    pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(super) const REPORT_LUNS: u8 = 0xa0;
}

/// The service action of READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;
/// The page code of MODE SENSE that means all pages.
const ALL_PAGES: u8 = 0x3f;
/// The bit of WRITE SAME that unmaps.
const UNMAP_BIT: u8 = 0x08;

/// A command, ready to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; 16],
    len: u8,
}

/// Puts bytes at a place of a command.
const fn put<const N: usize>(mut cdb: Cdb, at: usize, bytes: [u8; N]) -> Cdb {
    let mut i = 0;
    while i < N {
        cdb.bytes[at + i] = bytes[i];
        i += 1;
    }
    cdb
}

impl Cdb {
    const fn new(code: u8, len: u8) -> Self {
        let cdb = Self {
            bytes: [0; 16],
            len,
        };
        put(cdb, 0, [code])
    }

    /// The bytes: 6, 10, 12 or 16 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// TEST UNIT READY.
    #[must_use]
    pub const fn test_unit_ready() -> Self {
        Self::new(code::TEST_UNIT_READY, 6)
    }

    /// INQUIRY for so many bytes.
    #[must_use]
    pub const fn inquiry(bytes: u16) -> Self {
        put(Self::new(code::INQUIRY, 6), 3, bytes.to_be_bytes())
    }

    /// INQUIRY for so many bytes of a page of vital product data.
    #[must_use]
    pub const fn vpd(page: u8, bytes: u16) -> Self {
        put(Self::inquiry(bytes), 1, [1, page])
    }

    /// MODE SENSE (6) of all pages, for so many bytes; the head is what matters.
    #[must_use]
    pub const fn mode_sense(bytes: u8) -> Self {
        let cdb = put(Self::new(code::MODE_SENSE_6, 6), 2, [ALL_PAGES]);
        put(cdb, 4, [bytes])
    }

    /// REPORT LUNS for so many bytes.
    #[must_use]
    pub const fn report_luns(bytes: u32) -> Self {
        put(Self::new(code::REPORT_LUNS, 12), 6, bytes.to_be_bytes())
    }

    /// READ CAPACITY (10): 8 bytes come back.
    #[must_use]
    pub const fn read_capacity_10() -> Self {
        Self::new(code::READ_CAPACITY_10, 10)
    }

    /// READ CAPACITY (16) for so many bytes; 32 is all.
    #[must_use]
    pub const fn read_capacity_16(bytes: u32) -> Self {
        let cdb = Self::new(code::SERVICE_ACTION_IN_16, 16);
        put(put(cdb, 1, [READ_CAPACITY_16]), 10, bytes.to_be_bytes())
    }

    /// READ of blocks: (10) where address and count fit, else (16).
    #[must_use]
    pub const fn read(block: u64, blocks: u32) -> Self {
        Self::transfer(code::READ_10, code::READ_16, block, blocks)
    }

    /// WRITE of blocks: (10) where address and count fit, else (16).
    #[must_use]
    pub const fn write(block: u64, blocks: u32) -> Self {
        Self::transfer(code::WRITE_10, code::WRITE_16, block, blocks)
    }

    /// SYNCHRONIZE CACHE of the whole disk.
    #[must_use]
    pub const fn synchronize_cache() -> Self {
        Self::new(code::SYNCHRONIZE_CACHE_10, 10)
    }

    /// SYNCHRONIZE CACHE (16) of some blocks; of all behind `block` for none.
    #[must_use]
    pub const fn synchronize_cache_16(block: u64, blocks: u32) -> Self {
        Self::long(code::SYNCHRONIZE_CACHE_16, block, blocks)
    }

    /// UNMAP with a list of [`unmap_parameters`].
    #[must_use]
    pub const fn unmap(bytes: u16) -> Self {
        put(Self::new(code::UNMAP, 10), 7, bytes.to_be_bytes())
    }

    /// WRITE SAME (16) with the unmap bit: one block of zeros is sent.
    #[must_use]
    pub const fn write_same_unmap(block: u64, blocks: u32) -> Self {
        put(
            Self::long(code::WRITE_SAME_16, block, blocks),
            1,
            [UNMAP_BIT],
        )
    }

    /// START STOP UNIT.
    #[must_use]
    pub const fn start_stop(start: bool) -> Self {
        put(Self::new(code::START_STOP_UNIT, 6), 4, [start as u8])
    }

    const fn transfer(short: u8, long: u8, block: u64, blocks: u32) -> Self {
        if block > u32::MAX as u64 || blocks > u16::MAX as u32 {
            return Self::long(long, block, blocks);
        }
        let cdb = put(Self::new(short, 10), 2, (block as u32).to_be_bytes());
        put(cdb, 7, (blocks as u16).to_be_bytes())
    }

    const fn long(code: u8, block: u64, blocks: u32) -> Self {
        let cdb = put(Self::new(code, 16), 2, block.to_be_bytes());
        put(cdb, 10, blocks.to_be_bytes())
    }
}

/// The parameter list of UNMAP for one range.
#[must_use]
pub fn unmap_parameters(block: u64, blocks: u32) -> [u8; UNMAP_BYTES] {
    let mut list = [0; UNMAP_BYTES];
    // Bytes after each length.
    list[..2].copy_from_slice(&(UNMAP_BYTES as u16 - 2).to_be_bytes());
    list[2..4].copy_from_slice(&(UNMAP_BYTES as u16 - 8).to_be_bytes());
    list[8..16].copy_from_slice(&block.to_be_bytes());
    list[16..20].copy_from_slice(&blocks.to_be_bytes());
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    proptest! {
        #[test]
        fn addresses_and_counts_stand_where_sbc_says(
            block in prop_oneof![0..1u64 << 33, any::<u64>()],
            blocks in prop_oneof![0..1u32 << 17, any::<u32>()],
        ) {
            for (cdb, codes) in [
                (Cdb::read(block, blocks), [0x28, 0x88]),
                (Cdb::write(block, blocks), [0x2a, 0x8a]),
            ] {
                let bytes = cdb.as_bytes();
                let fits = block < 1 << 32 && blocks < 1 << 16;
                prop_assert_eq!(bytes[0], codes[usize::from(!fits)]);
                let (address, count) = if fits { (&bytes[2..6], &bytes[7..9]) } else { (&bytes[2..10], &bytes[10..14]) };
                prop_assert_eq!(bytes.len(), if fits { 10 } else { 16 });
                prop_assert_eq!((number(address), number(count)), (block, u64::from(blocks)));
            }
            let sync = Cdb::synchronize_cache_16(block, blocks);
            prop_assert_eq!(number(&sync.as_bytes()[2..10]), block);
            let same = Cdb::write_same_unmap(block, blocks);
            prop_assert_eq!(&same.as_bytes()[..2], &[0x93, 0x08]);
            prop_assert_eq!(number(&same.as_bytes()[10..14]), u64::from(blocks));
            let list = unmap_parameters(block, blocks);
            prop_assert_eq!((number(&list[..2]), number(&list[2..4])), (22, 16));
            prop_assert_eq!((number(&list[8..16]), number(&list[16..20])), (block, u64::from(blocks)));
        }
    }

    #[test]
    fn the_others_byte_for_byte() {
        assert_eq!(Cdb::test_unit_ready().as_bytes(), [0; 6]);
        assert_eq!(Cdb::inquiry(0x1234).as_bytes(), [0x12, 0, 0, 0x12, 0x34, 0]);
        assert_eq!(Cdb::vpd(0x83, 255).as_bytes(), [0x12, 1, 0x83, 0, 255, 0]);
        assert_eq!(Cdb::mode_sense(192).as_bytes(), [0x1a, 0, 0x3f, 0, 192, 0]);
        let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(Cdb::report_luns(256).as_bytes(), luns);
        let capacity = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
        assert_eq!(Cdb::read_capacity_16(32).as_bytes(), capacity);
        assert_eq!(Cdb::read_capacity_10().as_bytes()[0], 0x25);
        assert_eq!(Cdb::synchronize_cache().as_bytes()[0], 0x35);
        assert_eq!(
            Cdb::unmap(24).as_bytes(),
            [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]
        );
        assert_eq!(Cdb::start_stop(true).as_bytes(), [0x1b, 0, 0, 0, 1, 0]);
    }
}
