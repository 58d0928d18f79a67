//! The host under the main loop: what that asks of it, whichever it is.
//!
//! One of them is chosen at boot and stays. The calls below are few and known,
//! so that each is a branch that is always taken the same way, and no table of
//! functions stands between the main loop and its disks.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use firn_block::{Completion, DiskId, Queue};
use firn_jobs::{DiskReport, Report};
use firn_power::Fault;
use firn_task::{Executor, Instant, Time, Timers};

use super::KernelDrives;
use super::hyperv::HyperVPlatform;
use super::xen::XenPlatform;

/// What one look at the host brought.
pub(crate) struct Look {
    /// The time of it.
    pub(crate) now: Instant,
    /// The timer that was set has fired.
    pub(crate) timer: bool,
    /// There is more to do at once.
    pub(crate) more: bool,
}

/// The host of this boot.
pub(crate) enum Platform {
    /// Xen, real or imitated.
    Xen(XenPlatform),
    /// Hyper-V, real or imitated.
    HyperV(HyperVPlatform),
}

/// Does the same on whichever host it is.
macro_rules! on {
    ($self:expr, $host:ident => $work:expr) => {
        match $self {
            Platform::Xen($host) => $work,
            Platform::HyperV($host) => $work,
        }
    };
}

impl Platform {
    /// The host for ever: there is one in each boot.
    pub(crate) fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// Xen, if it is.
    pub(crate) const fn xen(&self) -> Option<&XenPlatform> {
        match self {
            Self::Xen(xen) => Some(xen),
            Self::HyperV(_) => None,
        }
    }

    /// Hyper-V, if it is.
    pub(crate) const fn hyperv(&self) -> Option<&HyperVPlatform> {
        match self {
            Self::Xen(_) => None,
            Self::HyperV(hyperv) => Some(hyperv),
        }
    }

    /// Where the tasks of drivers run.
    pub(crate) fn executor(&self) -> &Rc<Executor> {
        on!(self, host => host.executor())
    }

    /// The disks, as the power code sees them.
    pub(crate) fn drives(&self) -> KernelDrives {
        match self {
            Self::Xen(xen) => KernelDrives::Xen(xen.drives()),
            Self::HyperV(hyperv) => KernelDrives::Scsi(hyperv.drives()),
        }
    }

    /// One look at everything that the host may have news of. Reads the clock
    /// once: where the hypervisor emulates the time stamp counter, a reading
    /// costs as much as a hypercall.
    pub(crate) fn look(&self) -> Look {
        on!(self, host => host.look())
    }

    /// Whether there is news that [`Platform::look`] has not seen.
    pub(crate) fn has_news(&self) -> bool {
        on!(self, host => host.has_news())
    }

    /// When the drivers want to be woken.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        on!(self, host => host.next_deadline())
    }

    /// Has the timer fire at an instant; whether the host does that.
    pub(crate) fn set_timer(&self, at: Instant) -> bool {
        on!(self, host => host.set_timer(at))
    }

    /// Halts until there is news, or the timer fires, and returns at once if
    /// that has happened since the last look.
    pub(crate) fn wait(&self) {
        on!(self, host => host.wait());
    }

    /// Hands out what the disks have completed, up to `budget` of each.
    pub(crate) fn reap(&self, budget: usize, deliver: &mut dyn FnMut(Completion)) {
        on!(self, host => host.reap(budget, deliver));
    }

    /// Asks each disk that `wanted` names for an event at its next completion.
    /// Whether none has completed something meanwhile.
    pub(crate) fn arm(&self, wanted: impl Fn(DiskId) -> bool) -> bool {
        on!(self, host => host.arm(wanted))
    }

    /// Keeps the events of a disk away whose jobs look by themselves; the next
    /// [`Queue::arm`] lets them in again.
    pub(crate) fn mask(&self, disk: DiskId) {
        on!(self, host => host.mask(disk));
    }

    /// Does something with a disk's queue; gives `value` back if there is none,
    /// or it is in use.
    pub(crate) fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        let (vbd, unit) = match self {
            Self::Xen(xen) => (xen.bus.find(disk), None),
            Self::HyperV(hyperv) => (None, hyperv.find(disk)),
        };
        let mut vbd = vbd.as_ref().and_then(|vbd| vbd.front.try_borrow_mut().ok());
        let mut unit = unit
            .as_ref()
            .and_then(|unit| unit.front.try_borrow_mut().ok());
        // The work is there once, whatever the driver.
        let queue: &mut dyn Queue = match (&mut vbd, &mut unit) {
            (Some(front), _) => &mut **front,
            (None, Some(front)) => &mut **front,
            (None, None) => return Err(value),
        };
        Ok(work(queue, value))
    }

    /// Every disk, under this boot's names.
    pub(crate) fn reports(&self) -> Vec<DiskReport> {
        on!(self, host => host.reports())
    }

    /// Whether the disks that were there at boot are connected, or have failed.
    pub(crate) fn is_settled(&self) -> bool {
        on!(self, host => host.is_settled())
    }

    /// Whether disks that come from now on connect with their gates shut.
    pub(crate) fn keep_shut(&self, shut: bool) {
        on!(self, host => host.keep_shut(shut));
    }

    /// Takes up no more devices, or takes up what came meanwhile.
    pub(crate) fn hold_devices(&self, hold: bool) {
        on!(self, host => host.hold_devices(hold));
    }

    /// Moves what is typed into `to`; how many bytes.
    pub(crate) fn read_input(&self, to: &mut [u8]) -> usize {
        on!(self, host => host.read_input(to))
    }

    /// Whether something was typed since this was last asked. Moves output on.
    pub(crate) fn has_input(&self) -> bool {
        on!(self, host => host.has_input())
    }

    /// After so long, somebody who waits for input wants a look at it, because
    /// nothing tells of it.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Xen(_) => None,
            Self::HyperV(hyperv) => hyperv.patience(),
        }
    }

    /// Leaves the host: it reaches no memory of ours any more. Every disk was
    /// disconnected before.
    ///
    /// # Errors
    /// [`Fault`]; nothing was left then that cannot be come back to.
    pub(crate) async fn leave(&self) -> Result<(), Fault> {
        match self {
            // What is left of Xen's are pages that it forgets with the domain.
            Self::Xen(_) => Ok(()),
            Self::HyperV(hyperv) => hyperv.leave().await,
        }
    }

    /// Wall clock in nanoseconds since 1970.
    pub(crate) fn wall_clock(&self) -> u64 {
        on!(self, host => host.wall_clock())
    }

    /// Looks at event flags that found some.
    pub(crate) fn events(&self) -> u64 {
        on!(self, host => host.events())
    }

    /// Hands the lines of a report to `line`.
    pub(crate) fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
        on!(self, host => host.report(report, line));
    }
}

impl Time for Platform {
    fn now(&self) -> Instant {
        on!(self, host => host.now())
    }

    fn timers(&self) -> &Timers {
        on!(self, host => host.timers())
    }
}
