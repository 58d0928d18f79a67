//! A disk behind a controller.

use crate::blkback::Disk;

/// One unit.
#[derive(Clone)]
pub struct Lun {
    /// Where the data are.
    pub disk: Disk,
    /// Bytes of a block.
    pub block: u32,
    /// The exponent of blocks per physical block.
    pub physical_exponent: u8,
    /// Its serial number.
    pub serial: String,
    /// Its name: an NAA identifier.
    pub naa: u64,
    /// Whether it can unmap.
    pub thin: bool,
    /// Most blocks of a WRITE SAME, if it can unmap by that.
    pub write_same: Option<u64>,
    /// Whether it has pages of limits and provisioning, as new ones have.
    pub modern: bool,
    /// Whether it may not be written.
    pub read_only: bool,
    /// What it says to the next command.
    pub(super) attention: Option<(u8, u8)>,
    /// So many commands find it busy, or not ready yet.
    pub(super) busy: u32,
}

impl Lun {
    /// A disk of 512-byte blocks, thin, as Hyper-V's own are.
    #[must_use]
    pub fn new(disk: Disk) -> Self {
        Self {
            disk,
            block: 512,
            physical_exponent: 3,
            serial: "firn-0001".to_owned(),
            naa: 0x6002_2480_0000_0001,
            thin: true,
            write_same: None,
            modern: true,
            read_only: false,
            attention: None,
            busy: 0,
        }
    }

    /// The same with blocks of so many bytes.
    #[must_use]
    pub fn blocks_of(mut self, bytes: u32) -> Self {
        self.block = bytes;
        self
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, naa: u64) -> Self {
        self.naa = naa;
        self.serial = format!("firn-{naa:x}");
        self
    }

    /// The same, with WRITE SAME of so many blocks instead of UNMAP.
    #[must_use]
    pub const fn writes_same(mut self, blocks: u64) -> Self {
        (self.thin, self.write_same) = (false, Some(blocks));
        self
    }

    /// The same as an old unit: no unmapping, no limits, no modes.
    #[must_use]
    pub fn old(mut self) -> Self {
        (self.thin, self.modern) = (false, false);
        self
    }
}
