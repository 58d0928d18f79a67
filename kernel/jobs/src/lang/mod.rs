//! The one small language of the command line and the shell.
//!
//! ```text
//! disks; verify xvda size=64M seed=1; bench disk=xvda rw=randread time=5s; poweroff
//! ```
//!
//! Jobs are separated by `;`, or by `&` for one that goes on in the background,
//! and stand for themselves: a mistake in one does
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

pub use choice::{Compress, Content};
pub use error::LangError;
pub use help::help;
pub use job::*;
pub use value::{Extent, Name, Rw, Size, Text, Value};
pub use words::MAX_LINE;

use alloc::vec::Vec;

/// A job as a line asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The job.
    pub job: Job,
    /// Whether the next one starts at once, while this one runs: `job &`.
    pub beside: bool,
}

/// Parses a line; one result for each job on it.
#[must_use]
pub fn calls(line: &str) -> Vec<Result<Call, LangError>> {
    let call = |words: Result<Vec<words::Word>, LangError>| {
        let mut words = words?;
        let beside = words.pop_if(|word| word.text() == "&").is_some();
        let job = Job::parse(&words)?;
        Ok(Call { job, beside })
    };
    words::split(line).into_iter().map(call).collect()
}

/// The jobs of [`calls`].
#[must_use]
pub fn parse(line: &str) -> Vec<Result<Job, LangError>> {
    let calls = calls(line).into_iter();
    calls.map(|call| call.map(|call| call.job)).collect()
}
