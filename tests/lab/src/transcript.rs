//! A growing text that one side writes and others wait for lines in.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Called with the bytes as they arrive.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// Makes a [`Sink`] that calls `line` with every whole line, without its end.
#[must_use]
pub fn by_line(mut line: impl FnMut(&str) + Send + 'static) -> Sink {
    let mut open = Vec::new();
    Box::new(move |bytes| {
        for byte in bytes {
            if *byte == b'\n' {
                line(String::from_utf8_lossy(&open).trim_end_matches('\r'));
                open.clear();
            } else {
                open.push(*byte);
            }
        }
    })
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Everything before this was seen by a `wait_for`.
    seen: usize,
    /// Why nothing more will come.
    ended: Option<String>,
    sink: Option<Sink>,
}

/// The text, safe to share between the thread that feeds it and its readers.
#[derive(Default)]
pub struct Transcript {
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transcript({} bytes)", self.lock().bytes.len())
    }
}

impl Transcript {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what arrived.
    pub fn feed(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.bytes.extend_from_slice(bytes);
        if let Some(sink) = &mut state.sink {
            sink(bytes);
        }
        self.changed.notify_all();
    }

    /// Nothing more will come; waiters get `why`.
    pub fn end(&self, why: &str) {
        let mut state = self.lock();
        state.ended.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Why nothing more will come, if that is so.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.lock().ended.clone()
    }

    /// Calls `sink` with all bytes, those of the past first.
    pub fn stream_to(&self, mut sink: Sink) {
        let mut state = self.lock();
        sink(&state.bytes);
        state.sink = Some(sink);
    }

    /// All bytes so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// All text so far, without carriage returns.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).replace('\r', "")
    }

    /// The last `count` lines.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        tail(&self.text(), count)
    }

    /// Waits until a whole line with `pattern` in it arrives after the lines
    /// that earlier calls returned, and returns that line.
    ///
    /// # Errors
    /// The deadline passed or the text ended; the message shows its tail.
    pub fn wait_for(&self, pattern: &str, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.next_line_with(pattern) {
                return Ok(line);
            }
            let left = end.saturating_duration_since(Instant::now());
            let why = match &state.ended {
                Some(why) => why.clone(),
                None if left.is_zero() => format!("nothing within {deadline:?}"),
                None => {
                    (state, _) = self
                        .changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            drop(state);
            bail!(
                "waiting for {pattern:?}: {why}; the last lines:\n{}",
                self.tail(25)
            );
        }
    }

    /// Waits until the text ends.
    ///
    /// # Errors
    /// It did not within the deadline.
    pub fn wait_end(&self, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut state = self.lock();
        loop {
            if let Some(why) = &state.ended {
                return Ok(why.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                bail!(
                    "no end within {deadline:?}; the last lines:\n{}",
                    self.tail(25)
                );
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn next_line_with(&mut self, pattern: &str) -> Option<String> {
        while let Some(length) = self.bytes[self.seen..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.bytes[self.seen..self.seen + length]);
            let line = line.trim_end_matches('\r').to_owned();
            self.seen += length + 1;
            if line.contains(pattern) {
                return Some(line);
            }
        }
        None
    }
}

/// The last `count` lines of `text`.
#[must_use]
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_line_is_found_once_and_only_when_whole() {
        let text = Transcript::default();
        text.feed(b"one\r\ntwo ha");
        assert!(text.wait_for("ha", SHORT).is_err());
        text.feed(b"lf\n");
        assert_eq!(text.wait_for("ha", SHORT).unwrap(), "two half");
        let error = text.wait_for("ha", SHORT).unwrap_err().to_string();
        assert!(error.contains("two half"), "{error}");
    }

    #[test]
    fn a_waiter_is_woken_by_the_end() {
        let text = Arc::new(Transcript::default());
        let feeder = Arc::clone(&text);
        let thread = std::thread::spawn(move || feeder.end("the guest is gone"));
        let error = text.wait_for("never", Duration::from_secs(60)).unwrap_err();
        assert!(error.to_string().contains("the guest is gone"));
        assert_eq!(text.wait_end(SHORT).unwrap(), "the guest is gone");
        thread.join().unwrap();
    }

    #[test]
    fn a_sink_gets_past_and_future_lines() {
        let text = Transcript::default();
        text.feed(b"a\r\nb");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        text.stream_to(by_line(move |l| sink.lock().unwrap().push(l.to_owned())));
        text.feed(b"c\n");
        assert_eq!(*seen.lock().unwrap(), ["a", "bc"]);
    }
}
