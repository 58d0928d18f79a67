//! The `log` crate's backend: one line per event, with time and level.

use core::fmt::Write;

use log::{LevelFilter, Log, Metadata, Record};

use super::Console;
use crate::clock;

/// Levels as the command line names them: `log=info`.
pub type Level = LevelFilter;

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true // the maximum level was checked by the macro
    }

    fn log(&self, record: &Record<'_>) {
        let now = clock::now_ns();
        let (seconds, micros) = (now / 1_000_000_000, now / 1_000 % 1_000_000);
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warn ",
            log::Level::Info => "info ",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        };
        // Console writes do not fail; what the other end drops is dropped.
        let _ = writeln!(
            Console,
            "[{seconds:5}.{micros:06}] {level} {}",
            record.args()
        );
    }

    fn flush(&self) {}
}

pub(super) fn init() {
    // A second call finds the first one's logger in place: the same one.
    let _ = log::set_logger(&Logger);
    set_level(LevelFilter::Info);
}

/// Shows events of `level` and above from now on.
pub fn set_level(level: Level) {
    log::set_max_level(level);
}

/// The level of that name: off, error, warn, info, debug, trace.
pub fn parse_level(name: &str) -> Option<Level> {
    name.parse().ok()
}
