//! Xen suspend: the host takes the memory as it is, and gives it back on the
//! same host (cancelled, or a checkpoint) or on another one.
//!
//! Nothing is drained: what is in flight waits, and is issued again. On a new
//! host everything that Xen or a backend knew of this domain is gone: the drivers
//! take up their parts in the order in which they stand on each other.

use crate::Xen;
use crate::blkfront::StepError;
use crate::bus::Bus;
use crate::console::{Console, ConsoleError};
use crate::hal::Hal;
use crate::hypercall::Hypercall;
use crate::machine::SetupError;
use crate::store::{Store, StoreError};
use crate::wire::errno::Errno;
use crate::wire::misc::{SchedShutdown, ShutdownReason};
use core::fmt;

/// How a suspend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// On the same host; everything is as it was.
    Cancelled,
    /// On a new one; disks connect again by themselves.
    Resumed,
}

/// A suspend that did not happen, or a new host that cannot be lived on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuspendError {
    /// A disk is in the middle of a freeze. Nothing has happened.
    Disk(StepError),
    /// Xen refused. Nothing has happened.
    Refused(Errno),
    /// The new host's pages cannot be had: the machine cannot go on.
    Pages(SetupError),
    /// What the kernel had to do on the new host failed: it says what.
    Machine(&'static str),
    /// There is no xenstore on the new host, so no disk either.
    Store(StoreError),
}

impl fmt::Display for SuspendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "not suspended: {error}"),
            Self::Refused(errno) => write!(f, "not suspended: Xen says {errno}"),
            Self::Pages(error) => write!(f, "the new host: {error}"),
            Self::Machine(what) => write!(f, "the new host: {what}"),
            Self::Store(error) => write!(f, "the new host: {error}"),
        }
    }
}

impl core::error::Error for SuspendError {}

/// Everything of this domain that a new host has to be told of.
pub struct Parts<'a, H: Hal> {
    /// The hypervisor's pages.
    pub xen: &'a Xen<H>,
    /// Xenstore.
    pub store: &'a Store<H>,
    /// The console, if there is one.
    pub console: Option<&'a Console<H>>,
    /// The devices.
    pub bus: &'a Bus<H>,
}

impl<H: Hal + 'static> Parts<'_, H> {
    /// Lets the host take the memory; returns when it is running again. To be
    /// called between two looks at anything, with no driver borrowed.
    ///
    /// `machine` is called on a new host when the shared info page is there and
    /// before anything else is used: it takes up the kernel's own part (clock,
    /// timer, upcall), and says what failed.
    ///
    /// A console that the new host does not have is no reason to stop: the
    /// result tells of it.
    ///
    /// # Errors
    /// [`SuspendError`] says whether anything has happened.
    pub fn suspend(
        &self,
        machine: impl FnOnce() -> Result<(), &'static str>,
    ) -> Result<(Suspended, Option<ConsoleError>), SuspendError> {
        self.bus.suspend().map_err(SuspendError::Disk)?;
        let reason = ShutdownReason::SUSPEND.0;
        let suspend = SchedShutdown { reason };
        match self.xen.hal.hypercall(Hypercall::Shutdown(&suspend)) {
            Ok(0) => {}
            Ok(_) => {
                self.bus.cancel_suspend();
                return Ok((Suspended::Cancelled, None));
            }
            Err(errno) => {
                self.bus.cancel_suspend();
                return Err(SuspendError::Refused(errno));
            }
        }
        self.xen.resume().map_err(SuspendError::Pages)?;
        machine().map_err(SuspendError::Machine)?;
        let console = self.console.and_then(|console| console.resume().err());
        // The disks before the store: its watches wake their tasks.
        self.bus.resume();
        self.store.resume().map_err(SuspendError::Store)?;
        Ok((Suspended::Resumed, console))
    }
}
