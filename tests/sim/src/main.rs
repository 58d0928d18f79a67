//! `cargo run --release -p firn-sim`: the simulator's command line.

use clap::Parser;
use firn_sim::campaign::Campaign;
use firn_sim::memory::SimAlloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

/// Freezes and restores simulated machines whose power fails.
#[derive(Parser)]
struct Args {
    /// Cycles of freeze and restore.
    #[arg(long, default_value_t = 10_000)]
    cycles: u64,
    /// Seed of the first life.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Disks only say that they flush: something must go wrong.
    #[arg(long)]
    lying: bool,
    /// Lives at a time; as many as there are CPUs, if not given.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        cycles: args.cycles,
        seed: args.seed,
        lying: args.lying,
        threads: args.threads.unwrap_or(cpus),
    };
    let report = campaign.run(|_| {});
    println!(
        "{} cycles, {:?}, {:?}",
        report.cycles, report.took, report.tally
    );
    let Some(failing) = report.failing else {
        return ExitCode::SUCCESS;
    };
    println!("seed {}: {}", failing.seed, failing.wrong);
    for cycle in &failing.script.cycles {
        println!("  {cycle}");
    }
    println!("trace:\n{}", failing.trace.join("\n"));
    ExitCode::FAILURE
}
