//! The simulator: a whole guest, disks that lose what was not flushed, and
//! power that fails at any moment.
//!
//! A [`life`] is a machine with a data disk and an image disk; its [`script`]
//! comes from a seed. The machine runs firn's own code: the jobs' channels and
//! executor in job memory of its own ([`memory`]), `firn-power`, `firn-image`,
//! the kernel's half of it that is about disks, and the drivers of the hypervisor
//! that this boot is on ([`side`]). What is simulated is the other end of every
//! ring (it is the peers' code) and what is around it ([`boot`]). A [`witness`] that outlives every boot knows
//! what must never be.
//!
//! [`model`] explores the protocol itself, [`states`] every state that a power
//! cut may leave of what the real code wrote, [`table`] every fault point, [`vmbus`]
//! those of the bus that disks on Hyper-V are on.
#![deny(unsafe_code)]

pub mod boot;
pub mod campaign;
pub mod count;
pub mod fault;
pub mod host;
pub mod life;
pub mod machine;
pub mod memory;
pub mod model;
pub mod plug;
pub mod script;
pub mod side;
pub mod states;
pub mod table;
pub mod trouble;
pub mod vmbus;
pub mod witness;
pub mod writer;
