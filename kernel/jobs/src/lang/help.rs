//! The help texts, from the table that also parses.

use super::LangError;
use super::arguments::{Arg, Spec};
use super::job::SPECS;
use core::fmt::{self, Write};

/// Writes the list of jobs, or the explanation of one.
///
/// # Errors
/// [`LangError::UnknownJob`]; nothing was written then.
pub fn help(job: Option<&str>, out: &mut dyn Write) -> Result<fmt::Result, LangError> {
    let Some(word) = job else {
        return Ok(list(out));
    };
    let spec = SPECS.iter().find(|spec| spec.name == word);
    let unknown = || LangError::UnknownJob { word: word.into() };
    Ok(explain(spec.ok_or_else(unknown)?, out))
}

fn list(out: &mut dyn Write) -> fmt::Result {
    for spec in SPECS {
        writeln!(out, "  {:<10} {}", spec.name, spec.summary.trim())?;
    }
    writeln!(
        out,
        "Jobs are separated by `;`. `help JOB` explains one: `help verify`."
    )
}

fn explain(spec: &Spec, out: &mut dyn Write) -> fmt::Result {
    write!(out, "{}", spec.name)?;
    for arg in spec.args {
        write!(out, " {}", Usage(arg))?;
    }
    writeln!(out, "\n  {}", spec.summary.trim())?;
    for arg in spec.args {
        write!(out, "    {:<10} {}", arg.key, arg.help.trim())?;
        match arg.default {
            Some(default) => writeln!(out, " [{default}]")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// An argument in a usage line; brackets mean that it may be left out.
struct Usage<'a>(&'a Arg);

impl fmt::Display for Usage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arg = self.0;
        let (open, close) = match arg.is_needed() {
            true => ("", ""),
            false => ("[", "]"),
        };
        match arg.flag && arg.default == Some("no") {
            true => write!(f, "{open}{}{close}", arg.key),
            false => write!(f, "{open}{}={}{close}", arg.key, arg.name),
        }
    }
}
