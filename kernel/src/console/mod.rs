//! Where text goes: the hypervisor's console once there is one, before that
//! the debug port and COM1; and after a panic, everything at once.

#[cfg(firn_bare)]
mod early;
mod logger;

use core::fmt;

use spin::Once;

pub use logger::{Level, parse_level, set_level};

/// Takes the text of the console once the machine is up.
///
/// `write` must not block for ever, allocate or log: it is called from the
/// logger, and from the panic handler.
pub trait Sink: Sync {
    /// Writes all of `text`, or drops what the other end does not take in time.
    fn write(&self, text: &[u8]);
}

static SINK: Once<&'static dyn Sink> = Once::new();

/// Sends all further text to `sink` instead of the early ports. The first
/// call counts; there is one console.
pub fn set_sink(sink: &'static dyn Sink) {
    SINK.call_once(|| sink);
}

/// Makes text possible at all: ports and the logger. Call first of all.
pub fn init() {
    #[cfg(firn_bare)]
    early::init();
    logger::init();
}

/// The console for ordinary text.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match SINK.get() {
            Some(sink) => sink.write(text.as_bytes()),
            None => early_write(text),
        }
        Ok(())
    }
}

/// Every console at once: for dumps and panics, when any of them may be dead.
pub struct Emergency;

impl fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        early_write(text);
        if let Some(sink) = SINK.get() {
            sink.write(text.as_bytes());
        }
        Ok(())
    }
}

#[cfg(firn_bare)]
use early::write as early_write;

/// On a host program (tests) the early console is standard error.
#[cfg(not(firn_bare))]
fn early_write(text: &str) {
    std::eprint!("{text}");
}

/// Prints a line to the console, without time or level: for results.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => {{
        use core::fmt::Write;
        // Console writes do not fail; what the other end drops is dropped.
        let _ = writeln!($crate::console::Console, $($arguments)*);
    }};
}
