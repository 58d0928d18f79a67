//! `cargo xtask soak`: the long form of the lab's campaigns.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;
use firn_boot_tests::campaign::{self, Kind, Plan, Score};

use crate::cmd;

/// Saves, migrates, freezes and destroys guests again and again, and counts
/// from outside: not one acknowledged record lost or doubled, no image resumed
/// twice, none lost before its use, nothing for dom0 to complain about.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these campaigns (repeatable).
    #[arg(long, value_enum)]
    only: Vec<Which>,
    /// `xl save` and `xl restore` so many times.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    saves: u32,
    /// `xl migrate` so many times.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    migrations: u32,
    /// Freeze and restore so many times.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    freezes: u32,
    /// `xl destroy` so many times.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    destroys: u32,
    /// Start of the random numbers; by the clock if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Minutes that all of it may take; what is under way is finished.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// The outcome as one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Save,
    Migrate,
    Freeze,
    Destroy,
}

impl Args {
    fn count(&self, kind: Kind) -> u32 {
        let (which, count) = match kind {
            Kind::Save => (Which::Save, self.saves),
            Kind::Migrate => (Which::Migrate, self.migrations),
            Kind::Freeze => (Which::Freeze, self.freezes),
            Kind::Destroy => (Which::Destroy, self.destroys),
        };
        let wanted = self.only.is_empty() || self.only.contains(&which);
        if wanted { count } else { 0 }
    }

    fn seed(&self) -> u64 {
        let by_clock = || {
            let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
            since.map_or(1, |time| time.as_secs())
        };
        self.seed.unwrap_or_else(by_clock)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    cmd::build::build()?;
    let seed = args.seed();
    let until = args
        .minutes
        .map(|m| Instant::now() + Duration::from_secs(60 * m));
    eprintln!("soak: seed {seed}");
    let mut failed = Vec::new();
    let mut scores = Vec::new();
    for kind in Kind::ALL {
        let count = args.count(kind);
        if count == 0 {
            continue;
        }
        let name = kind.name();
        let start = Instant::now();
        let report = |text: &str| {
            eprintln!(
                "soak: {name}: {text}, after {:.0} s",
                start.elapsed().as_secs_f64()
            )
        };
        let plan = Plan {
            count,
            until,
            seed,
            report: &report,
        };
        match campaign::run(kind, &plan) {
            Ok(score) => scores.push((score, start.elapsed())),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed.push(name);
            }
        }
    }
    for (score, time) in &scores {
        match args.json {
            true => println!("{}", json(score, *time, seed)),
            false => println!("{}", line(score, *time)),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("{} failed; try again with --seed {seed}", failed.join(", ")),
    }
}

fn line(score: &Score, time: Duration) -> String {
    let Score {
        kind,
        times,
        tally,
        restored,
        cold,
    } = score;
    format!(
        "{:<8} {times:>4} times in {:>5.0} s: {} records acknowledged, {} lost, {} doubled; \
         {restored} boots restored an image, {cold} had none",
        kind.name(),
        time.as_secs_f64(),
        tally.acknowledged,
        tally.lost,
        tally.doubled
    )
}

fn json(score: &Score, time: Duration, seed: u64) -> serde_json::Value {
    let Score {
        kind,
        times,
        tally,
        restored,
        cold,
    } = score;
    serde_json::json!({
        "campaign": kind.name(),
        "seed": seed,
        "times": times,
        "seconds": time.as_secs_f64(),
        "acknowledged": tally.acknowledged,
        "present": tally.present,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "restored": restored,
        "cold": cold,
    })
}
