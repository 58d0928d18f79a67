//! SCSI, as far as a disk needs it: pure codecs.
//!
//! [`Cdb`] makes commands; [`Inquiry`], [`vpd`], [`Luns`], [`Capacity`] and
//! [`Sense`] read what comes back, out of bytes that were copied from the host.
//! Nothing in those bytes is believed: each reader checks lengths first, and an
//! error says what was wrong. Sources: SPC-4, SBC-3, SAM-5.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod capacity;
mod cdb;
mod condition;
mod error;
mod inquiry;
mod luns;
pub mod mode;
mod sense;
pub mod vpd;

pub use capacity::Capacity;
pub use cdb::{Cdb, UNMAP_BYTES, unmap_parameters};
pub use condition::{Attention, Condition};
pub use error::DataError;
pub use inquiry::{DeviceType, Inquiry};
pub use luns::{Luns, MOST_LUNS};
pub use sense::{Key, Sense, SenseError};

firn_block::open_enum! {
    /// How a command ended (SAM-5, section 5.3).
    pub enum Status: u8 {
        /// Well.
        GOOD = 0x00 => "GOOD",
        /// Sense data say how.
        CHECK_CONDITION = 0x02 => "CHECK CONDITION",
        /// Try again later.
        BUSY = 0x08 => "BUSY",
        /// Somebody else has it.
        RESERVATION_CONFLICT = 0x18 => "RESERVATION CONFLICT",
        /// Try again when something else has ended.
        TASK_SET_FULL = 0x28 => "TASK SET FULL",
        /// It was aborted.
        TASK_ABORTED = 0x40 => "TASK ABORTED",
    }
}
