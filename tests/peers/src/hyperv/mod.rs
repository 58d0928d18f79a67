//! Hyper-V in-process: a machine with a SynIC, a VMBus host, storvsp.
//!
//! [`HvMachine`] is what the drivers' HAL asks for; it keeps a list of the guest's
//! [`HvViolation`]s. [`VmbusHost`] speaks every version of VMBus and offers
//! devices; [`Storvsp`] is a SCSI controller over disks in memory, [`IcHost`] an
//! integration service. None of them
//! uses the drivers' code: layouts are written down a second time.

mod bus;
mod bytes;
mod config;
mod device;
mod ic;
mod machine;
mod noise;
mod offence;
mod ring;
mod storvsp;
mod world;

pub use bus::VmbusHost;
pub use config::HostConfig;
pub use ic::{IcAnswer, IcHost};
pub use machine::{HvMachine, HvViolation};
pub use offence::HvOffence;
pub use storvsp::{Lun, Storvsp, StorvspConfig};
pub use world::{HvGuest, HvWorld};
