//! A range of a disk, one request after the other, many at a time.

use crate::error::JobError;
use crate::io::Channel;
use crate::machine::Machine;
use crate::task::{Progress, Range, Task, ended};
use firn_block::{Buffer, Op, Request, SECTOR};

/// Reads or writes `range` in requests of `block` bytes, the last of which may
/// be shorter, as many at a time as the channel holds.
///
/// `touch` gets the first sector and the length of each request: before a write
/// to fill the buffer, after a read to look at it.
///
/// # Errors
/// The first error. Nothing is submitted after it, and everything in flight has
/// ended when this returns, except when the disk is stuck.
pub(crate) async fn stream<M: Machine>(
    task: &Task<M>,
    channel: &mut Channel<M>,
    mut progress: Progress,
    (op, range, block): (Op, Range, usize),
    mut touch: impl FnMut(u64, usize, &Buffer) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let end = range.sector + range.sectors;
    let mut next = range.sector;
    let mut outcome = Ok(());
    loop {
        while outcome.is_ok() && next < end {
            let bytes = (block as u64).min((end - next) * SECTOR) as usize;
            match submit(task, channel, (op, next, bytes), &mut touch) {
                Ok(true) => next += bytes as u64 / SECTOR,
                Ok(false) => break,
                Err(error) => outcome = Err(error),
            }
        }
        if channel.outstanding() == 0 {
            return outcome;
        }
        let now = task.machine.now();
        let completion = match task.wait(channel, &mut progress, now).await {
            Ok(completion) => completion,
            // What went wrong first is the reason.
            Err(stuck) => return outcome.and(Err(stuck)),
        };
        outcome = outcome.and(ended(channel.disk(), &completion));
        if outcome.is_ok() {
            let bytes = completion.request.bytes();
            task.add_bytes(bytes);
            if let (Op::Read, Some(buffer)) = (op, &completion.request.buffer) {
                outcome = touch(completion.request.sector, bytes as usize, buffer);
            }
        }
        channel.recycle(completion);
    }
}

/// Submits one request, if there is room for it.
fn submit<M: Machine>(
    task: &Task<M>,
    channel: &mut Channel<M>,
    (op, sector, bytes): (Op, u64, usize),
    touch: &mut impl FnMut(u64, usize, &Buffer) -> Result<(), JobError>,
) -> Result<bool, JobError> {
    let Some(buffer) = channel.take_buffer() else {
        return Ok(false);
    };
    if op == Op::Write
        && let Err(error) = touch(sector, bytes, &buffer)
    {
        channel.put_buffer(buffer);
        return Err(error);
    }
    task.submit(channel, Request::data(op, sector, buffer, bytes))
}
