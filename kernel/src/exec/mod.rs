//! The main loop: events and timers, drivers, jobs, and halting when all wait.

mod asks;
mod names;
mod queue;
mod registry;
mod sleep;

#[cfg(firn_bare)]
mod job_state;
#[cfg(firn_bare)]
mod machine;
#[cfg(firn_bare)]
mod main_loop;

pub use asks::{AskId, Asks};
#[cfg(firn_bare)]
pub(crate) use job_state::PowerAnswer;
#[cfg(firn_bare)]
pub use machine::KernelMachine;
#[cfg(firn_bare)]
pub use main_loop::MainLoop;
pub use names::Names;
pub use queue::{BootQueue, Rooms};
pub use registry::{Registered, Registry};
pub use sleep::{Alarm, Rest};
