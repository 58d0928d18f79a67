//! The block frontend (`io/blkif.h`).
//!
//! [`Front`] is the data path: a [`firn_block::Queue`] over the shared ring
//! that never waits, never allocates per request and makes no hypercall but the
//! notification that the ring asks for. [`Vbd`] is the control path: an `async`
//! task per device that shakes hands with the backend, follows its changes and
//! closes in good order.

mod buffers;
mod close;
mod complete;
mod connect;
mod features;
mod freeze;
mod front;
mod life;
mod offence;
mod reissue;
mod ring;
mod shadow;
mod step;
mod submit;
mod vbd;

pub use buffers::Granted;
pub use connect::ConnectError;
pub use features::{Features, MAX_RING_ORDER};
pub use front::Front;
pub use offence::Offence;
pub use step::{Busy, DiskStep, StepError, WhyNot};
pub use vbd::{Terms, Vbd, VbdConfig, VbdReport};
