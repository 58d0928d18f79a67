//! What a person sees of steps that take a while: a spinner with the time it
//! takes, or plain lines where there is no terminal.

use std::cell::RefCell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows one step at a time; each new step ends the one before.
pub(crate) struct Progress {
    terminal: bool,
    current: RefCell<Option<Step>>,
}

struct Step {
    text: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
            current: RefCell::new(None),
        }
    }

    /// Begins a step.
    pub(crate) fn step(&self, text: &str) {
        self.done();
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(text.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("xtask: {text}");
        }
        let text = text.to_owned();
        let start = Instant::now();
        *self.current.borrow_mut() = Some(Step { text, start, bar });
    }

    /// Ends the current step.
    pub(crate) fn done(&self) {
        let Some(step) = self.current.borrow_mut().take() else {
            return;
        };
        let seconds = step.start.elapsed().as_secs_f64();
        if let Some(bar) = step.bar {
            bar.finish_and_clear();
            eprintln!("xtask: {} ({seconds:.1} s)", step.text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
