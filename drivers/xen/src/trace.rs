//! The last things that happened, for a person who wonders.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use firn_task::Instant;

const LENGTH: usize = 256;

/// One driver event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// When.
    pub at: Instant,
    /// Which driver: `store`, `bus`, `vbd 51712`, …
    pub source: Source,
    /// What happened.
    pub what: &'static str,
    /// A number that belongs to it: a state, a reference, a sector.
    pub value: u64,
}

/// Who reports an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The xenstore client.
    Store,
    /// The bus.
    Bus,
    /// The console.
    Console,
    /// A block device, by its number below `device/vbd`.
    Vbd(u32),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Bus => f.write_str("bus"),
            Self::Console => f.write_str("console"),
            Self::Vbd(id) => write!(f, "vbd {id}"),
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at.as_nanos() / 1000;
        write!(
            f,
            "{:>6}.{:06} {}: {} {}",
            micros / 1_000_000,
            micros % 1_000_000,
            self.source,
            self.what,
            self.value
        )
    }
}

/// A ring of the last events; recording does not allocate.
pub struct Trace {
    ring: RefCell<(Vec<TraceEvent>, usize)>,
}

impl Trace {
    /// An empty ring.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ring: RefCell::new((Vec::with_capacity(LENGTH), 0)),
        }
    }

    /// Records an event over the oldest one.
    pub fn record(&self, event: TraceEvent) {
        let (ring, next) = &mut *self.ring.borrow_mut();
        if ring.len() < LENGTH {
            ring.push(event);
        } else {
            ring[*next] = event;
        }
        *next = (*next + 1) % LENGTH;
    }

    /// The events, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<TraceEvent> {
        let (ring, next) = &*self.ring.borrow();
        let split = if ring.len() < LENGTH { 0 } else { *next };
        let (newer, older) = ring.split_at(split);
        older.iter().chain(newer).copied().collect()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_events_in_order() {
        let trace = Trace::new();
        for value in 0..300 {
            trace.record(TraceEvent {
                at: Instant::from_nanos(value),
                source: Source::Bus,
                what: "test",
                value,
            });
        }
        let values: Vec<u64> = trace.events().iter().map(|event| event.value).collect();
        assert_eq!(values, (300 - LENGTH as u64..300).collect::<Vec<_>>());
    }
}
