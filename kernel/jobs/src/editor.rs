//! Editing one line on a terminal of which nothing is known.
//!
//! A state machine: bytes go in, text for the terminal and finished lines come
//! out. It never asks the terminal anything, so it works the same for a person,
//! for a script, and for a log file; a terminal of any kind at least 80 columns
//! wide will do. The line is plain ASCII; other bytes are ignored.

use crate::input::INTERRUPT;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::Write as _;

/// Longest line in bytes.
const MAX_LINE: usize = 1024;

/// Lines that are remembered.
const MAX_HISTORY: usize = 64;

/// Part of the line that is shown while a long one is edited, in columns.
const WINDOW: usize = 72;

/// What a byte led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing yet.
    More,
    /// A line was finished.
    Line(String),
    /// The line was given up.
    Interrupted,
}

/// Where an escape sequence stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Started,
    /// After ESC [ or ESC O; the number is the parameter so far.
    Sequence(u8),
}

/// The line being edited, and earlier ones.
#[derive(Default)]
pub(crate) struct Editor {
    prompt: &'static str,
    line: String,
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, counted from the newest.
    recalled: Option<usize>,
    /// What was typed before the history was looked at.
    draft: String,
    escape: Escape,
    after_return: bool,
}

impl Editor {
    pub(crate) fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            ..Self::default()
        }
    }

    /// Shows the prompt.
    pub(crate) fn prompt(&self, out: &mut String) {
        out.push_str(self.prompt);
    }

    /// Takes a byte; what the terminal must show is added to `out`.
    pub(crate) fn feed(&mut self, byte: u8, out: &mut String) -> Action {
        let after_return = core::mem::take(&mut self.after_return);
        match (self.escape, byte) {
            (Escape::None, b'\n') if after_return => {}
            (Escape::None, b'\r' | b'\n') => {
                self.after_return = byte == b'\r';
                return self.finish(out);
            }
            (Escape::None, INTERRUPT) => {
                out.push_str("^C\n");
                self.reset();
                return Action::Interrupted;
            }
            (Escape::None, 0x1b) => self.escape = Escape::Started,
            (Escape::None, b' '..=b'~') => self.insert(byte.into(), out),
            (Escape::None, byte) => self.control(byte, out),
            (Escape::Started, b'[' | b'O') => self.escape = Escape::Sequence(0),
            (Escape::Started, _) => self.escape = Escape::None,
            (Escape::Sequence(number), digit @ b'0'..=b'9') => {
                let number = number.saturating_mul(10).saturating_add(digit - b'0');
                self.escape = Escape::Sequence(number);
            }
            // A second parameter: modifier keys, which change nothing here.
            (Escape::Sequence(_), b';') => self.escape = Escape::Sequence(0),
            (Escape::Sequence(number), last) => {
                self.escape = Escape::None;
                self.key(last, number, out);
            }
        }
        Action::More
    }

    fn control(&mut self, byte: u8, out: &mut String) {
        match byte {
            0x01 => self.go(0, out),
            0x02 => self.go(self.cursor.saturating_sub(1), out),
            0x04 => self.delete(self.cursor, self.cursor + 1, out),
            0x05 => self.go(self.line.len(), out),
            0x06 => self.go(self.cursor + 1, out),
            0x08 | 0x7f => self.delete(self.cursor.saturating_sub(1), self.cursor, out),
            0x0b => self.delete(self.cursor, self.line.len(), out),
            0x0c => {
                out.push_str("\x1b[2J\x1b[H");
                self.redraw(out);
            }
            0x0e => self.recall(false, out),
            0x10 => self.recall(true, out),
            0x15 => self.delete(0, self.cursor, out),
            0x17 => self.delete(self.word_start(), self.cursor, out),
            _ => {}
        }
    }

    /// A key that sends an escape sequence.
    fn key(&mut self, last: u8, number: u8, out: &mut String) {
        match (last, number) {
            (b'A', _) => self.recall(true, out),
            (b'B', _) => self.recall(false, out),
            (b'C', _) => self.go(self.cursor + 1, out),
            (b'D', _) => self.go(self.cursor.saturating_sub(1), out),
            (b'H', _) | (b'~', 1 | 7) => self.go(0, out),
            (b'F', _) | (b'~', 4 | 8) => self.go(self.line.len(), out),
            (b'~', 3) => self.delete(self.cursor, self.cursor + 1, out),
            _ => {}
        }
    }

    fn insert(&mut self, char: char, out: &mut String) {
        if self.line.len() >= MAX_LINE {
            out.push('\x07');
            return;
        }
        self.line.insert(self.cursor, char);
        self.cursor += 1;
        if self.cursor == self.line.len() {
            // The common case, also of scripts: the terminal wraps by itself.
            out.push(char);
        } else {
            self.redraw(out);
        }
    }

    fn delete(&mut self, from: usize, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.line.drain(from..to);
        self.cursor = from;
        self.redraw(out);
    }

    fn go(&mut self, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        if to != self.cursor {
            self.cursor = to;
            self.redraw(out);
        }
    }

    /// Where the word before the cursor starts.
    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let word = before.trim_end_matches(' ');
        word.rfind(' ').map_or(0, |blank| blank + 1)
    }

    /// Shows an older line, or a newer one.
    fn recall(&mut self, older: bool, out: &mut String) {
        let next = match (self.recalled, older) {
            (None, true) => Some(0),
            (Some(at), true) => Some(at + 1),
            (Some(0), false) => None,
            (Some(at), false) => Some(at - 1),
            (None, false) => return,
        };
        let line = match next {
            None => core::mem::take(&mut self.draft),
            Some(at) => match self.history.iter().rev().nth(at) {
                Some(line) => line.clone(),
                None => return,
            },
        };
        let shown = core::mem::replace(&mut self.line, line);
        if self.recalled.is_none() {
            self.draft = shown;
        }
        self.recalled = next;
        self.cursor = self.line.len();
        self.redraw(out);
    }

    fn finish(&mut self, out: &mut String) -> Action {
        out.push('\n');
        let line = core::mem::take(&mut self.line);
        self.reset();
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == MAX_HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        Action::Line(line)
    }

    fn reset(&mut self) {
        self.line.clear();
        self.draft.clear();
        self.cursor = 0;
        self.recalled = None;
    }

    /// Writes the line anew: of a long one, the part around the cursor.
    fn redraw(&self, out: &mut String) {
        let start = self.cursor.saturating_sub(WINDOW - 1);
        let end = self.line.len().min(start + WINDOW);
        let shown = &self.line[start..end];
        let _ = write!(out, "\r\x1b[K{}{shown}", self.prompt);
        if end > self.cursor {
            let _ = write!(out, "\x1b[{}D", end - self.cursor);
        }
    }
}

#[cfg(test)]
mod tests;
