//! `cargo xtask soak`: the long form of the lab's campaigns.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use firn_boot_tests::Bench;
use firn_boot_tests::campaign::{self, Kind, Plan, Score};

use crate::cmd;

/// Saves, migrates, freezes and destroys guests again and again, and counts
/// from outside: not one acknowledged record lost or doubled, no image resumed
/// twice, none lost before its use, nothing for dom0 to complain about.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these campaigns (repeatable, or with commas).
    #[arg(long, value_enum, value_delimiter = ',')]
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
    /// Minutes that all of it may take. Each campaign has its share of what is
    /// left, and at least one time; what is under way is finished.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// The outcome as one line of JSON per campaign.
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

/// A lab whose driving machine is gone ends by itself; this is only the second
/// net.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

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

/// One campaign that was run.
struct Ran {
    score: Score,
    wanted: u32,
    time: Duration,
    /// The command that repeats what failed.
    failed: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = Kind::ALL.map(|kind| (kind, args.count(kind)));
    let wanted: Vec<_> = wanted.into_iter().filter(|(_, count)| *count > 0).collect();
    ensure!(!wanted.is_empty(), "nothing to do: every count is 0");
    cmd::build::build()?;
    Bench::live_for(LIFETIME);
    let seed = args.seed();
    let end = args
        .minutes
        .map(|m| Instant::now() + Duration::from_secs(60 * m));
    eprintln!("soak: seed {seed}");
    let mut all = Vec::new();
    for (number, (kind, count)) in wanted.iter().enumerate() {
        let campaigns_left = u32::try_from(wanted.len() - number)?;
        let until = end.map(|end| share(Instant::now(), end, campaigns_left));
        all.push(campaign(*kind, *count, seed, until));
    }
    if args.json {
        all.iter().for_each(|ran| println!("{}", json(ran, seed)));
    } else {
        println!("{}", head());
        all.iter().for_each(|ran| println!("{}", line(ran)));
    }
    let failed: Vec<_> = all.iter().filter_map(|ran| ran.failed.as_deref()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("the soak failed; to repeat it:\n  {}", failed.join("\n  ")),
    }
}

/// When a campaign has had its share of the time.
fn share(now: Instant, end: Instant, campaigns_left: u32) -> Instant {
    now + end.saturating_duration_since(now) / campaigns_left
}

fn campaign(kind: Kind, wanted: u32, seed: u64, until: Option<Instant>) -> Ran {
    let name = kind.name();
    let start = Instant::now();
    let report = |done: u32, text: &str| {
        let seconds = start.elapsed().as_secs();
        eprintln!("soak: {name} {done}/{wanted}, {seconds} s: {text}");
    };
    let plan = Plan {
        count: wanted,
        until,
        seed,
        report: &report,
    };
    eprintln!("soak: {name} begins");
    let mut score = Score::new(kind);
    let failed = campaign::run_into(&mut score, &plan).err().map(|error| {
        eprintln!("error: {error:#}");
        repeat(kind, &plan.life(score.times))
    });
    Ran {
        score,
        wanted,
        time: start.elapsed(),
        failed,
    }
}

/// The command that repeats a life.
fn repeat(kind: Kind, life: &Plan<'_>) -> String {
    let name = kind.name();
    let counts = match kind {
        Kind::Save => "saves",
        Kind::Migrate => "migrations",
        Kind::Freeze => "freezes",
        Kind::Destroy => "destroys",
    };
    let Plan { count, seed, .. } = life;
    format!("cargo xtask soak --only {name} --{counts} {count} --seed {seed}")
}

fn head() -> String {
    format!(
        "{:<8} {:>5} {:8} {:>12} {:>5} {:>8} {:>9} {:>5} {:>8}",
        "campaign", "times", "", "acknowledged", "lost", "doubled", "restored", "cold", "time"
    )
}

fn line(ran: &Ran) -> String {
    let Score {
        kind,
        times,
        tally,
        restored,
        cold,
    } = &ran.score;
    let mut line = format!(
        "{:<8} {times:>5} of {:<5} {:>12} {:>5} {:>8} {restored:>9} {cold:>5} {:>6} s",
        kind.name(),
        ran.wanted,
        tally.acknowledged,
        tally.lost,
        tally.doubled,
        ran.time.as_secs(),
    );
    if ran.failed.is_some() {
        line += "  FAILED in the life after that";
    }
    line
}

fn json(ran: &Ran, seed: u64) -> serde_json::Value {
    let Score {
        kind,
        times,
        tally,
        restored,
        cold,
    } = &ran.score;
    serde_json::json!({
        "campaign": kind.name(),
        "seed": seed,
        "ok": ran.failed.is_none(),
        "repeat": ran.failed,
        "times": times,
        "wanted": ran.wanted,
        "seconds": ran.time.as_secs_f64(),
        "acknowledged": tally.acknowledged,
        "present": tally.present,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "restored": restored,
        "cold": cold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Cli::parse_from(format!("soak {words}").split_whitespace()).args
    }

    #[test]
    fn only_what_is_named_is_run() {
        let counts = |words| Kind::ALL.map(|kind| args(words).count(kind));
        assert_eq!(counts(""), [50, 10, 50, 200]);
        assert_eq!(counts("--only save,freeze --saves 3"), [3, 0, 50, 0]);
        assert_eq!(counts("--only destroy --only migrate"), [0, 10, 0, 200]);
        let nothing = args("--only save --saves 0 --minutes 1");
        assert!(run(&nothing).unwrap_err().to_string().contains("nothing"));
    }

    #[test]
    fn the_time_is_shared() {
        let now = Instant::now();
        let at = |minutes: u64| now + Duration::from_secs(60 * minutes);
        assert_eq!(share(now, at(40), 4), at(10));
        // The one before took longer than its share.
        assert_eq!(share(at(25), at(40), 3), at(30));
        assert_eq!(share(at(41), at(40), 1), at(41));
    }

    #[test]
    fn a_failure_says_how_to_repeat_it() {
        let plan = Plan::quiet(60, 7);
        let life = plan.life(50);
        let command = repeat(Kind::Destroy, &life);
        let (_, words) = command.split_once("soak ").expect("a soak");
        let again = args(words);
        assert_eq!((again.seed(), again.count(Kind::Destroy)), (57, 10));
        assert_eq!(again.count(Kind::Save), 0);
        // The life of that plan is the same one.
        let first = Plan::quiet(again.destroys, again.seed()).life(0);
        assert_eq!((first.seed, first.count), (life.seed, life.count));
        for kind in Kind::ALL {
            let command = repeat(kind, &plan.life(0));
            let (_, words) = command.split_once("soak ").expect("a soak");
            assert_eq!(args(words).count(kind), 25, "{command}");
        }
    }

    #[test]
    fn the_table_has_a_number_under_each_head() {
        let mut score = Score::new(Kind::Migrate);
        (score.times, score.restored, score.cold) = (50, 4, 5);
        score.tally.acknowledged = 123;
        let ran = Ran {
            score,
            wanted: 60,
            time: Duration::from_secs(6),
            failed: Some("again".into()),
        };
        let text = line(&ran);
        let words: Vec<_> = text.split_whitespace().collect();
        let numbers = [
            "migrate", "50", "of", "60", "123", "0", "0", "4", "5", "6", "s",
        ];
        assert_eq!(words[..11], numbers);
        assert_eq!(text.find(" s "), Some(head().len() - 2), "{text}");
        assert!(text.ends_with("FAILED in the life after that"));
        let told = json(&ran, 9);
        assert_eq!(
            (&told["ok"], &told["repeat"]),
            (&false.into(), &"again".into())
        );
    }
}
