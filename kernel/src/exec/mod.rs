//! The main loop: events and timers, drivers, jobs, and halting when all wait.

mod sleep;

#[cfg(firn_bare)]
mod main_loop;

#[cfg(firn_bare)]
pub use main_loop::MainLoop;
pub use sleep::{Alarm, Rest};
