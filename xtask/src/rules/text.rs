//! Rules about source files: where `unsafe` may stand, how long a file may be,
//! how it begins.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use duct::cmd;

use crate::workspace;

/// Files (or folders, with a slash) that may contain `unsafe`;
/// ARCHITECTURE.md, "Unsafe rooms", says why.
const UNSAFE_ROOMS: &[&str] = &[
    "boot/",
    "drivers/block/src/shm.rs",
    "kernel/src/arch/",
    "kernel/src/mm/",
    "tests/hyperv-host/src/memory.rs",
    "tests/peers/src/memory.rs",
    "tests/sim/src/memory.rs",
];

/// No file is longer, in lines.
const MAX_LINES: usize = 600;
/// Half of the files are not longer, in lines.
const MEDIAN_LINES: usize = 250;

/// A Rust file of the workspace.
struct Source {
    path: String,
    text: String,
}

/// All Rust files that are under version control or about to be.
fn sources() -> Result<Vec<Source>> {
    let root = workspace::root();
    let list = cmd!(
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs"
    )
    .dir(&root)
    .read()
    .context("git ls-files")?;
    let existing = |path: &&str| root.join(path).exists();
    list.lines()
        .filter(existing)
        .map(|path| read(&root, path))
        .collect()
}

fn read(root: &Path, path: &str) -> Result<Source> {
    let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
    let path = path.to_owned();
    Ok(Source { path, text })
}

/// `unsafe` stands in its rooms only.
pub(crate) fn unsafe_rooms() -> Result<String> {
    let sources = sources()?;
    let wrong: Vec<_> = sources.iter().flat_map(stray_unsafe).collect();
    if !wrong.is_empty() {
        bail!("unsafe code outside its rooms:\n{}", wrong.join("\n"));
    }
    Ok(format!("{} files", sources.len()))
}

fn stray_unsafe(source: &Source) -> Vec<String> {
    let in_room =
        |room: &str| source.path == room || room.ends_with('/') && source.path.starts_with(room);
    if UNSAFE_ROOMS.iter().any(|room| in_room(room)) {
        return Vec::new();
    }
    let lines = (1..).zip(source.text.lines());
    let found = lines.filter(|(_, line)| opens_unsafe(line));
    found
        .map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim()))
        .collect()
}

/// Whether a line of code has the keyword: not in a comment, not in a string,
/// not as part of a word such as the lint's name.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let code = code.replace("\\\"", "");
    let outside_strings = code.split('"').step_by(2);
    outside_strings
        .flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .any(|word| word == "unsafe")
}

/// No file is too long, most are short.
pub(crate) fn file_sizes() -> Result<String> {
    let mut sizes: Vec<_> = sources()?
        .into_iter()
        .map(|s| (s.text.lines().count(), s.path))
        .collect();
    sizes.sort();
    judge_sizes(&sizes)
}

/// `sizes` is sorted.
fn judge_sizes(sizes: &[(usize, String)]) -> Result<String> {
    let too_long: Vec<_> = sizes
        .iter()
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path} has {lines} lines; the limit is {MAX_LINES}"))
        .collect();
    if !too_long.is_empty() {
        bail!("{}", too_long.join("\n"));
    }
    let at = |share: usize| {
        sizes
            .get(sizes.len() * share / 100)
            .map_or(0, |(lines, _)| *lines)
    };
    let (median, most) = (at(50), at(90));
    if median > MEDIAN_LINES {
        bail!("half of the files have more than {median} lines; the norm is {MEDIAN_LINES}");
    }
    Ok(format!(
        "{} files, median {median} lines, 90 % below {most}",
        sizes.len()
    ))
}

/// Every file says at its top what it is for; a module's `tests.rs` need not.
pub(crate) fn docs_first() -> Result<String> {
    let sources = sources()?;
    let silent: Vec<_> = sources
        .iter()
        .filter(|s| !s.path.ends_with("/tests.rs") && !says_what_it_is(&s.text))
        .map(|s| format!("{}: does not begin with `//!`", s.path))
        .collect();
    if !silent.is_empty() {
        bail!("{}", silent.join("\n"));
    }
    Ok(format!("{} files", sources.len()))
}

fn says_what_it_is(text: &str) -> bool {
    // Fuzz targets must begin with an attribute.
    let first = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn the_keyword_is_found_in_code_only() {
        for code in [
            "unsafe { x() }",
            "    unsafe fn f();",
            "x; unsafe{",
            "#[unsafe(no_mangle)]",
        ] {
            assert!(opens_unsafe(code), "{code}");
        }
        for other in [
            "// unsafe {",
            "#![forbid(unsafe_code)]",
            "let s = \"unsafe {\";",
            "let s = \"a \\\"unsafe\\\" word\";",
            "is_unsafe()",
        ] {
            assert!(!opens_unsafe(other), "{other}");
        }
    }

    #[test]
    fn a_room_is_a_file_or_a_folder() {
        let found = |path| stray_unsafe(&source(path, "//! x\nunsafe {}\n")).len();
        assert_eq!(found("kernel/src/arch/cpu.rs"), 0);
        assert_eq!(found("drivers/block/src/shm.rs"), 0);
        assert_eq!(found("drivers/block/src/queue.rs"), 1);
        assert_eq!(found("drivers/block/src/shm.rs.rs"), 1);
        assert_eq!(found("kernel/src/archive.rs"), 1);
    }

    #[test]
    fn long_files_are_named() {
        let sizes = [(100, "a".to_owned()), (MAX_LINES + 1, "b".to_owned())];
        assert!(
            judge_sizes(&sizes)
                .unwrap_err()
                .to_string()
                .contains("b has 601 lines")
        );
        let sizes = [
            (MEDIAN_LINES + 1, "a".to_owned()),
            (MEDIAN_LINES + 1, "b".to_owned()),
        ];
        assert!(judge_sizes(&sizes).is_err());
        assert!(judge_sizes(&sizes[..0]).is_ok());
    }

    #[test]
    fn a_file_must_say_what_it_is_for() {
        assert!(says_what_it_is("//! This.\n"));
        assert!(says_what_it_is("#![no_main]\n//! This.\n"));
        assert!(!says_what_it_is("use x;\n//! Late.\n"));
        assert!(!says_what_it_is(""));
    }
}
