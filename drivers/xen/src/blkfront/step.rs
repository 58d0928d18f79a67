//! Why a step of a freeze was not done.

use super::connect::ConnectError;

pub use firn_block::{Busy, DiskStep};

/// A step that failed: which disk, which step, why.
pub type StepError = firn_block::StepError<ConnectError>;

/// Why a step was not done.
pub type WhyNot = firn_block::WhyNot<ConnectError>;
