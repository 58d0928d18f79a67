//! `cargo run --release -p firn-sim`: the simulator's command line.

use clap::{Parser, Subcommand};
use firn_sim::campaign::Campaign;
use firn_sim::memory::SimAlloc;
use firn_sim::model::{Bounds, Broken, Protocol};
use firn_sim::side::Hypervisor;
use firn_sim::{states, table, vmbus};
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
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Injects every fault at every step, and prints how the machine stands.
    Faults,
    /// Boots from every state that a power cut may leave of one recorded life.
    States {
        /// How many lives, each from the next seed.
        #[arg(long, default_value_t = 4)]
        lives: u64,
    },
    /// Visits every state of the protocol's model, and leaves out its rules one
    /// at a time.
    Model {
        /// Power cuts.
        #[arg(long, default_value_t = 3)]
        cuts: u8,
        /// I/O errors.
        #[arg(long, default_value_t = 2)]
        faults: u8,
        /// Freezes.
        #[arg(long, default_value_t = 2)]
        freezes: u8,
        /// Records written.
        #[arg(long, default_value_t = 2)]
        writes: u8,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let good = match args.command {
        Some(Command::Faults) => faults(),
        Some(Command::States { lives }) => states(args.seed, lives),
        Some(Command::Model {
            cuts,
            faults,
            freezes,
            writes,
        }) => model(Bounds {
            cuts,
            faults,
            freezes,
            writes,
        }),
        None => campaign(&args),
    };
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn faults() -> bool {
    let mut good = true;
    for on in Hypervisor::ALL {
        println!("on {on}; {}", held(on));
        println!(
            "{:<8} {:<17} {:<15} {:<17} {:>7} {:>7} {:>5} {:<8} {:<9}",
            "phase", "step", "fault", "stands", "before", "after", "left", "headers", "next boot"
        );
        good &= faults_on(on);
        println!();
    }
    good & bus_faults()
}

const fn held(on: Hypervisor) -> &'static str {
    match on {
        Hypervisor::Xen => "grants+ports: before, after, and with every disk disconnected",
        Hypervisor::HyperV => {
            "shared pages+channels: before, after, and with every disk disconnected"
        }
    }
}

fn faults_on(on: Hypervisor) -> bool {
    let points = table::points(on);
    let mut bad = 0;
    for point in &points {
        let row = table::run(*point);
        let (phase, fault) = (row.point.phase, row.point.fault);
        let headers = if row.same_headers { "same" } else { "written" };
        let next = if row.next_restores {
            "restores"
        } else {
            "cold"
        };
        println!(
            "{phase:<8} {:<17} {:<15} {:<17} {:>7} {:>7} {:>5} {headers:<8} {next:<9} {}",
            fault.step,
            fault.kind.name(on),
            row.stands,
            row.before,
            row.after,
            row.left,
            row.wrong.as_deref().unwrap_or("")
        );
        bad += usize::from(row.wrong.is_some());
    }
    println!("{} fault points, {bad} wrong", points.len());
    bad == 0
}

fn bus_faults() -> bool {
    let points = vmbus::points();
    let pages = vmbus::pages_without_fault();
    let mut bad = 0;
    println!("under Hyper-V's disks; {pages} pages are in use when nothing goes wrong");
    println!(
        "{:<10} {:<39} {:<19} {:>5} {:>6}",
        "step", "fault", "stands", "pages", "shared"
    );
    for point in &points {
        let row = vmbus::run(*point, pages);
        println!(
            "{:<10} {:<39} {:<19} {:>5} {:>6} {}",
            point.step,
            point.fault,
            point.takes,
            row.pages,
            row.shared,
            row.wrong.as_deref().unwrap_or("")
        );
        bad += usize::from(row.wrong.is_some());
    }
    println!("{} fault points, {bad} wrong", points.len());
    bad == 0
}

fn states(seed: u64, lives: u64) -> bool {
    let (mut states, mut bad) = (0, 0);
    for seed in seed..seed + lives {
        let found = states::explore(seed);
        let (points, restored) = (found.points, found.restored);
        println!(
            "seed {seed}: {points} points, {} states, {restored} restored, {} wrong",
            found.states,
            found.wrong.len()
        );
        found.wrong.iter().take(5).for_each(|w| println!("  {w}"));
        states += found.states;
        bad += found.wrong.len();
    }
    println!("{states} states, {bad} wrong");
    bad == 0
}

fn model(bounds: Bounds) -> bool {
    let mut good = true;
    for broken in Broken::ALL {
        let found = Protocol { bounds, broken }.explore(cpus());
        let name = format!("{broken:?}");
        let (states, seconds) = (found.states, found.took.as_secs_f64());
        let offence = match found.offences.first() {
            Some((offence, trace)) => format!("{offence}: fails after {} actions", trace.len()),
            None if found.complete => "every property holds in every state".to_owned(),
            None => "not all states were visited".to_owned(),
        };
        println!("{name:<20} {states:>9} states {seconds:>7.1} s  {offence}");
        let expected = broken == Broken::Nothing;
        good &= expected == found.offences.is_empty();
        if expected {
            for (offence, trace) in &found.offences {
                println!("  {offence}: {}", trace.join(", "));
            }
        }
    }
    good
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn campaign(args: &Args) -> bool {
    let campaign = Campaign {
        cycles: args.cycles,
        seed: args.seed,
        lying: args.lying,
        threads: args.threads.unwrap_or(cpus()),
    };
    let report = campaign.run(|_| {});
    println!(
        "{} cycles, {:?}, {:?}",
        report.cycles, report.took, report.tally
    );
    let Some(failing) = report.failing else {
        return true;
    };
    println!("seed {}: {}", failing.seed, failing.wrong);
    for cycle in &failing.script.cycles {
        println!("  {cycle}");
    }
    println!("trace:\n{}", failing.trace.join("\n"));
    false
}
