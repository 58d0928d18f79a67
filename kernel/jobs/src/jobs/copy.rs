//! `read`, `write`, `flush`, `discard`: a person's own hands on a disk.

use crate::error::JobError;
use crate::io::Channel;
use crate::lang::{Discard, Extent, Flush, Read, Write};
use crate::machine::Machine;
use crate::result::Outcome;
use crate::stream::stream;
use crate::task::{Progress, Range, Task, not};
use crate::units::Bytes;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;
use firn_block::{DiskId, DiskInfo, Durability, Op, Request, SECTOR};

/// Most that `read` prints, in bytes.
const MAX_DUMP: u64 = 64 << 10;

/// Request size of `write`, in bytes; a multiple of every disk's block.
const CHUNK: usize = 64 << 10;

pub(super) async fn read<M: Machine>(task: &Task<M>, args: &Read) -> Result<Outcome, JobError> {
    let info = task.live(args.disk, Op::Read)?;
    let (at, size) = (args.at.0, args.size.0);
    if !(1..=MAX_DUMP).contains(&size) {
        return Err(not("size", &format!("between 1 and {}", Bytes(MAX_DUMP))));
    }
    // Disks read whole blocks; what is printed is what was asked for.
    let unit = u64::from(info.logical_block);
    let first = at - at % unit;
    let end = at.saturating_add(size);
    let whole = end.checked_next_multiple_of(unit).unwrap_or(end) - first;
    let range = Range::of(&info, first, Extent::Bytes(whole))?;
    let bytes = range.bytes() as usize;

    let mut channel = Channel::open(&task.machine, args.disk, 1, bytes)?;
    let data = read_range(task, &mut channel, range).await?;
    let skip = (at - first) as usize;
    let shown = data.get(skip..skip + size as usize).unwrap_or(&data);
    dump(task, at, shown);
    let summary = format!("{} at {at} of {}", Bytes(size), args.disk);
    Ok(Outcome::new(summary).with("at", at).with("size", size))
}

/// Reads a range that one buffer of the channel holds.
pub(super) async fn read_range<M: Machine>(
    task: &Task<M>,
    channel: &mut Channel<M>,
    range: Range,
) -> Result<Vec<u8>, JobError> {
    let bytes = range.bytes() as usize;
    let mut data = vec![0; bytes];
    let Some(buffer) = channel.take_buffer() else {
        return Err(JobError::NoMemory { bytes });
    };
    let request = Request::data(Op::Read, range.sector, buffer, bytes);
    let look = |completion: &firn_block::Completion| {
        if let Some(buffer) = &completion.request.buffer {
            buffer.region().copy_out(0, &mut data);
        }
    };
    task.one(channel, request, look).await?;
    Ok(data)
}

/// Prints lines of 16 bytes; of equal ones only the first.
fn dump<M: Machine>(task: &Task<M>, at: u64, data: &[u8]) {
    let mut last: &[u8] = &[];
    let mut repeated = false;
    let mut line = String::new();
    for (start, row) in (at..).step_by(16).zip(data.chunks(16)) {
        if row == last {
            if !core::mem::replace(&mut repeated, true) {
                task.machine.print(format_args!("*\n"));
            }
            continue;
        }
        (last, repeated) = (row, false);
        line.clear();
        // Writing to a string cannot fail.
        let _ = write_row(&mut line, start, row);
        task.machine.print(format_args!("{line}\n"));
    }
}

fn write_row(line: &mut String, at: u64, row: &[u8]) -> core::fmt::Result {
    write!(line, "{at:012x} ")?;
    for column in 0..16 {
        match row.get(column) {
            Some(byte) => write!(line, " {byte:02x}")?,
            None => line.push_str("   "),
        }
    }
    line.push_str("  ");
    let text = row.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    });
    line.extend(text);
    Ok(())
}

pub(super) async fn write<M: Machine>(task: &Task<M>, args: &Write) -> Result<Outcome, JobError> {
    let info = task.live(args.disk, Op::Write)?;
    let (content, bytes) = content(args, &info)?;
    let range = Range::of(&info, args.at.0, Extent::Bytes(bytes))?;
    let mut channel = Channel::open(&task.machine, args.disk, 4, CHUNK)?;
    let progress = Progress::new(task, "writing", range.bytes());
    let mut scratch = vec![0; CHUNK];
    let job = (Op::Write, range, CHUNK);
    stream(
        task,
        &mut channel,
        progress,
        job,
        |sector, bytes, buffer| {
            let offset = (sector - range.sector) * SECTOR;
            let scratch = &mut scratch[..bytes];
            content.fill(offset as usize, scratch);
            buffer.region().copy_in(0, scratch);
            Ok(())
        },
    )
    .await?;
    let flushed = args.flush && flush(task, &info).await?;
    let durable = if flushed { " and flushed" } else { "" };
    let summary = format!(
        "{} written at {} of {}{durable}",
        Bytes(range.bytes()),
        args.at.0,
        args.disk
    );
    Ok(Outcome::new(summary)
        .with("at", args.at.0)
        .with("flushed", flushed))
}

/// What `write` writes.
enum Content {
    Text(Vec<u8>),
    Byte(u8),
}

impl Content {
    /// The part from `offset` on.
    fn fill(&self, offset: usize, out: &mut [u8]) {
        match self {
            Self::Byte(byte) => out.fill(*byte),
            Self::Text(text) => {
                out.fill(0);
                let rest = text.get(offset..).unwrap_or(&[]);
                let len = rest.len().min(out.len());
                out[..len].copy_from_slice(&rest[..len]);
            }
        }
    }
}

/// What to write, and how many bytes.
fn content(args: &Write, info: &DiskInfo) -> Result<(Content, u64), JobError> {
    match (&args.text, args.fill, args.size) {
        (Some(_), Some(_), _) => Err(not("fill", "left out when there is text=")),
        (None, None, _) => Err(not("text", "given, or fill=")),
        (None, Some(_), None) => Err(not("size", "given with fill=")),
        (None, Some(byte), Some(size)) => Ok((Content::Byte(byte), size.0)),
        (Some(text), None, size) => {
            let bytes = text.0.clone().into_bytes();
            let blocks = (bytes.len().max(1) as u64).next_multiple_of(info.logical_block.into());
            let size = size.map_or(blocks, |size| size.0);
            if size < bytes.len() as u64 {
                return Err(not("size", "at least as long as the text"));
            }
            Ok((Content::Text(bytes), size))
        }
    }
}

pub(super) async fn flush_disk<M: Machine>(
    task: &Task<M>,
    args: &Flush,
) -> Result<Outcome, JobError> {
    let disk = args.disk;
    let info = task.live(disk, Op::Flush)?;
    if !flush(task, &info).await? {
        let op = Op::Flush;
        return Err(JobError::Unsupported { disk, op });
    }
    let summary = format!("everything written to {disk} is durable");
    Ok(Outcome::new(summary))
}

/// Makes what was written durable. `false` when the disk offers no way to, which
/// means that it has no cache either, or does not tell.
pub(super) async fn flush<M: Machine>(task: &Task<M>, info: &DiskInfo) -> Result<bool, JobError> {
    if info.durability == Durability::None {
        return Ok(false);
    }
    alone(task, info.id, Request::flush()).await?;
    Ok(true)
}

/// One request without data.
async fn alone<M: Machine>(task: &Task<M>, disk: DiskId, request: Request) -> Result<(), JobError> {
    let mut channel = Channel::open(&task.machine, disk, 1, 0)?;
    task.one(&mut channel, request, |_| ()).await
}

pub(super) async fn discard<M: Machine>(
    task: &Task<M>,
    args: &Discard,
) -> Result<Outcome, JobError> {
    let (disk, secure) = (args.disk, args.secure);
    let op = Op::Discard { secure };
    let info = task.live(disk, op)?;
    match info.discard {
        Some(offer) if offer.secure || !secure => {}
        _ => return Err(JobError::Unsupported { disk, op }),
    }
    let range = Range::of(&info, args.at.0, args.size)?;
    let request = Request::discard(range.sector, range.sectors, secure);
    alone(task, disk, request).await?;
    let summary = format!(
        "{op} of {} at {} of {disk}",
        Bytes(range.bytes()),
        args.at.0
    );
    Ok(Outcome::new(summary)
        .with("at", args.at.0)
        .with("size", range.bytes())
        .with("secure", secure))
}
