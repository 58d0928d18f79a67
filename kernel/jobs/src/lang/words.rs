//! From a line to words: `;` and `&` end a job, blanks end a word, quotes keep all.

use super::LangError;
use alloc::string::String;
use alloc::vec::Vec;

/// Longest line that is read, in bytes. A kernel command line and a line at the
/// prompt are far shorter.
pub const MAX_LINE: usize = 4096;

/// One word, without its quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    text: String,
    /// Where the first unquoted `=` is.
    equals: Option<usize>,
}

impl Word {
    /// The word as `key=value`, or `None` for a bare one.
    pub(super) fn pair(&self) -> Option<(&str, &str)> {
        let at = self.equals?;
        Some((self.text.get(..at)?, self.text.get(at + 1..)?))
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Splits a line into the words of its jobs; a job without words is left out.
///
/// In double quotes `\"`, `\\`, `\n` and `\t` stand for the character they
/// name; in single quotes everything stands for itself.
pub(super) fn split(line: &str) -> Vec<Result<Vec<Word>, LangError>> {
    if line.len() > MAX_LINE {
        return [Err(LangError::TooLong { limit: MAX_LINE })].into();
    }
    let mut splitter = Splitter::default();
    let mut chars = line.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            ';' | '\n' | '\r' => splitter.end_job(),
            // A word of its own that ends its job.
            '&' => {
                splitter.end_word();
                splitter.push('&');
                splitter.end_job();
            }
            '"' | '\'' => {
                if !splitter.quoted(char, &mut chars) {
                    splitter
                        .jobs
                        .push(Err(LangError::Unclosed { at, quote: char }));
                    return splitter.jobs;
                }
            }
            char if char.is_whitespace() => splitter.end_word(),
            char => splitter.push(char),
        }
    }
    splitter.end_job();
    splitter.jobs
}

#[derive(Default)]
struct Splitter {
    jobs: Vec<Result<Vec<Word>, LangError>>,
    words: Vec<Word>,
    word: Option<Word>,
}

impl Splitter {
    fn push(&mut self, char: char) {
        let word = self.word.get_or_insert_default();
        if char == '=' && word.equals.is_none() {
            word.equals = Some(word.text.len());
        }
        word.text.push(char);
    }

    /// Takes what follows an opening quote; `false` when it is never closed.
    fn quoted(&mut self, quote: char, chars: &mut core::str::CharIndices<'_>) -> bool {
        // An empty pair of quotes is a word, too.
        let word = self.word.get_or_insert_default();
        while let Some((_, char)) = chars.next() {
            match char {
                char if char == quote => return true,
                '\\' if quote == '"' => match chars.next() {
                    Some((_, 'n')) => word.text.push('\n'),
                    Some((_, 't')) => word.text.push('\t'),
                    Some((_, char @ ('"' | '\\'))) => word.text.push(char),
                    // Not an escape: both characters stand for themselves.
                    Some((_, char)) => word.text.extend(['\\', char]),
                    None => return false,
                },
                char => word.text.push(char),
            }
        }
        false
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_job(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.jobs.push(Ok(core::mem::take(&mut self.words)));
        }
    }
}
