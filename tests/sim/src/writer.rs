//! A job that appends self-describing records to a disk and acknowledges them
//! once they are durable; and how the host checks them.

use firn_block::{Completion, DiskId, Op, Request, SECTOR};
use firn_jobs::Machine;
use firn_jobs::io::Channel;
use firn_jobs::ledger_format::{Acks, Audit, Layout};
use firn_peers::Disk;
use std::time::Duration;

/// Records on the disk: the newest so many.
pub const ROOM: u64 = 32;
/// The number of the real ledger.
pub const LEDGER: u64 = 7;
/// Sectors of its disk, one record each.
pub const LEDGER_SECTORS: u64 = 1024;
/// Records written before a flush.
const BATCH: u64 = 3;
const WORDS: usize = SECTOR as usize / 8;
const MAGIC: u64 = 0x6664_726f_6365_7266;

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The bytes of record `seq`.
fn record(seq: u64) -> [u8; SECTOR as usize] {
    let mut bytes = [0; SECTOR as usize];
    for at in 0..WORDS {
        let word = match at {
            0 => MAGIC,
            1 => seq,
            _ => mix(seq.wrapping_mul(64) + at as u64),
        };
        bytes[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Which record a sector holds; `None` if it is no whole one.
fn parse(bytes: &[u8]) -> Option<u64> {
    let seq = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == record(seq)).then_some(seq)
}

const fn sector(seq: u64) -> u64 {
    seq % ROOM
}

/// Looks for acknowledged records on a disk, as the host does.
///
/// # Errors
/// Which one is not there.
pub fn check(disk: &Disk, acked: impl IntoIterator<Item = u64>) -> Result<(), String> {
    let bytes = disk.content(0, ROOM);
    for seq in acked {
        let at = (sector(seq) * SECTOR) as usize;
        let there = parse(&bytes[at..at + SECTOR as usize]);
        // A newer one in its place is fine: there is room for so many.
        if there.is_none_or(|there| there < seq) {
            return Err(format!(
                "record {seq} was acknowledged, and in its place is {there:?}"
            ));
        }
    }
    Ok(())
}

/// Looks through the real ledger on a disk, as the host does.
///
/// # Errors
/// What is lost or doubled.
pub fn audit(disk: &Disk, acks: &Acks) -> Result<(), String> {
    let Some(layout) = Layout::new(LEDGER, 0, LEDGER_SECTORS * SECTOR, SECTOR) else {
        return Err("a ledger of an impossible layout".into());
    };
    let bytes = disk.content(0, LEDGER_SECTORS);
    let mut audit = Audit::new(layout);
    for (slot, record) in (0..).zip(bytes.chunks_exact(SECTOR as usize)) {
        audit.look(slot, record);
    }
    let tally = audit.tally(acks);
    match tally.is_whole() {
        true => Ok(()),
        false => Err(format!("{tally:?}")),
    }
}

/// What the job remembers: in job memory, so it is part of every image.
struct Memory {
    next: u64,
    /// Of the newest records, by place: what must be there.
    index: Vec<u64>,
}

/// Runs until its disk is gone for good. `ack` is told of durable records,
/// `wrong` of what differs between disk and memory.
pub async fn write<M: Machine>(
    machine: M,
    disk: DiskId,
    ack: impl Fn(u64),
    wrong: impl Fn(String),
) {
    let Ok(mut channel) = Channel::open(&machine, disk, BATCH as usize, SECTOR as usize) else {
        return wrong("the job has no channel".into());
    };
    let mut memory = recover(&machine, &mut channel).await;
    loop {
        let first = memory.next;
        let batch: Vec<u64> = (first..first + BATCH).collect();
        for seq in &batch {
            memory.index[sector(*seq) as usize] = *seq;
        }
        put(&machine, &mut channel, batch).await;
        flush(&machine, &mut channel).await;
        memory.next = first + BATCH;
        for seq in first..memory.next {
            ack(seq);
        }
        let old = first.saturating_sub(1 + first % 7).max(1);
        let there = get(&machine, &mut channel, old).await;
        let expected = memory.index[sector(old) as usize];
        if there.unwrap_or(0) != expected {
            wrong(format!(
                "the memory knows of record {expected}, the disk holds {there:?}"
            ));
        }
        pause(&machine).await;
    }
}

async fn pause<M: Machine>(machine: &M) {
    let until = machine.now() + Duration::from_micros(200);
    firn_task::sleep_until(machine.clone(), until).await;
}

/// What an empty memory learns from the disk.
async fn recover<M: Machine>(machine: &M, channel: &mut Channel<M>) -> Memory {
    let mut index = Vec::new();
    for place in 0..ROOM {
        index.push(get(machine, channel, place).await.unwrap_or(0));
    }
    let next = index.iter().max().map_or(1, |newest| newest + 1);
    Memory { next, index }
}

/// One request until it succeeds; a disk that refuses or fails may be better
/// later.
async fn run<M: Machine>(
    machine: &M,
    channel: &mut Channel<M>,
    make: impl Fn(&mut Channel<M>) -> Option<Request>,
) -> Completion {
    loop {
        if let Some(request) = make(channel) {
            match channel.submit(request) {
                Ok(()) => {
                    let limit = machine.now() + Duration::from_secs(3600);
                    if let Ok(completion) = channel.next(limit).await {
                        if completion.result.is_ok() {
                            return completion;
                        }
                        channel.recycle(completion);
                    }
                }
                Err(refused) => {
                    if let Some(buffer) = refused.request.buffer {
                        channel.put_buffer(buffer);
                    }
                }
            }
        }
        pause(machine).await;
    }
}

/// Writes several records at once, those that fail again and again.
async fn put<M: Machine>(machine: &M, channel: &mut Channel<M>, mut left: Vec<u64>) {
    while !left.is_empty() {
        for seq in &left {
            let Some(buffer) = channel.take_buffer() else {
                break;
            };
            buffer.region().copy_in(0, &record(*seq));
            let request = Request::data(Op::Write, sector(*seq), buffer, SECTOR as usize);
            if let Err(refused) = channel.submit(request.with_cookie(*seq)) {
                refused
                    .request
                    .buffer
                    .into_iter()
                    .for_each(|buffer| channel.put_buffer(buffer));
            }
        }
        let limit = machine.now() + Duration::from_secs(3600);
        while channel.outstanding() > 0 {
            let Ok(completion) = channel.next(limit).await else {
                return;
            };
            if completion.result.is_ok() {
                left.retain(|seq| *seq != completion.request.cookie);
            }
            channel.recycle(completion);
        }
        if !left.is_empty() {
            pause(machine).await;
        }
    }
}

async fn flush<M: Machine>(machine: &M, channel: &mut Channel<M>) {
    run(machine, channel, |_| Some(Request::flush())).await;
}

async fn get<M: Machine>(machine: &M, channel: &mut Channel<M>, seq: u64) -> Option<u64> {
    let done = run(machine, channel, |channel| {
        let buffer = channel.take_buffer()?;
        Some(Request::data(
            Op::Read,
            sector(seq),
            buffer,
            SECTOR as usize,
        ))
    });
    let done = done.await;
    let mut bytes = [0; SECTOR as usize];
    if let Some(buffer) = &done.request.buffer {
        buffer.region().copy_out(0, &mut bytes);
    }
    channel.recycle(done);
    parse(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_old_record_is_noticed() {
        let disk = Disk::new(ROOM);
        for seq in 1..=ROOM + 5 {
            disk.set_content(sector(seq), &record(seq));
        }
        assert_eq!(check(&disk, 1..=ROOM + 5), Ok(()));
        disk.set_content(sector(ROOM + 5), &record(5));
        assert!(check(&disk, [ROOM + 5]).is_err());
        disk.set_content(sector(ROOM + 5), &[0; 512]);
        assert!(check(&disk, [ROOM + 5]).is_err());
        assert_eq!(check(&disk, 1..5), Ok(()));
    }
}
