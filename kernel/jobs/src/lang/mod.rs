//! The one small language of the command line and the shell.
//!
//! ```text
//! disks; verify xvda size=64M seed=1; bench disk=xvda rw=randread time=5s; poweroff
//! ```
//!
//! Jobs are separated by `;` and stand for themselves: a mistake in one does
//! not touch the others. A job is a name and arguments `key=value`; values of
//! some kinds (disks, modes, paths) may stand without their key, and a key of a
//! yes/no argument may stand without its value. The table that parses the
//! arguments ([`SPECS`]) also writes `help`.

mod arguments;
mod error;
mod help;
mod job;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use error::LangError;
pub use help::help;
pub use job::*;
pub use value::{Extent, Name, Rw, Size, Text, Value};
pub use words::MAX_LINE;

use alloc::vec::Vec;

/// Parses a line; one result for each job on it.
#[must_use]
pub fn parse(line: &str) -> Vec<Result<Job, LangError>> {
    let jobs = words::split(line).into_iter();
    jobs.map(|words| Job::parse(&words?)).collect()
}

/// Splits the kernel's command line into its own options and the jobs: what
/// follows the first word `--`.
///
/// ```
/// use firn_jobs::lang::split_command_line;
/// assert_eq!(
///     split_command_line("log=info -- verify xvda; poweroff"),
///     ("log=info", "verify xvda; poweroff")
/// );
/// assert_eq!(split_command_line("log=info"), ("log=info", ""));
/// ```
#[must_use]
pub fn split_command_line(line: &str) -> (&str, &str) {
    let is_blank = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    let bytes = line.as_bytes();
    let alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        is_blank(before) && is_blank(bytes.get(at + 2))
    };
    let mut marks = line.match_indices("--").map(|(at, _)| at);
    match marks.find(|at| alone(*at)) {
        Some(at) => (line[..at].trim(), line[at + 2..].trim()),
        None => (line.trim(), ""),
    }
}
