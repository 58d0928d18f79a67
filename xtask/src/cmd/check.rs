//! `cargo xtask check`: everything that a reviewer should not have to look for.

use anyhow::{Context, Result, bail};
use duct::{Expression, cmd};

use crate::cmd::build;
use crate::rules::{rooms, text};
use crate::{elf, workspace};

/// Checks format, lints, docs, dependency directions, unsafe rooms, file
/// sizes, and the linked ELF.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Go on after the first failure and list all.
    #[arg(long)]
    keep_going: bool,
}

/// A check: its name, and what tells its result in a few words.
type Check = (&'static str, fn() -> Result<String>);

const CHECKS: &[Check] = &[
    ("unsafe rooms", text::unsafe_rooms),
    ("file sizes", text::file_sizes),
    ("file docs", text::docs_first),
    ("dependency directions", rooms::check),
    ("format", format),
    ("clippy", clippy),
    ("clippy, bare machine", clippy_bare),
    ("docs", docs),
    ("ELF", linked),
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        match check() {
            Ok(words) => println!("ok   {name}: {words}"),
            Err(error) => {
                println!("FAIL {name}: {error:#}");
                failed.push(*name);
                if !args.keep_going {
                    break;
                }
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs a cargo command whose own output tells what is wrong.
fn cargo(command: Expression) -> Result<String> {
    let status = command
        .dir(workspace::root())
        .stdout_to_stderr()
        .unchecked()
        .run()
        .context("cannot start cargo")?
        .status;
    if !status.success() {
        bail!("see above");
    }
    Ok("clean".into())
}

fn format() -> Result<String> {
    cargo(cmd!(workspace::cargo(), "fmt", "--all", "--check"))
}

fn clippy() -> Result<String> {
    cargo(cmd!(
        workspace::cargo(),
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings"
    ))
}

/// The code behind `cfg(firn_bare)`, with the flags of the real build.
fn clippy_bare() -> Result<String> {
    cargo(build::bare("clippy", &["--quiet", "--", "-Dwarnings"]))
}

fn docs() -> Result<String> {
    let doc = cmd!(
        workspace::cargo(),
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps"
    );
    cargo(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
}

fn linked() -> Result<String> {
    let files = build::build()?;
    let report = elf::check(&files.stripped, &files.debug)?;
    Ok(report.to_string())
}
