//! `sleep`, `wait-disk`, and the jobs in the background: `wait`, `stop`.

use crate::error::JobError;
use crate::lang::{Pause, Stop, WaitDisk};
use crate::machine::Machine;
use crate::result::Outcome;
use crate::task::Task;
use alloc::format;
use core::time::Duration;
use firn_block::gate::Lifecycle;
use firn_task::{sleep_until, timeout};

/// How often `wait-disk` looks. A person plugs disks, so this is soon enough.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn sleep<M: Machine>(task: &Task<M>, args: &Pause) -> Outcome {
    let until = task.machine.now() + args.time;
    sleep_until(task.machine.clone(), until).await;
    Outcome::new("slept".into())
}

pub(super) async fn wait_disk<M: Machine>(
    task: &Task<M>,
    args: &WaitDisk,
) -> Result<Outcome, JobError> {
    let there = || {
        let report = task.report(args.disk);
        report.is_ok_and(|report| report.state == Lifecycle::Live)
    };
    let look = async {
        while there() == args.gone {
            let next = task.machine.now() + LOOK;
            sleep_until(task.machine.clone(), next).await;
        }
    };
    let state = if args.gone { "gone" } else { "live" };
    let waited = timeout(task.machine.clone(), args.timeout, look).await;
    waited.map_err(|_| JobError::TimedOut {
        what: format!("{} is not {state}", args.disk),
        place: format!("{}", args.disk),
        after: args.timeout,
    })?;
    Ok(Outcome::new(format!("{} is {state}", args.disk)))
}

/// Waits for the end of all jobs in the background.
pub(super) async fn wait<M: Machine>(
    task: &Task<M>,
    patience: Duration,
) -> Result<Outcome, JobError> {
    let count = task.shelf.count();
    let waited = timeout(task.machine.clone(), patience, task.shelf.quiet()).await;
    waited.map_err(|_| JobError::TimedOut {
        what: format!("{} jobs in the background go on", task.shelf.count()),
        place: "background".into(),
        after: patience,
    })?;
    Ok(Outcome::new(format!(
        "{count} jobs in the background ended"
    )))
}

/// Asks them to end, and waits until they have.
pub(super) async fn stop<M: Machine>(task: &Task<M>, args: &Stop) -> Result<Outcome, JobError> {
    task.shelf.stop_all();
    wait(task, args.timeout).await
}
