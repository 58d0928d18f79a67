//! `cargo xtask test`: the ladder of tests, counted by rung.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use duct::{Expression, cmd};

use crate::cmd::build;
use crate::{elf, workspace};

/// Runs every test that needs neither KVM nor a real Xen host.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the lab: no downloads, no emulator.
    #[arg(long)]
    no_lab: bool,
}

/// What a rung of the ladder came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

type Rung = (&'static str, fn() -> Result<Count>);

const RUNGS: &[Rung] = &[
    ("crates on the host", host),
    ("drivers against peers", peers),
    ("the simulator", simulator),
    ("the linked ELF", linked),
    (LAB, lab),
    (MEDIA, media),
    // After the lab, whose packages bring the headers to a fresh machine.
    ("the ABI against C", abi),
];

const LAB: &str = "boots in the lab";
const MEDIA: &str = "boots of boot media";

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    let mut total = Count::default();
    for (name, rung) in RUNGS {
        if args.no_lab && [LAB, MEDIA].contains(name) {
            rows.push(format!("{name:<24}left out (--no-lab)"));
            continue;
        }
        eprintln!("xtask: {name}");
        let start = Instant::now();
        // A rung that cannot even run is one failure; the others still count.
        let count = rung().unwrap_or_else(|error| {
            eprintln!("error: {name}: {error:#}");
            Count {
                passed: 0,
                failed: 1,
            }
        });
        total.add(count);
        rows.push(row(name, count, start.elapsed()));
    }
    println!("\n{}", rows.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    Ok(())
}

fn row(name: &str, count: Count, time: Duration) -> String {
    let Count { passed, failed } = count;
    format!(
        "{name:<24}{passed:>6} passed {failed:>4} failed {:>8.1} s",
        time.as_secs_f64()
    )
}

fn cargo_test(args: &[&str]) -> Result<Count> {
    let mut words = vec!["test", "--no-fail-fast"];
    words.extend(args);
    count_tests(cmd(workspace::cargo(), words))
}

/// Everything that runs as an ordinary program.
fn host() -> Result<Count> {
    let without = [
        "firn-boot",
        "firn-boot-tests",
        "firn-media",
        "firn-peers",
        "firn-sim",
        "firn-abi-tests",
    ];
    let mut args = vec!["--workspace"];
    for package in &without {
        args.extend(["--exclude", package]);
    }
    let mut count = cargo_test(&args)?;
    let libraries = ["--package=firn-boot-tests", "--package=firn-media", "--lib"];
    count.add(cargo_test(&libraries)?);
    Ok(count)
}

/// The crate of the peers holds the tests that put a driver at their end.
fn peers() -> Result<Count> {
    cargo_test(&["--package=firn-peers"])
}

/// Whole guests against disks that lose what was not flushed.
fn simulator() -> Result<Count> {
    cargo_test(&["--package=firn-sim"])
}

fn linked() -> Result<Count> {
    let files = build::build()?;
    let (mut count, checks) = (
        Count::default(),
        elf::checks(&files.stripped, &files.debug)?,
    );
    for (name, result) in checks {
        match result {
            Ok(()) => count.passed += 1,
            Err(error) => {
                println!("{name}: {error:#}");
                count.failed += 1;
            }
        }
    }
    Ok(count)
}

/// Tests share one lab per program, so each program runs after the other.
fn lab() -> Result<Count> {
    cargo_test(&["--package=firn-boot-tests", "--test=*"])
}

/// The disk of `cargo xtask image build` under two firmwares, in each format.
fn media() -> Result<Count> {
    cargo_test(&["--package=firn-media", "--test=*"])
}

/// Our structures and numbers against Xen's headers.
fn abi() -> Result<Count> {
    cargo_test(&["--package=firn-abi-tests"])
}

/// Runs `cargo test`, shows its output, and adds up its result lines.
fn count_tests(command: Expression) -> Result<Count> {
    let reader = command
        .dir(workspace::root())
        .stdin_null()
        .unchecked()
        .reader()
        .context("cannot start cargo")?;
    let mut count = Count::default();
    for line in BufReader::new(&reader).lines() {
        let line = line?;
        println!("{line}");
        if let Some(one) = result_line(&line) {
            count.add(one);
        }
    }
    let ended = reader
        .try_wait()?
        .is_some_and(|output| output.status.success());
    if !ended && count.failed == 0 {
        // It did not compile, or a test program died without a result.
        count.failed = 1;
    }
    Ok(count)
}

/// `test result: ok. 3 passed; 0 failed; ...`
fn result_line(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Count {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let expected = Count {
            passed: 3,
            failed: 2,
        };
        assert_eq!(result_line(line), Some(expected));
        assert_eq!(result_line("test x ... ok"), None);
        assert_eq!(result_line("test result: ok"), None);
    }

    #[test]
    fn a_command_that_dies_counts_as_failed() {
        let count = |script: &str| count_tests(cmd!("sh", "-c", script)).unwrap();
        let line = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
        assert_eq!(
            count(line),
            Count {
                passed: 3,
                failed: 0
            }
        );
        assert_eq!(
            count(&format!("{line}; exit 101")),
            Count {
                passed: 3,
                failed: 1
            }
        );
    }
}
