//! `io/xenbus.h`: the states of a split device.

use super::open_enum;

open_enum! {
    /// The `state` key of either end.
    pub enum XenbusState: u32 {
        /// The key is missing or unreadable.
        UNKNOWN = 0 => "Unknown",
        /// The toolstack made the device.
        INITIALISING = 1 => "Initialising",
        /// The backend published its features and waits for the ring.
        INIT_WAIT = 2 => "InitWait",
        /// The frontend published its ring.
        INITIALISED = 3 => "Initialised",
        /// Works.
        CONNECTED = 4 => "Connected",
        /// One end asks to stop.
        CLOSING = 5 => "Closing",
        /// Stopped.
        CLOSED = 6 => "Closed",
        /// Device-specific change under way.
        RECONFIGURING = 7 => "Reconfiguring",
        /// Device-specific change done.
        RECONFIGURED = 8 => "Reconfigured",
    }
}
