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
mod choice;
mod error;
mod help;
mod job;
mod value;
mod words;

#[cfg(test)]
mod tests;

pub use choice::Compress;
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
