//! The Hyper-V drivers against a VMBus host and storvsp.

mod bus;
mod clock;
mod disks;
mod freeze;
mod halfway;
mod ic;
mod io;
mod matrix;
mod noise;
mod offences;
mod steady;
mod subchannels;
