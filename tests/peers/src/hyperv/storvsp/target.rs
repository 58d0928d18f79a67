//! SCSI commands, carried out on disks in memory.

use super::{Lun, State};
use crate::blkback::{DiskOp, Later, Work};
use crate::hyperv::device::Offences;
use crate::hyperv::offence::HvOffence;

/// How a command ended.
pub(super) struct Outcome {
    pub(super) status: u8,
    pub(super) sense: Vec<u8>,
    /// Data for the guest.
    pub(super) data: Vec<u8>,
    /// Bytes of the guest's that were taken.
    pub(super) taken: usize,
    /// It ends when this does, well or with this sense.
    pub(super) later: Option<(Later, Sense)>,
}

impl Outcome {
    fn data(data: Vec<u8>) -> Self {
        Self {
            status: 0,
            sense: Vec::new(),
            data,
            taken: 0,
            later: None,
        }
    }

    fn good(taken: usize) -> Self {
        Self {
            taken,
            ..Self::data(Vec::new())
        }
    }

    /// It has begun; well done, it is so many bytes.
    fn begun(later: Later, bad: Sense, bytes: usize) -> Self {
        Self {
            later: Some((later, bad)),
            ..Self::good(bytes)
        }
    }

    fn busy() -> Self {
        Self {
            status: 8,
            ..Self::data(Vec::new())
        }
    }

    pub(super) fn check((key, code, qualifier): Sense) -> Self {
        let mut sense = vec![0; 18];
        (sense[0], sense[2], sense[7]) = (0x70, key, 10);
        (sense[12], sense[13]) = (code, qualifier);
        Self {
            status: 2,
            sense,
            ..Self::data(Vec::new())
        }
    }
}

/// A big-endian number.
fn number(bytes: &[u8]) -> u64 {
    let add = |number, byte: &u8| number << 8 | u64::from(*byte);
    bytes.iter().fold(0, add)
}

/// Key, code and qualifier.
pub(super) type Sense = (u8, u8, u8);

const INVALID_FIELD: Sense = (5, 0x24, 0);
const UNREADABLE: Sense = (3, 0x11, 0);
const UNWRITABLE: Sense = (3, 0x0c, 0);
const BROKEN: Sense = (4, 0x44, 0);

impl State {
    /// Carries a command out; `None`: there is no such unit.
    pub(super) fn command(
        &mut self,
        unit: u8,
        cdb: &[u8],
        data: &[u8],
        offences: &Offences,
    ) -> Option<Outcome> {
        let units: Vec<u8> = self.luns.keys().copied().collect();
        if cdb[0] == 0xa0 {
            return Some(report_luns(&units, offences));
        }
        let lun = self.luns.get_mut(&unit)?;
        if cdb[0] != 0x12
            && let Some((code, qualifier)) = lun.attention.take()
        {
            return Some(Outcome::check((6, code, qualifier)));
        }
        if matches!(cdb[0], 0x28 | 0x88 | 0x2a | 0x8a) && lun.busy > 0 {
            lun.busy -= 1;
            // One after the other: busy, and about to be ready.
            return Some(match lun.busy % 2 {
                0 => Outcome::busy(),
                _ => Outcome::check((2, 0x04, 0x01)),
            });
        }
        let result = match cdb[0] {
            0x00 | 0x1b => Ok(Outcome::good(0)),
            0x12 => lun.inquiry(cdb, offences),
            0x25 => Ok(lun.capacity_10(offences)),
            0x9e if cdb[1] & 0x1f == 0x10 => Ok(lun.capacity_16(offences)),
            0x28 => lun.read(number(&cdb[2..6]), number(&cdb[7..9])),
            0x88 => lun.read(number(&cdb[2..10]), number(&cdb[10..14])),
            0x2a => lun.write(number(&cdb[2..6]), number(&cdb[7..9]), data),
            0x8a => lun.write(number(&cdb[2..10]), number(&cdb[10..14]), data),
            0x35 | 0x91 => lun.flush(),
            0x42 => lun.unmap(data),
            0x93 if cdb[1] & 8 != 0 => {
                lun.write_same(number(&cdb[2..10]), number(&cdb[10..14]), data)
            }
            0x1a if lun.modern => Ok(lun.modes(cdb, offences)),
            _ => Err((5, 0x20, 0)),
        };
        Some(result.unwrap_or_else(Outcome::check))
    }
}

type Result<T> = std::result::Result<T, Sense>;

fn report_luns(units: &[u8], offences: &Offences) -> Outcome {
    let mut bytes = (8 * units.len() as u32).to_be_bytes().to_vec();
    bytes.extend([0; 4]);
    for unit in units {
        bytes.extend([0, *unit, 0, 0, 0, 0, 0, 0]);
    }
    if offences.take(HvOffence::OddLuns) {
        bytes[3] += 3;
    }
    Outcome::data(bytes)
}

impl Lun {
    fn sectors(&self) -> u64 {
        u64::from(self.block) / 512
    }

    /// The sectors of some blocks.
    fn range(&self, block: u64, blocks: u64) -> Result<(u64, u64)> {
        let per_block = self.sectors();
        let out_of_range = (5, 0x21, 0);
        let sector = block.checked_mul(per_block).ok_or(out_of_range)?;
        let sectors = blocks.checked_mul(per_block).ok_or(out_of_range)?;
        match self.disk.contains(sector, sectors) {
            true => Ok((sector, sectors)),
            false => Err(out_of_range),
        }
    }

    fn read(&self, block: u64, blocks: u64) -> Result<Outcome> {
        let (sector, sectors) = self.range(block, blocks)?;
        if !self.disk.admits(sector, sectors) {
            return Err(UNREADABLE);
        }
        let bytes = sectors as usize * 512;
        let outcome = match self.disk.begin(Work::Read(sector, bytes)) {
            Some(later) => Outcome::begun(later, UNREADABLE, bytes),
            None => {
                let mut data = vec![0; bytes];
                self.disk.read(sector, &mut data).map_err(|_| UNREADABLE)?;
                Outcome::data(data)
            }
        };
        self.disk.record(DiskOp::Read { sector, sectors });
        Ok(outcome)
    }

    fn write(&self, block: u64, blocks: u64, data: &[u8]) -> Result<Outcome> {
        let (sector, sectors) = self.range(block, blocks)?;
        if self.read_only {
            return Err((7, 0x27, 0));
        }
        if data.len() != sectors as usize * 512 {
            return Err(INVALID_FIELD);
        }
        if !self.disk.admits(sector, sectors) {
            return Err(UNWRITABLE);
        }
        let outcome = match self.disk.begin(Work::Write(sector, data)) {
            Some(later) => Outcome::begun(later, UNWRITABLE, data.len()),
            None => {
                self.disk.write(sector, data).map_err(|_| UNWRITABLE)?;
                Outcome::good(data.len())
            }
        };
        self.disk.record(DiskOp::Write { sector, sectors });
        Ok(outcome)
    }

    fn flush(&self) -> Result<Outcome> {
        if !self.disk.admits(0, 0) {
            return Err(BROKEN);
        }
        let outcome = match self.disk.begin(Work::Flush) {
            Some(later) => Outcome::begun(later, BROKEN, 0),
            None => {
                self.disk.flush().map_err(|_| BROKEN)?;
                Outcome::good(0)
            }
        };
        self.disk.record(DiskOp::Flush);
        Ok(outcome)
    }

    fn unmap(&self, data: &[u8]) -> Result<Outcome> {
        if !self.thin || data.len() < 8 || number(&data[2..4]) as usize > data.len() - 8 {
            return Err(INVALID_FIELD);
        }
        for range in data[8..].chunks_exact(16) {
            self.discard(number(&range[..8]), number(&range[8..12]), 0)?;
        }
        Ok(Outcome::good(data.len()))
    }

    fn discard(&self, block: u64, blocks: u64, taken: usize) -> Result<Outcome> {
        let (sector, sectors) = self.range(block, blocks)?;
        if self.read_only {
            return Err((7, 0x27, 0));
        }
        self.disk.discard(sector, sectors).map_err(|_| UNWRITABLE)?;
        self.disk.record(DiskOp::Discard {
            sector,
            sectors,
            secure: false,
        });
        Ok(Outcome::good(taken))
    }

    fn write_same(&self, block: u64, blocks: u64, data: &[u8]) -> Result<Outcome> {
        let is_block = data.len() == self.block as usize && data.iter().all(|byte| *byte == 0);
        let fits = self.write_same.is_some_and(|most| blocks <= most);
        match is_block && fits {
            true => self.discard(block, blocks, data.len()),
            false => Err(INVALID_FIELD),
        }
    }

    fn modes(&self, cdb: &[u8], offences: &Offences) -> Outcome {
        let mut data = vec![3, 0, u8::from(self.read_only) << 7, 0];
        data.truncate(cdb[4].into());
        if offences.take(HvOffence::ModesTooShort) {
            data.truncate(2);
        }
        Outcome::data(data)
    }

    fn last(&self, offences: &Offences) -> (u64, u32) {
        let blocks = self.disk.capacity() / self.sectors();
        if offences.take(HvOffence::HugeDisk) {
            return (u64::MAX, self.block);
        }
        let block = match offences.take(HvOffence::ZeroBlock) {
            true => 0,
            false => self.block,
        };
        (blocks - 1, block)
    }

    fn capacity_10(&self, offences: &Offences) -> Outcome {
        let (last, block) = self.last(offences);
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        let mut data = last.to_be_bytes().to_vec();
        data.extend(block.to_be_bytes());
        Outcome::data(data)
    }

    fn capacity_16(&self, offences: &Offences) -> Outcome {
        let (last, block) = self.last(offences);
        let mut data = last.to_be_bytes().to_vec();
        data.extend(block.to_be_bytes());
        data.extend([0, self.physical_exponent, u8::from(self.thin) << 7, 0]);
        data.resize(32, 0);
        if offences.take(HvOffence::CapacityTooShort) {
            data.truncate(11);
        }
        Outcome::data(data)
    }

    fn inquiry(&self, cdb: &[u8], offences: &Offences) -> Result<Outcome> {
        let mut data = match cdb[1] & 1 {
            0 => self.standard(),
            _ => self.page(cdb[2])?,
        };
        if cdb[1] & 1 == 1 && offences.take(HvOffence::WrongPage) {
            data[1] ^= 1;
        }
        data.truncate(number(&cdb[3..5]) as usize);
        Ok(Outcome::data(data))
    }

    fn standard(&self) -> Vec<u8> {
        let mut data = vec![0, 0, 5, 2, 31, 0, 0, 2];
        data.extend(b"Msft    Virtual Disk    1.0 ");
        data
    }

    fn page(&self, page: u8) -> Result<Vec<u8>> {
        let content = match page {
            0x00 if self.modern => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
            0x00 => vec![0x00, 0x80, 0x83],
            0x80 => self.serial.as_bytes().to_vec(),
            0x83 => {
                let mut names = vec![0x02, 0x01, 0, 4];
                names.extend(b"Msft");
                names.extend([0x01, 0x03, 0, 8]);
                names.extend(self.naa.to_be_bytes());
                names
            }
            0xb0 if self.modern => {
                let mut limits = vec![0; 60];
                limits[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
                limits[20..24].copy_from_slice(&1u32.to_be_bytes());
                let granularity = (1 << self.physical_exponent) as u32;
                limits[24..28].copy_from_slice(&granularity.to_be_bytes());
                let most = self.write_same.unwrap_or(0);
                limits[32..40].copy_from_slice(&most.to_be_bytes());
                limits
            }
            0xb1 if self.modern => vec![0, 1, 0, 0],
            0xb2 if self.modern => {
                let by_write_same = u8::from(self.write_same.is_some()) << 6;
                vec![0, u8::from(self.thin) << 7 | by_write_same, 2, 0]
            }
            _ => return Err(INVALID_FIELD),
        };
        let mut data = vec![0, page, 0, content.len() as u8];
        data.extend(content);
        Ok(data)
    }
}
