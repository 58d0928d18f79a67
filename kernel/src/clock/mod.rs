//! The one clock: nanoseconds since boot, never going back.

mod monotonic;
mod pvclock;

pub use monotonic::Monotonic;
pub use pvclock::{Sample, Torn, read_stable};

use spin::Once;

/// Where time comes from: any nanosecond counter; it may jump back, the clock
/// on top does not.
pub trait Source: Sync {
    /// Nanoseconds, from any starting point.
    fn now_ns(&self) -> u64;
}

static SOURCE: Once<&'static dyn Source> = Once::new();
static CLOCK: Monotonic = Monotonic::new();

/// Starts the clock; it reads zero when the source says `zero`, which lies in
/// the past. The first call counts.
pub fn start(source: &'static dyn Source, zero: u64) {
    SOURCE.call_once(|| {
        CLOCK.start_at(zero);
        source
    });
}

/// Stops the clock until [`rebase`]: the machine is about to be away.
pub fn pause() {
    now_ns();
    CLOCK.pause();
}

/// The source may count from another point now, as after a move to another
/// host: the clock goes on from its latest reading.
pub fn rebase() {
    if let Some(source) = SOURCE.get() {
        CLOCK.rebase(source.now_ns());
    }
}

/// Nanoseconds since [`start`]; zero before it.
pub fn now_ns() -> u64 {
    SOURCE
        .get()
        .map_or(0, |source| CLOCK.advance_to(source.now_ns()))
}

/// What [`now_ns`] said last. Reading the source may cost an exit to the
/// hypervisor; this costs nothing.
pub fn latest_ns() -> u64 {
    CLOCK.latest()
}

/// The source's time when the clock will read `ns`: for the hypervisor's timer.
pub fn to_source(ns: u64) -> u64 {
    CLOCK.source_time(ns)
}
