//! The words of one job, sorted to the arguments that its table lists.

use super::LangError;
use super::value::Value;
use super::words::Word;
use alloc::string::String;
use alloc::vec::Vec;

/// One argument of a job.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its key.
    pub key: &'static str,
    /// The placeholder for its value.
    pub name: &'static str,
    /// What its value must be.
    pub want: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The value if it is left out.
    pub default: Option<&'static str>,
    /// Whether it may be left out although it has no default.
    pub optional: bool,
    /// Whether the value may stand without the key.
    pub bare: bool,
    /// Whether a text is such a value.
    pub fits: fn(&str) -> bool,
    /// Whether the key may stand without the value, for yes.
    pub flag: bool,
}

impl Arg {
    /// Whether the job cannot do without it.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.default.is_none() && !self.optional
    }
}

/// A job as `help` and the parser see it.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The job's name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
}

/// Values by argument, in the order of the table.
pub(super) struct Arguments {
    spec: &'static Spec,
    values: Vec<Option<String>>,
    next: usize,
}

impl Arguments {
    /// Sorts the words that follow the job's name.
    pub(super) fn sort(spec: &'static Spec, words: &[Word]) -> Result<Self, LangError> {
        let mut this = Self {
            spec,
            values: spec.args.iter().map(|_| None).collect(),
            next: 0,
        };
        for word in words {
            let (at, value) = this.place(word)?;
            let arg = &spec.args[at];
            if this.values[at].replace(value.into()).is_some() {
                return Err(LangError::Twice {
                    job: spec.name,
                    key: arg.key,
                });
            }
        }
        Ok(this)
    }

    /// Which argument a word belongs to, and the value it gives.
    fn place<'w>(&self, word: &'w Word) -> Result<(usize, &'w str), LangError> {
        let args = self.spec.args;
        let job = self.spec.name;
        if let Some((key, value)) = word.pair() {
            let at = args.iter().position(|arg| arg.key == key);
            let key = key.into();
            return at
                .map(|at| (at, value))
                .ok_or(LangError::UnknownKey { job, key });
        }
        // `--check` is what many would write for `check`.
        let text = word.text();
        let text = text.strip_prefix("--").unwrap_or(text);
        if let Some(at) = args.iter().position(|arg| arg.flag && arg.key == text) {
            return Ok((at, "yes"));
        }
        // What the job cannot do without takes any word, and says what is wrong
        // with it; the others take only what fits.
        let takes = |arg: &Arg| arg.bare && (arg.is_needed() || (arg.fits)(text));
        let mut open = args.iter().zip(&self.values);
        let at = open.position(|(arg, value)| value.is_none() && takes(arg));
        let word = text.into();
        at.map(|at| (at, text))
            .ok_or(LangError::Homeless { job, word })
    }

    /// The value of the next argument of the table.
    pub(super) fn take<V: Value>(&mut self) -> Result<V, LangError> {
        let (arg, given) = self.take_text();
        let value = match given.as_deref().or(arg.default) {
            Some(text) => V::parse(text),
            None => V::absent(),
        };
        value.ok_or_else(|| self.bad(arg, given))
    }

    fn take_text(&mut self) -> (&'static Arg, Option<String>) {
        let arg = &self.spec.args[self.next];
        let given = self.values[self.next].take();
        self.next += 1;
        (arg, given)
    }

    /// What is wrong with an argument that gave no value.
    #[cold]
    fn bad(&self, arg: &Arg, given: Option<String>) -> LangError {
        let (job, key, want) = (self.spec.name, arg.key, arg.want);
        match given.or_else(|| arg.default.map(Into::into)) {
            Some(value) => LangError::BadValue {
                job,
                key,
                value,
                want,
            },
            None => LangError::Missing { job, key, want },
        }
    }
}
