//! `cargo xtask mutants`: breaks one guard at a time; some test has to fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::mutants::{self, Mutant};
use crate::workspace;

/// Breaks one guard of the drivers at a time, in a copy, and runs the tests.
///
/// A mutant that no test notices is an error.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only mutants whose name or file contains this.
    filter: Option<String>,
}

/// The longest that the tests may take with a broken guard: some of them make
/// a test wait for ever.
const LIMIT_SECONDS: &str = "120";

/// What the tests said of a mutant.
enum Verdict {
    /// These tests failed.
    Killed(Vec<String>),
    /// The tests did not end.
    Hung,
    /// The broken code does not compile: the table is wrong.
    NotCompiled,
    /// All tests passed.
    Survived,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = |mutant: &&Mutant| {
        let filter = args.filter.as_deref().unwrap_or("");
        mutant.name.contains(filter) || mutant.file.contains(filter)
    };
    let mutants: Vec<_> = mutants::all().filter(wanted).collect();
    let tree = copy_tree()?;
    let packages: BTreeSet<_> = mutants.iter().map(|mutant| mutant.packages()).collect();
    for packages in packages {
        match test(&tree, packages)? {
            Verdict::Survived => {}
            Verdict::Killed(tests) => bail!("without any change, these fail: {}", few(&tests)),
            Verdict::Hung | Verdict::NotCompiled => {
                bail!("without any change, the tests do not run")
            }
        }
    }
    let mut bad = 0;
    for mutant in &mutants {
        let path = tree.join(mutant.file);
        let sound = fs::read_to_string(&path)?;
        fs::write(&path, sound.replacen(mutant.guard, mutant.broken, 1))?;
        let verdict = test(&tree, mutant.packages())?;
        fs::write(&path, sound)?;
        match verdict {
            Verdict::Killed(tests) => {
                println!("killed    {}\n          by {}", mutant.name, few(&tests))
            }
            Verdict::Hung => println!(
                "killed    {}\n          by a test that does not end",
                mutant.name
            ),
            Verdict::NotCompiled => {
                bad += 1;
                println!("no mutant {} does not compile", mutant.name);
            }
            Verdict::Survived => {
                bad += 1;
                println!("SURVIVED  {}", mutant.name);
            }
        }
    }
    println!("{} mutants, {bad} not killed", mutants.len());
    if bad > 0 {
        bail!("{bad} mutants were not killed");
    }
    Ok(())
}

/// The first tests by name, and how many more.
fn few(tests: &[String]) -> String {
    let shown = tests.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    match tests.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Copies what git knows of, as it is in the working tree, to a folder of its
/// own.
fn copy_tree() -> Result<PathBuf> {
    let to = workspace::target().join("mutants/tree");
    let files = cmd!("git", "ls-files", "-co", "--exclude-standard")
        .dir(workspace::root())
        .read()
        .context("cannot list the files")?;
    // Some may be deleted in the working tree.
    let there = files
        .lines()
        .filter(|file| workspace::root().join(file).is_file());
    let copies: BTreeSet<PathBuf> = there.map(|file| to.join(file)).collect();
    for copy in &copies {
        let file = workspace::root().join(copy.strip_prefix(&to)?);
        copy_if_changed(&file, copy)?;
    }
    remove_others(&to, &copies)?;
    Ok(to)
}

/// Removes what an earlier copy had: cargo would build a test that is gone.
fn remove_others(folder: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// An unchanged file keeps its time, so that cargo does not build it again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// Builds without a limit of time, then tests with one.
fn test(tree: &Path, packages: &[&str]) -> Result<Verdict> {
    let mut words = vec!["test", "--no-fail-fast"];
    words.extend(packages.iter().flat_map(|package| ["--package", package]));
    let run = |program: &str, words: &[&str]| {
        cmd(program, words)
            .dir(tree)
            .env(
                "CARGO_TARGET_DIR",
                workspace::target().join("mutants/target"),
            )
            .stdin_null()
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .context("cannot start the tests")
    };
    let built = run("cargo", &[&words[..], &["--no-run"]].concat())?;
    if !built.status.success() {
        return Ok(Verdict::NotCompiled);
    }
    let output = run("timeout", &[&[LIMIT_SECONDS, "cargo"], &words[..]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(verdict(output.status.code(), &text))
}

fn verdict(code: Option<i32>, output: &str) -> Verdict {
    let failed: Vec<String> = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect();
    match code {
        Some(0) => Verdict::Survived,
        _ if !failed.is_empty() => Verdict::Killed(failed),
        // What `timeout` says when it had to end the tests.
        Some(124) => Verdict::Hung,
        _ => Verdict::Killed(vec!["a test program that died".into()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_loses_what_the_tree_has_lost() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for file in ["a/tests/old.rs", "a/tests/old/main.rs", "b.rs"] {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "").unwrap();
        }
        let files = ["a/tests/old/main.rs", "b.rs"].map(at);
        remove_others(folder.path(), &BTreeSet::from(files.clone())).unwrap();
        assert!(files.iter().all(|file| file.is_file()));
        assert!(!at("a/tests/old.rs").exists());
    }

    #[test]
    fn what_tests_print_becomes_a_verdict() {
        assert!(matches!(
            verdict(Some(0), "running 1 test"),
            Verdict::Survived
        ));
        assert!(matches!(verdict(Some(101), ""), Verdict::Killed(_)));
        assert!(matches!(
            verdict(Some(124), "running 1 test"),
            Verdict::Hung
        ));
        let killed = "running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n";
        let Verdict::Killed(tests) = verdict(Some(101), killed) else {
            panic!("not killed");
        };
        assert_eq!(tests, ["a::c"]);
    }
}
