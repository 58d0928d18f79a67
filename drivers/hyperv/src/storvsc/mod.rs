//! SCSI controllers over VMBus.
//!
//! A [`Controller`] is a channel, and up to [`MOST_SUBCHANNELS`] further ones where
//! the host offers them; its disks ([`Unit`]) share them, each with a
//! [`firn_block::Queue`] of its own ([`Front`]). The control path is `async`:
//! [`Controller::connect`] shakes hands and looks which disks there are,
//! [`Controller::run`] follows what the host does, [`Controller::disconnect`]
//! closes in good order. The steps of a freeze are the disks' and the
//! controller's, to be ordered by whoever freezes the machine.

mod bus;
mod complete;
mod control;
mod controller;
mod disks;
mod error;
mod follow;
mod front;
mod link;
mod offence;
mod packet;
mod port;
mod receive;
mod scan;
mod steps;
mod subchannels;
mod wire;

pub use bus::{ScsiBus, WithController};
pub use controller::{Controller, ControllerConfig};
pub use disks::Unit;
pub use error::{ConnectError, StepError, WhyNot};
pub use front::Front;
pub use offence::Offence;
pub use subchannels::{MOST_SUBCHANNELS, Shortfall};

/// Longest packet that is taken from the host. Those that it sends have less than
/// a hundred bytes.
const LONGEST_PACKET: u32 = 1024;

/// Bytes of a packet before a version is agreed on: all hosts take the short
/// form.
const EARLY_PACKET: usize = crate::wire::vstor::SHORT_PACKET;
