//! What can be wrong with a line.

use super::job::SPECS;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why a job's text was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LangError {
    /// No job has this name.
    UnknownJob {
        /// The word.
        word: String,
    },
    /// The job has no such argument.
    UnknownKey {
        /// The job.
        job: &'static str,
        /// The key.
        key: String,
    },
    /// A word without `key=` that no argument of the job can be.
    Homeless {
        /// The job.
        job: &'static str,
        /// The word.
        word: String,
    },
    /// A value does not look like one.
    BadValue {
        /// The job.
        job: &'static str,
        /// The argument.
        key: &'static str,
        /// The value as it stands.
        value: String,
        /// What it must be.
        want: &'static str,
    },
    /// The job cannot do without this argument.
    Missing {
        /// The job.
        job: &'static str,
        /// The argument.
        key: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// An argument stands there twice.
    Twice {
        /// The job.
        job: &'static str,
        /// The argument.
        key: &'static str,
    },
    /// A quote is never closed.
    Unclosed {
        /// Where it opens, in bytes from the start of the line.
        at: usize,
        /// The quote.
        quote: char,
    },
    /// The line is too long to be read.
    TooLong {
        /// Longest line in bytes.
        limit: usize,
    },
}

impl LangError {
    /// The job that the error is about, or the word that is none.
    #[must_use]
    pub fn job(&self) -> &str {
        match self {
            Self::UnknownJob { word } => word,
            Self::UnknownKey { job, .. }
            | Self::Homeless { job, .. }
            | Self::BadValue { job, .. }
            | Self::Missing { job, .. }
            | Self::Twice { job, .. } => job,
            Self::Unclosed { .. } | Self::TooLong { .. } => "line",
        }
    }

    /// A short name that does not change.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UnknownJob { .. } => "unknown-job",
            Self::UnknownKey { .. } => "unknown-argument",
            Self::Homeless { .. } => "unexpected-word",
            Self::BadValue { .. } => "bad-value",
            Self::Missing { .. } => "missing-argument",
            Self::Twice { .. } => "doubled-argument",
            Self::Unclosed { .. } => "unclosed-quote",
            Self::TooLong { .. } => "line-too-long",
        }
    }

    /// Where the mistake is.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::UnknownJob { word } => format!("`{word}`"),
            Self::UnknownKey { job, key } => format!("{job}: {key}="),
            Self::Homeless { job, word } => format!("{job}: `{word}`"),
            Self::BadValue { job, key, .. }
            | Self::Missing { job, key, .. }
            | Self::Twice { job, key } => format!("{job}: {key}="),
            Self::Unclosed { at, .. } => format!("character {}", at + 1),
            Self::TooLong { limit } => format!("beyond byte {limit}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownJob { word } => {
                let names = SPECS.iter().map(|spec| spec.name);
                match nearest(word, names) {
                    Some(name) => format!("did you mean `{name}`? `help` lists all jobs"),
                    None => "`help` lists all jobs".into(),
                }
            }
            Self::UnknownKey { job, key } => {
                let spec = SPECS.iter().find(|spec| spec.name == *job);
                let args = spec.map_or(&[][..], |spec| spec.args);
                match nearest(key, args.iter().map(|arg| arg.key)) {
                    Some(near) => format!("did you mean {near}=? `help {job}` lists all"),
                    None => format!("`help {job}` lists what it takes"),
                }
            }
            Self::Homeless { job, .. } => {
                format!("write key=value; `help {job}` lists the keys")
            }
            Self::BadValue { key, want, .. } | Self::Missing { key, want, .. } => {
                format!("{key}= is {want}")
            }
            Self::Twice { key, .. } => format!("say {key}= once"),
            Self::Unclosed { quote, .. } => format!("close it with {quote}"),
            Self::TooLong { .. } => "give fewer jobs at a time".into(),
        }
    }
}

impl fmt::Display for LangError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownJob { word } => write!(f, "there is no job `{word}`"),
            Self::UnknownKey { job, key } => write!(f, "{job} has no argument {key}="),
            Self::Homeless { job, word } => write!(f, "{job} does not know what `{word}` is"),
            Self::BadValue {
                key, value, want, ..
            } => write!(f, "{key}={value} is not {want}"),
            Self::Missing { job, key, .. } => write!(f, "{job} needs {key}="),
            Self::Twice { job, key } => write!(f, "{job} has {key}= twice"),
            Self::Unclosed { quote, .. } => write!(f, "the quote {quote} is never closed"),
            Self::TooLong { limit } => write!(f, "the line is longer than {limit} bytes"),
        }
    }
}

impl core::error::Error for LangError {}

/// The known word that differs least from `word`, if it differs little.
fn nearest(word: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // Nobody mistypes a name into something much longer, and the distance
    // takes time in proportion to the length.
    if word.len() > 24 {
        return None;
    }
    let near = known.map(|name| (distance(word, name), name)).min()?;
    (near.0 <= 2 && near.0 < near.1.len()).then_some(near.1)
}

/// How many letters must be changed, added, removed to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
