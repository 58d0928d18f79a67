//! The machine under a boot: a guest on Xen, or one on Hyper-V, with the same
//! disks.

mod hyperv;
mod xen;

pub use hyperv::{HvSide, ScsiPlug};
pub use xen::XenSide;

use crate::boot;
use crate::fault::Kind;
use firn_block::gate::Lifecycle;
use firn_block::shm::Region;
use firn_block::{Completion, DataPath, DiskId, DiskInfo, Queue, Stats};
use firn_kernel::drives::{AnyDrives, ScsiDrives, XenDrives};
use firn_peers::hyperv::HvMachine;
use firn_peers::{Disk, FakeMachine};
use firn_power::{Fault, Step};
use firn_task::{Executor, Instant, Time, Timers};
use rand::RngExt;
use rand::rngs::SmallRng;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// The disks of a machine.
pub type SimDrives = AnyDrives<FakeMachine, HvMachine>;

/// Whose guest a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// Xen's.
    Xen,
    /// Hyper-V's.
    HyperV,
}

impl Hypervisor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xen, Self::HyperV];

    /// One of them.
    pub fn draw(rng: &mut SmallRng) -> Self {
        Self::ALL[usize::from(rng.random::<bool>())]
    }

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Xen => Self::HyperV,
            Self::HyperV => Self::Xen,
        }
    }
}

impl fmt::Display for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xen => "Xen",
            Self::HyperV => "Hyper-V",
        })
    }
}

/// The machine of one boot.
pub enum Side {
    /// On Xen.
    Xen(XenSide),
    /// On Hyper-V.
    HyperV(HvSide),
}

/// Whoever submitted hears of it.
fn deliver(completion: Completion) {
    if let Some(boot) = boot::current() {
        boot.deliver(completion);
    }
}

/// What is said of a disk's data path.
pub struct Front {
    /// The disk's name in this boot.
    pub id: DiskId,
    /// Where it is in its life.
    pub state: Lifecycle,
    /// What it is.
    pub info: DiskInfo,
    /// Its counters.
    pub stats: Stats,
    /// Requests of jobs that have not ended.
    pub in_flight: usize,
}

impl Front {
    fn of(path: &mut impl DataPath) -> Self {
        Self {
            id: path.disk().id,
            state: path.look(),
            info: path.disk().clone(),
            stats: *path.stats(),
            in_flight: path.in_flight(),
        }
    }
}

impl Side {
    /// A machine at an instant, with memory that outlives it.
    pub fn new(
        hypervisor: Hypervisor,
        disks: &[(DiskId, Disk)],
        memory: &Region,
        now: Instant,
        rng: &mut SmallRng,
    ) -> Self {
        match hypervisor {
            Hypervisor::Xen => Self::Xen(XenSide::new(disks, rng, |machine| {
                machine.advance(now.since(firn_xen::Hal::now(machine)));
                machine.lend_memory(memory);
            })),
            Hypervisor::HyperV => Self::HyperV(HvSide::new(disks, rng, |machine| {
                machine.advance(now.since(firn_hyperv::Hal::now(machine)));
                machine.lend_memory(memory);
            })),
        }
    }

    /// A guest on Xen.
    ///
    /// # Panics
    /// When it is none.
    pub fn xen(&self) -> &XenSide {
        match self {
            Self::Xen(side) => side,
            Self::HyperV(_) => panic!("it is a guest on Hyper-V"),
        }
    }

    /// The disks as a freeze sees them.
    pub fn drives(&self) -> SimDrives {
        match self {
            Self::Xen(side) => SimDrives::Xen(XenDrives::new(&side.xen, &side.bus)),
            Self::HyperV(side) => SimDrives::Scsi(ScsiDrives::new(&side.hv, &side.scsi)),
        }
    }

    /// The tasks of its drivers.
    pub fn tasks(&self) -> Rc<Executor> {
        match self {
            Self::Xen(side) => side.world.borrow().guest().executor.clone(),
            Self::HyperV(side) => side.world.borrow().guest().executor.clone(),
        }
    }

    /// What a disk of the machine is called in this boot.
    pub fn present(&self, disk: DiskId) -> DiskId {
        match self {
            Self::Xen(_) => disk,
            Self::HyperV(side) => {
                let plug = side.plugs.iter().find(|plug| plug.id == disk);
                plug.map_or(disk, |plug| plug.present)
            }
        }
    }

    /// Which disk of the machine is called that in this boot.
    pub fn disk(&self, present: DiskId) -> DiskId {
        match self {
            Self::Xen(_) => present,
            Self::HyperV(side) => {
                let plug = side.plugs.iter().find(|plug| plug.present == present);
                plug.map_or(present, |plug| plug.id)
            }
        }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        match self {
            Self::Xen(side) => firn_xen::Hal::now(&side.machine),
            Self::HyperV(side) => firn_hyperv::Hal::now(&side.machine),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        match self {
            Self::Xen(side) => side.machine.advance(by),
            Self::HyperV(side) => side.machine.advance(by),
        }
    }

    /// What its drivers wait for.
    pub fn timers(&self) -> &Timers {
        match self {
            Self::Xen(side) => &side.xen.timers,
            Self::HyperV(side) => side.hv.timers(),
        }
    }

    /// When a driver has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Xen(side) => side.xen.next_deadline(),
            Self::HyperV(side) => side.hv.timers.next_deadline(),
        }
    }

    /// One round of the host's, and one of the drivers'. Whether the host did
    /// anything.
    pub fn turn(&self) -> bool {
        match self {
            Self::Xen(side) => side.turn(),
            Self::HyperV(side) => side.turn(),
        }
    }

    /// Whether disks that come from now on stay shut.
    pub fn keep_shut(&self, shut: bool) {
        match self {
            Self::Xen(side) => side.bus.keep_shut(shut),
            Self::HyperV(side) => side.scsi.keep_shut(shut),
        }
    }

    /// A freeze goes by the list of disks that it began with.
    pub fn hold(&self, hold: bool) {
        match self {
            Self::Xen(side) if hold => side.bus.freeze(),
            Self::Xen(side) => side.bus.thaw(),
            Self::HyperV(side) => side.scsi.hold(hold),
        }
    }

    /// Disconnects what is left once every disk is disconnected.
    ///
    /// # Errors
    /// What does not let go.
    pub async fn leave(&self) -> Result<(), Fault> {
        match self {
            Self::Xen(_) => Ok(()),
            Self::HyperV(side) => side.leave().await,
        }
    }

    /// Whether every disk has come.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Xen(side) => side.bus.is_settled(),
            Self::HyperV(side) => side.scsi.is_settled(),
        }
    }

    /// Every disk's data path.
    pub fn fronts(&self) -> Vec<Front> {
        match self {
            Self::Xen(side) => {
                let vbds = side.bus.vbds();
                let fronts = vbds.iter();
                fronts
                    .map(|vbd| Front::of(&mut *vbd.front.borrow_mut()))
                    .collect()
            }
            Self::HyperV(side) => {
                let mut fronts = Vec::new();
                side.scsi
                    .for_each(|unit| fronts.push(Front::of(&mut *unit.front.borrow_mut())));
                fronts
            }
        }
    }

    /// Where a disk is in its life, by its name in this boot.
    pub fn state(&self, present: DiskId) -> Option<Lifecycle> {
        match self {
            Self::Xen(side) => Some(side.bus.find(present)?.state()),
            Self::HyperV(side) => Some(side.scsi.find(present)?.state()),
        }
    }

    /// Runs `work` on the jobs' queue of a disk, with a value that comes back if
    /// that cannot be had.
    ///
    /// # Errors
    /// The value.
    pub fn with_queue<T, R>(
        &self,
        present: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        match self {
            Self::Xen(side) => {
                let Some(vbd) = side.bus.find(present) else {
                    return Err(value);
                };
                match vbd.front.try_borrow_mut() {
                    Ok(mut front) => Ok(work(&mut *front, value)),
                    Err(_) => Err(value),
                }
            }
            Self::HyperV(side) => {
                let Some(unit) = side.scsi.find(present) else {
                    return Err(value);
                };
                match unit.front.try_borrow_mut() {
                    Ok(mut front) => Ok(work(&mut *front, value)),
                    Err(_) => Err(value),
                }
            }
        }
    }

    /// A rule that the drivers broke.
    pub fn offence(&self) -> Option<String> {
        match self {
            Self::Xen(side) => {
                let complaints = side.plugs.iter().flat_map(|plug| plug.back.complaints());
                let violations = side.machine.violations();
                let violation = violations.first().map(|v| format!("{v:?}"));
                violation.or_else(|| complaints.into_iter().next())
            }
            Self::HyperV(side) => side.offence(),
        }
    }

    /// What the host still has of the guest's: what it reaches or was told of, and ways
    /// to signal.
    pub fn held(&self) -> [usize; 2] {
        match self {
            Self::Xen(side) => [
                side.machine.live_grants().len() + side.xen.grants.set_aside(),
                side.machine.open_ports().len(),
            ],
            Self::HyperV(side) => [side.machine.shared_pages(), side.host.open_channels()],
        }
    }

    /// Does to a disk what makes `kind` happen in `step`; by its name in this boot.
    pub fn afflict(&self, present: DiskId, kind: Kind, step: Step) {
        match self {
            Self::Xen(side) => {
                let named = |plug: &&crate::plug::Plug| plug.id == present && !plug.back.is_gone();
                let plugs = side.plugs.iter().filter(named);
                plugs.for_each(|plug| plug.afflict(kind, step));
            }
            Self::HyperV(side) => {
                let named = |plug: &&ScsiPlug| plug.present == present && !plug.is_gone();
                let plugs = side.plugs.iter().filter(named);
                plugs.for_each(|plug| plug.afflict(&side.host, kind, step));
            }
        }
    }

    /// Another step begins.
    pub fn next_step(&self, step: Step) {
        match self {
            Self::Xen(side) => side.plugs.iter().for_each(|plug| plug.next_step(step)),
            Self::HyperV(side) => {
                let plugs = side.plugs.iter();
                plugs.for_each(|plug| plug.next_step(&side.host, step));
            }
        }
    }

    /// Nothing is wrong with any disk any more, but for what is gone.
    pub fn recover(&self) {
        match self {
            Self::Xen(side) => side.plugs.iter().for_each(crate::plug::Plug::recover),
            Self::HyperV(side) => {
                let plugs = side.plugs.iter();
                plugs.for_each(|plug| plug.recover(&side.host));
            }
        }
    }

    /// The size of one of the machine's disks: too small for anything, or its own.
    pub fn shrink(&self, disk: DiskId, small: bool, loud: bool) {
        match self {
            Self::Xen(side) => {
                let plugs = side.plugs.iter().filter(|plug| plug.id == disk);
                plugs.for_each(|plug| plug.shrink(small, loud));
            }
            Self::HyperV(side) => {
                let plugs = side.plugs.iter().filter(|plug| plug.id == disk);
                plugs.for_each(|plug| plug.shrink(small, loud));
            }
        }
    }

    /// The guest has ended; some of what it had asked for may still be done.
    pub fn lose_guest(&self, rng: &mut SmallRng) {
        match self {
            Self::Xen(side) => side.plugs.iter().for_each(|plug| plug.lose_guest(rng)),
            Self::HyperV(side) => side.lose_guest(rng),
        }
    }
}
