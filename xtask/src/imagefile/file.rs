//! A file behind the `Queue` trait: every request is carried out at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant as Clock;

use firn_block::shm::Region;
use firn_block::{
    Armed, Buffer, Completion, DiskId, DiskInfo, Durability, IoError, Op, Queue, Refused,
    RegisterError, Request, SECTOR, Stats, Token, TokenId, Unregistered, Why,
};
use firn_image::{Device, Gone};
use firn_task::Instant;

/// A disk file, and the time.
pub(crate) struct FileDisk {
    queue: RefCell<FileQueue>,
    start: Clock,
}

struct FileQueue {
    file: File,
    info: DiskInfo,
    done: VecDeque<Completion>,
    next: u64,
    stats: Stats,
    bytes: Vec<u8>,
}

impl FileDisk {
    pub(crate) fn open(path: &Path, write: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        let info = DiskInfo {
            id: DiskId(0),
            capacity: size(&file)? / SECTOR,
            logical_block: 512,
            physical_block: 4096,
            read_only: !write,
            durability: Durability::Flush,
            discard: None,
            max_transfer: 1 << 20,
            queue_depth: 64,
        };
        let queue = FileQueue {
            file,
            info,
            done: VecDeque::new(),
            next: 1,
            stats: Stats::default(),
            bytes: Vec::new(),
        };
        Ok(Self {
            queue: RefCell::new(queue),
            start: Clock::now(),
        })
    }

    /// Its size in sectors of 512 bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.queue.borrow().info.capacity
    }
}

/// A block device has no length of its own, but an end.
fn size(mut file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut file, io::SeekFrom::End(0))
}

impl FileQueue {
    fn carry_out(&mut self, request: &Request) -> io::Result<()> {
        let place = request.sector * SECTOR;
        self.bytes.resize(request.bytes() as usize, 0);
        match (request.op, &request.buffer) {
            (Op::Read, Some(buffer)) => {
                self.file.read_exact_at(&mut self.bytes, place)?;
                buffer.region().copy_in(request.offset, &self.bytes);
            }
            (Op::Write, Some(buffer)) => {
                buffer.region().copy_out(request.offset, &mut self.bytes);
                self.file.write_all_at(&self.bytes, place)?;
            }
            _ => self.file.sync_data()?,
        }
        Ok(())
    }

    fn why_not(&self, request: &Request) -> Option<Why> {
        let capacity = self.info.capacity;
        let end = request.sector.checked_add(request.sectors);
        if request.op.modifies() && self.info.read_only {
            Some(Why::ReadOnly)
        } else if end.is_none_or(|end| end > capacity) {
            Some(Why::OutOfRange { capacity })
        } else {
            None
        }
    }
}

impl Queue for FileQueue {
    fn info(&self) -> &DiskInfo {
        &self.info
    }

    fn register(&mut self, region: Region) -> Result<Buffer, RegisterError> {
        Ok(Buffer::new(region, 0, 0))
    }

    fn unregister(&mut self, buffer: Buffer) -> Unregistered {
        Unregistered::Free(buffer.into_region())
    }

    fn reuse(&mut self, _pages: usize) -> Option<Buffer> {
        None
    }

    fn submit(&mut self, request: Request) -> Result<Token, Refused> {
        if let Some(why) = self.why_not(&request) {
            return Err(Refused { why, request });
        }
        let id = TokenId(self.next);
        self.next += 1;
        let result = self.carry_out(&request).map_err(|error| IoError::Failed {
            status: error.raw_os_error().unwrap_or(-1) as i16,
        });
        self.done.push_back(Completion {
            token: id,
            request,
            result,
        });
        Ok(Token::new(id))
    }

    fn kick(&mut self) {}

    fn poll(&mut self, budget: usize, done: &mut dyn FnMut(Completion)) -> usize {
        let count = budget.min(self.done.len());
        self.done.drain(..count).for_each(done);
        count
    }

    fn arm(&mut self) -> Armed {
        Armed::Poll
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl Device for FileDisk {
    fn with_queue<R>(&self, work: impl FnOnce(&mut dyn Queue) -> R) -> Result<R, Gone> {
        Ok(work(&mut *self.queue.borrow_mut()))
    }

    fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    async fn breathe(&self) {}
}
