//! Where text goes: the hypervisor's console once there is one, before that
//! the debug port and COM1; and after a panic, everything at once.

#[cfg(firn_bare)]
mod early;
mod logger;

use core::fmt;

use heapless::String;
use spin::{Mutex, Once};

pub use logger::{Level, parse_level, set_level};

/// Takes the text of the console once the machine is up.
///
/// Neither method may block for ever or log: they are called from the logger
/// and from the panic handler.
pub trait Sink: Sync {
    /// Takes all of `text`; lines end with a newline alone.
    fn write(&self, text: &str);

    /// Waits a little, if text has piled up that would soon be dropped.
    fn relieve(&self);

    /// Waits, within a bound of its own, until the other end has everything.
    fn drain(&self);
}

/// Bytes of early text that are kept for the sink.
const EARLY_BYTES: usize = 4096;

static SINK: Once<&'static dyn Sink> = Once::new();
static EARLY: Mutex<String<EARLY_BYTES>> = Mutex::new(String::new());
static LAST_WORDS: Mutex<String<EARLY_BYTES>> = Mutex::new(String::new());

/// Sends all further text to `sink` instead of the early ports, and what was
/// written so far as well. The first call counts; there is one console.
pub fn set_sink(sink: &'static dyn Sink) {
    SINK.call_once(|| sink);
    let mut early = EARLY.lock();
    sink.write(&early);
    early.clear();
}

/// Keeps to COM1, where there is one, as the console: the host has no other.
/// Whether there is one.
#[cfg(firn_bare)]
pub fn keep_serial() -> bool {
    let found = early::is_there();
    if found {
        // It has all of this.
        SINK.call_once(|| &early::Serial);
        EARLY.lock().clear();
    }
    found
}

/// Bytes that were typed on COM1; how many.
#[cfg(firn_bare)]
pub fn read_serial(to: &mut [u8]) -> usize {
    early::read(to)
}

/// Gives the other end of the console a moment to make room, if it needs one.
pub fn relieve() {
    if let Some(sink) = SINK.get() {
        sink.relieve();
    }
}

/// Lets the other end of the console read all text, before the guest stops.
pub fn drain() {
    if let Some(sink) = SINK.get() {
        sink.drain();
    }
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
            Some(sink) => sink.write(text),
            None => {
                // What does not fit is only on the early ports.
                let _ = EARLY.lock().push_str(text);
                early_write(text);
            }
        }
        Ok(())
    }
}

/// Every console at once: for dumps and panics, when any of them may be dead.
pub struct Emergency;

impl fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(mut words) = LAST_WORDS.try_lock() {
            // The first ones say what happened; what does not fit is on consoles.
            let _ = words.push_str(text);
        }
        early_write(text);
        if let Some(sink) = SINK.get() {
            sink.write(text);
        }
        Ok(())
    }
}

/// Hands over what was written for an emergency, as far as it was kept.
pub fn last_words<R>(tell: impl FnOnce(&str) -> R) -> R {
    tell(LAST_WORDS.try_lock().as_deref().map_or("", |words| words))
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
