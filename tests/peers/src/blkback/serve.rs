//! What a request asks for, whether it may, and doing it.

use super::config::Config;
use super::disk::{Disk, DiskOp};
use super::ring::Raw;
use crate::machine::{FakeMachine, Mapping};
use firn_block::{PAGE, SECTOR};
use firn_xen::wire::blkif::{
    DISCARD_SECURE, MAX_INDIRECT_PAGES, MAX_SEGMENTS, Operation, SEGMENTS_PER_INDIRECT_PAGE, Status,
};
use firn_xen::wire::grant_table::GrantRef;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// One request on the way.
pub(super) struct Job {
    pub(super) id: u64,
    /// The operation that the answer names.
    pub(super) operation: Operation,
    /// The step from which on it may be answered.
    pub(super) due: u64,
    work: Result<Work, Refusal>,
}

/// Why a request is answered with an error without touching the disk.
pub(super) struct Refusal {
    status: Status,
    pub(super) why: String,
}

struct Work {
    sector: u64,
    sectors: u64,
    secure: bool,
    parts: Vec<Part>,
    /// Its pages stay mapped.
    kept: bool,
}

/// Some bytes of one granted page.
struct Part {
    page: Rc<Mapping>,
    offset: usize,
    bytes: usize,
}

/// Grants that stay mapped between requests, the least recently used first.
#[derive(Default)]
pub(super) struct Persistent {
    pages: VecDeque<Rc<Mapping>>,
}

impl Persistent {
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    fn find(&mut self, gref: GrantRef) -> Option<Rc<Mapping>> {
        let at = self.pages.iter().position(|page| page.gref() == gref)?;
        let page = self.pages.remove(at)?;
        self.pages.push_back(page.clone());
        Some(page)
    }

    fn keep(&mut self, page: &Rc<Mapping>, limit: usize) {
        self.pages.push_back(page.clone());
        if self.pages.len() > limit {
            self.pages.pop_front();
        }
    }
}

/// What serving needs to know of the backend.
pub(super) struct Context<'a> {
    pub(super) machine: &'a FakeMachine,
    pub(super) config: &'a Config,
    pub(super) disk: &'a Disk,
    /// Both ends said `feature-persistent`.
    pub(super) persistent: Option<&'a mut Persistent>,
}

fn refuse<T>(status: Status, why: impl Into<String>) -> Result<T, Refusal> {
    let why = why.into();
    Err(Refusal { status, why })
}

fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from(u32_at(raw, at)) | u64::from(u32_at(raw, at + 4)) << 32
}

impl Job {
    /// Reads and checks a request and maps its pages.
    pub(super) fn parse(raw: &Raw, due: u64, context: &mut Context<'_>) -> Self {
        let wire = Operation(raw[0]);
        let operation = match wire {
            Operation::INDIRECT => Operation(raw[1]),
            other => other,
        };
        let work = context.parse(raw, wire, operation);
        Self {
            id: u64_at(raw, 8),
            operation,
            due,
            work,
        }
    }

    /// Why the backend will refuse it.
    pub(super) fn refusal(&self) -> Option<&str> {
        let refusal = self.work.as_ref().err();
        refusal.map(|refusal| refusal.why.as_str())
    }

    /// Does the work; the answer's status.
    pub(super) fn run(&self, disk: &Disk) -> Status {
        let work = match &self.work {
            Ok(work) => work,
            Err(refusal) => return refusal.status,
        };
        let Work {
            sector, sectors, ..
        } = *work;
        let admitted = disk.admits(sector, sectors);
        match admitted && work.carry_out(self.operation, disk).is_ok() {
            true => Status::OKAY,
            false => Status::ERROR,
        }
    }
}

impl Work {
    fn carry_out(&self, operation: Operation, disk: &Disk) -> io::Result<()> {
        match operation {
            Operation::READ => self.read(disk)?,
            Operation::WRITE => self.write(disk)?,
            Operation::WRITE_BARRIER => {
                disk.flush()?;
                disk.record(DiskOp::Flush);
                self.write(disk)?;
                disk.flush()?;
            }
            Operation::FLUSH_DISKCACHE => {
                self.write(disk)?;
                disk.flush()?;
                disk.record(DiskOp::Flush);
            }
            _ => {
                disk.discard(self.sector, self.sectors)?;
                disk.record(DiskOp::Discard {
                    sector: self.sector,
                    sectors: self.sectors,
                    secure: self.secure,
                });
            }
        }
        Ok(())
    }

    fn read(&self, disk: &Disk) -> io::Result<()> {
        let mut at = self.sector;
        let mut bytes = [0; PAGE];
        for part in &self.parts {
            disk.read(at, &mut bytes[..part.bytes])?;
            let bytes = &bytes[..part.bytes];
            match self.kept {
                true => part.page.write_unseen(part.offset, bytes),
                false => part.page.page().copy_in(part.offset, bytes),
            }
            at += part.bytes as u64 / SECTOR;
        }
        disk.record(DiskOp::Read {
            sector: self.sector,
            sectors: self.sectors,
        });
        Ok(())
    }

    fn write(&self, disk: &Disk) -> io::Result<()> {
        let mut at = self.sector;
        let mut bytes = [0; PAGE];
        for part in &self.parts {
            part.page
                .page()
                .copy_out(part.offset, &mut bytes[..part.bytes]);
            disk.write(at, &bytes[..part.bytes])?;
            at += part.bytes as u64 / SECTOR;
        }
        if self.sectors > 0 {
            disk.record(DiskOp::Write {
                sector: self.sector,
                sectors: self.sectors,
            });
        }
        Ok(())
    }
}

impl Context<'_> {
    fn parse(&mut self, raw: &Raw, wire: Operation, real: Operation) -> Result<Work, Refusal> {
        if real == Operation::DISCARD && wire == Operation::DISCARD {
            return self.parse_discard(raw);
        }
        let flush = real == Operation::FLUSH_DISKCACHE;
        let supported = match real {
            Operation::READ | Operation::WRITE => true,
            Operation::WRITE_BARRIER => self.config.barrier,
            Operation::FLUSH_DISKCACHE => self.config.flush,
            _ => false,
        };
        if !supported {
            return refuse(Status::EOPNOTSUPP, format!("{real} is not offered"));
        }
        let write = real != Operation::READ;
        if write && !flush && self.config.read_only {
            return refuse(Status::ERROR, "the disk is read-only");
        }
        let segments = match wire {
            Operation::INDIRECT => self.indirect_segments(raw)?,
            _ => Self::direct_segments(raw)?,
        };
        if segments.is_empty() && !flush && real != Operation::WRITE_BARRIER {
            return refuse(Status::ERROR, "no segments");
        }
        let sector = u64_at(raw, 16);
        let mut sectors = 0;
        for segment in &segments {
            let (first, last) = (segment[4], segment[5]);
            if last > 7 || first > last {
                return refuse(Status::ERROR, format!("segment {first}..={last}"));
            }
            sectors += u64::from(last - first) + 1;
        }
        if !segments.is_empty() {
            self.check_range(sector, sectors)?;
        }
        let map = |segment| self.map_part(segment, write);
        let parts: Result<Vec<Part>, Refusal> = segments.iter().map(map).collect();
        Ok(Work {
            sector,
            sectors,
            secure: false,
            parts: parts?,
            kept: self.persistent.is_some(),
        })
    }

    fn check_range(&self, sector: u64, sectors: u64) -> Result<(), Refusal> {
        if !self.disk.contains(sector, sectors) {
            return refuse(
                Status::ERROR,
                format!("{sectors} sectors at {sector}: off the disk"),
            );
        }
        let unit = u64::from(self.config.sector_size) / SECTOR;
        if unit > 1 && !(sector.is_multiple_of(unit) && sectors.is_multiple_of(unit)) {
            let why = format!("{sectors} sectors at {sector}: no multiple of {unit}");
            return refuse(Status::ERROR, why);
        }
        Ok(())
    }

    fn parse_discard(&self, raw: &Raw) -> Result<Work, Refusal> {
        let secure = raw[1] & DISCARD_SECURE != 0;
        let Some(discard) = self.config.discard else {
            return refuse(Status::EOPNOTSUPP, "DISCARD is not offered");
        };
        if secure && !discard.secure {
            return refuse(Status::EOPNOTSUPP, "secure discard is not offered");
        }
        if self.config.read_only {
            return refuse(Status::ERROR, "the disk is read-only");
        }
        let (sector, sectors) = (u64_at(raw, 16), u64_at(raw, 24));
        self.check_range(sector, sectors)?;
        Ok(Work {
            sector,
            sectors,
            secure,
            parts: Vec::new(),
            kept: false,
        })
    }

    fn direct_segments(raw: &Raw) -> Result<Vec<[u8; 8]>, Refusal> {
        let count = usize::from(raw[1]);
        if count > MAX_SEGMENTS {
            return refuse(Status::ERROR, format!("{count} segments"));
        }
        let (all, _) = raw[24..].as_chunks::<8>();
        Ok(all[..count].to_vec())
    }

    fn indirect_segments(&mut self, raw: &Raw) -> Result<Vec<[u8; 8]>, Refusal> {
        let count = usize::from(u16_at(raw, 2));
        if count == 0 || count > self.config.indirect as usize {
            return refuse(Status::ERROR, format!("{count} indirect segments"));
        }
        if !matches!(Operation(raw[1]), Operation::READ | Operation::WRITE) {
            return refuse(Status::ERROR, format!("indirect {}", Operation(raw[1])));
        }
        let pages = count.div_ceil(SEGMENTS_PER_INDIRECT_PAGE);
        debug_assert!(pages <= MAX_INDIRECT_PAGES);
        let mut segments = Vec::with_capacity(count);
        for page in 0..pages {
            let gref = GrantRef(u32_at(raw, 28 + 4 * page));
            let mapping = self.map(gref, false)?;
            let here = (count - segments.len()).min(SEGMENTS_PER_INDIRECT_PAGE);
            for at in 0..here {
                segments.push(mapping.page().read::<[u8; 8]>(at * 8));
            }
        }
        Ok(segments)
    }

    fn map_part(&mut self, segment: &[u8; 8], write: bool) -> Result<Part, Refusal> {
        let page = self.map(GrantRef(u32_at(segment, 0)), !write)?;
        let (first, last) = (usize::from(segment[4]), usize::from(segment[5]));
        Ok(Part {
            page,
            offset: first * SECTOR as usize,
            bytes: (last - first + 1) * SECTOR as usize,
        })
    }

    /// Maps a page, or finds it mapped. A persistent one is always writable, so
    /// that it serves the next request too.
    fn map(&mut self, gref: GrantRef, write: bool) -> Result<Rc<Mapping>, Refusal> {
        let domain = self.config.domain;
        let Some(persistent) = &mut self.persistent else {
            let mapping = self.machine.map_grant(domain, gref, write);
            return mapping
                .map(Rc::new)
                .or_else(|e| refuse(Status::ERROR, e.to_string()));
        };
        if let Some(page) = persistent.find(gref) {
            return Ok(page);
        }
        match self.machine.map_grant(domain, gref, true) {
            Ok(mapping) => {
                let page = Rc::new(mapping);
                persistent.keep(&page, self.config.max_persistent);
                Ok(page)
            }
            Err(error) => refuse(Status::ERROR, error.to_string()),
        }
    }
}
