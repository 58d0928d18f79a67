//! `partitions`: the partition table, which also names the disk.

use crate::error::JobError;
use crate::io::Channel;
use crate::jobs::copy::read_range;
use crate::lang::{Extent, Partitions};
use crate::machine::Machine;
use crate::result::Outcome;
use crate::task::{Range, Task};
use crate::units::Bytes;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use firn_block::identity::{Partition, PartitionTable};
use firn_block::{Op, SECTOR};
use serde_json::{Value, json};

pub(super) async fn partitions<M: Machine>(
    task: &Task<M>,
    args: &Partitions,
) -> Result<Outcome, JobError> {
    let disk = args.disk;
    let info = task.live(disk, Op::Read)?;
    let wanted = (PartitionTable::wanted(info.logical_block) as u64).min(info.bytes());
    let range = Range::of(&info, 0, Extent::Bytes(wanted))?;
    let mut channel = Channel::open(&task.machine, disk, 1, range.bytes() as usize)?;
    let start = read_range(task, &mut channel, range).await?;
    let table = PartitionTable::parse(&start, info.logical_block, info.capacity)
        .map_err(|error| JobError::PartitionTable { disk, error })?;
    let Some(table) = table else {
        return Ok(Outcome::new(format!("{disk} has no partition table")));
    };
    for part in &table.partitions {
        task.machine.print(format_args!(
            "  {:>3}  {} at {}  {}  {}  {}\n",
            part.number,
            Bytes(part.sectors * SECTOR),
            Bytes(part.first * SECTOR),
            part.kind,
            part.id,
            part.name
        ));
    }
    let list: Vec<Value> = table.partitions.iter().map(as_json).collect();
    let summary = format!("{disk} is {} with {} partitions", table.disk, list.len());
    Ok(Outcome::new(summary)
        .with("guid", table.disk.to_string())
        .with("partitions", list))
}

fn as_json(part: &Partition) -> Value {
    json!({
        "number": part.number,
        "type": part.kind.to_string(),
        "guid": part.id.to_string(),
        "name": part.name,
        "at": part.first * SECTOR,
        "size": part.sectors * SECTOR,
    })
}
