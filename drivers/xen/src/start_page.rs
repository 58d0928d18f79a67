//! The pages that the toolstack made for a new domain: store and console.

use crate::hal::{Hal, HalExt};
use crate::wire::Gfn;
use crate::wire::errno::Errno;
use crate::wire::event_channel::Port;
use core::fmt;
use firn_block::shm::Region;

/// The HVM parameters of such a page, with their names.
pub(crate) struct StartPage {
    pub(crate) frame: (&'static str, u32),
    pub(crate) port: (&'static str, u32),
}

/// A page of the toolstack's cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPageError {
    /// An HVM parameter could not be read.
    Param {
        /// Such as `STORE_PFN`.
        name: &'static str,
        /// What Xen said.
        errno: Errno,
    },
    /// The toolstack made no such page: the named parameter is 0.
    Absent(&'static str),
    /// The toolstack says that it comes later: try again.
    NotYet(&'static str),
    /// The frame that the named parameter gives cannot be reached.
    Unreachable(&'static str, u64),
}

impl fmt::Display for StartPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param { name, errno } => write!(f, "Xen did not tell {name}: {errno}"),
            Self::Absent(name) => write!(
                f,
                "{name} is 0: the toolstack that built this domain must set it up"
            ),
            Self::NotYet(name) => write!(f, "{name} is not set yet"),
            Self::Unreachable(name, frame) => write!(f, "frame {frame:#x} ({name}) is not mapped"),
        }
    }
}

impl core::error::Error for StartPageError {}

impl StartPage {
    /// The page and its event channel, which is not adopted yet.
    pub(crate) fn find(&self, hal: &impl Hal) -> Result<(Region, Port), StartPageError> {
        let frame = param(hal, self.frame)?;
        let port = param(hal, self.port)?;
        let page = hal.map_frames(Gfn(frame), 1);
        let page = page.ok_or(StartPageError::Unreachable(self.frame.0, frame))?;
        // Too large a number is refused when the port is adopted.
        Ok((page, Port(u32::try_from(port).unwrap_or(u32::MAX))))
    }
}

fn param(hal: &impl Hal, (name, index): (&'static str, u32)) -> Result<u64, StartPageError> {
    match hal.hvm_param(index) {
        Err(errno) => Err(StartPageError::Param { name, errno }),
        Ok(0) => Err(StartPageError::Absent(name)),
        Ok(u64::MAX) => Err(StartPageError::NotYet(name)),
        Ok(value) => Ok(value),
    }
}
