//! The jobs, one function each.

mod bench;
mod copy;
mod fill;
mod info;
mod ledger;
mod load;
mod partitions;
mod power;
mod verify;
mod wait;

use crate::error::JobError;
use crate::lang::Job;
use crate::machine::{Machine, Power, Report};
use crate::power::PowerAsk;
use crate::result::Outcome;
use crate::task::Task;

/// Runs a job to its end.
pub(crate) async fn run<M: Machine>(task: &Task<M>, job: Job) -> Result<Outcome, JobError> {
    match job {
        Job::Help(args) => info::help(task, &args),
        Job::Disks(_) => Ok(info::disks(task)),
        Job::Partitions(args) => partitions::partitions(task, &args).await,
        Job::Verify(args) => verify::verify(task, &args).await,
        Job::Bench(args) => bench::bench(task, &args).await,
        Job::Load(args) => load::load(task, &args).await,
        Job::Read(args) => copy::read(task, &args).await,
        Job::Write(args) => copy::write(task, &args).await,
        Job::Flush(args) => copy::flush_disk(task, &args).await,
        Job::Discard(args) => copy::discard(task, &args).await,
        Job::SetMode(args) => info::set_mode(task, &args),
        Job::Stats(args) => info::stats(task, &args),
        Job::Grants(_) => Ok(info::report(task, Report::Grants)),
        Job::Store(args) => info::store(task, &args).await,
        Job::Trace(_) => Ok(info::report(task, Report::Trace)),
        Job::Mem(_) => Ok(info::report(task, Report::Memory)),
        Job::Pause(args) => Ok(wait::sleep(task, &args).await),
        Job::WaitDisk(args) => wait::wait_disk(task, &args).await,
        Job::Ledger(args) => ledger::ledger(task, &args).await,
        Job::Fill(args) => fill::fill(task, &args).await,
        Job::FillCheck(_) => fill::check(task).await,
        Job::FillFree(_) => Ok(fill::free(task)),
        Job::Stop(args) => wait::stop(task, &args).await,
        Job::Wait(args) => wait::wait(task, args.timeout).await,
        Job::Freeze(args) => power::freeze(task, &args).await,
        Job::Suspend(_) => power::ask(task, PowerAsk::Suspend).await,
        Job::Cold(_) => power::ask(task, PowerAsk::Cold).await,
        Job::Vmbus(args) => power::cycle_bus(task, &args).await,
        Job::MemHash(_) => Ok(power::memory_hash(task)),
        Job::Image(args) => power::image(task, &args).await,
        Job::Poweroff(_) => Ok(Outcome::new("switching off".into())),
        Job::Reboot(_) => Ok(Outcome::new("switching off and on again".into())),
        Job::Crash(_) => Ok(Outcome::new("crashing".into())),
    }
}

/// How a job ends the machine, once its result is printed.
pub(crate) fn power(job: &Job) -> Option<Power> {
    match job {
        Job::Poweroff(_) => Some(Power::Off),
        Job::Reboot(_) => Some(Power::Reboot),
        Job::Crash(_) => Some(Power::Crash),
        _ => None,
    }
}

#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod tests;
