//! `fill`, `fill-check`, `fill-free`: memory that an image must hold.

use crate::error::JobError;
use crate::fill::{Filled, PIECE};
use crate::lang::Fill;
use crate::machine::Machine;
use crate::result::Outcome;
use crate::task::{Progress, Task, not};
use crate::units::Bytes;
use alloc::format;
use firn_task::yield_now;

pub(super) async fn fill<M: Machine>(task: &Task<M>, args: &Fill) -> Result<Outcome, JobError> {
    let bytes = args.size.0;
    if bytes == 0 || !bytes.is_multiple_of(PIECE) {
        return Err(not("size", &format!("a multiple of {}", Bytes(PIECE))));
    }
    let no_memory = || JobError::NoMemory {
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
    };
    let filled = Filled::room(bytes, args.seed, args.data);
    let mut filled = filled.ok_or_else(no_memory)?;
    let mut progress = Progress::new(task, "filling", bytes);
    for _ in 0..bytes / PIECE {
        filled.add().ok_or_else(no_memory)?;
        task.add_bytes(PIECE);
        progress.tick(task, task.machine.now());
        yield_now().await;
    }
    task.shelf.fills.borrow_mut().push(filled);
    let summary = format!("{} of job memory filled", Bytes(bytes));
    Ok(Outcome::new(summary).with("seed", args.seed))
}

pub(super) async fn check<M: Machine>(task: &Task<M>) -> Result<Outcome, JobError> {
    let mut progress = Progress::new(task, "checking", 0);
    for fill in 0.. {
        for piece in 0.. {
            // Borrowed anew each time: other jobs run in between.
            let found = {
                let fills = task.shelf.fills.borrow();
                let filled = fills.get(fill).filter(|filled| piece < filled.count());
                filled.map(|filled| filled.check(piece))
            };
            match found {
                Some(outcome) => outcome.map_err(|at| JobError::Memory { at })?,
                None if piece == 0 => return Ok(checked(task)),
                None => break,
            }
            task.add_bytes(PIECE);
            progress.tick(task, task.machine.now());
            yield_now().await;
        }
    }
    Ok(checked(task))
}

fn checked<M: Machine>(task: &Task<M>) -> Outcome {
    let bytes = Bytes(task.bytes());
    Outcome::new(format!("{bytes} of job memory hold what was put there"))
}

pub(super) fn free<M: Machine>(task: &Task<M>) -> Outcome {
    let fills = task.shelf.fills.take();
    let pieces: usize = fills.iter().map(Filled::count).sum();
    Outcome::new(format!("{} freed", Bytes(pieces as u64 * PIECE)))
}
