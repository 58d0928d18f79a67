//! A machine on Hyper-V: disks are units of SCSI controllers, one each or all of
//! one.

use crate::fault::{Kind, connects};
use firn_block::{Completion, DiskId};
use firn_hyperv::storvsc::{ControllerConfig, ScsiBus};
use firn_hyperv::vmbus::{Vmbus, VmbusConfig};
use firn_hyperv::wire::{vmbus, vstor};
use firn_hyperv::{Hal, HyperV};
use firn_peers::Disk;
use firn_peers::hyperv::{
    HostConfig, HvMachine, HvOffence, HvWorld, Lun, Storvsp, StorvspConfig, VmbusHost,
};
use firn_power::{Fault, Step};
use firn_task::Instant;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Pages that drivers and image code may take: enough for what they need.
const PAGES: usize = 480;
/// Pages of a ring; the default is for larger machines.
const RING: usize = 9;
/// How long a step of a handshake may take: hosts are quick here, or hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a controller is away that the host took back.
const AWAY: Duration = Duration::from_millis(50);
/// Sectors of a disk without room for anything.
const SMALL: u64 = 144;

/// A guest on Hyper-V.
pub struct HvSide {
    /// The machine that the drivers see.
    pub machine: HvMachine,
    /// The VMBus host.
    pub host: VmbusHost,
    /// What its drivers share.
    pub hv: Rc<HyperV<HvMachine>>,
    /// Its bus.
    pub bus: Rc<Vmbus<HvMachine>>,
    /// Its controllers.
    pub scsi: Rc<ScsiBus<HvMachine>>,
    /// The disks as units.
    pub plugs: Vec<ScsiPlug>,
    pub(super) world: RefCell<HvWorld>,
    done: Rc<RefCell<Vec<Completion>>>,
}

/// One disk and where it is plugged.
pub struct ScsiPlug {
    /// Which of the machine's disks it is.
    pub id: DiskId,
    /// Its name in this boot.
    pub present: DiskId,
    storvsp: Storvsp,
    /// The controller's number at the host, and the disk's on the controller.
    place: (usize, u8),
    disk: Disk,
    capacity: u64,
    wrong: Cell<Option<Kind>>,
    /// The LUN was taken out.
    gone: Cell<bool>,
    /// When a controller that was taken back is offered again.
    again: Cell<Option<Instant>>,
}

fn host(rng: &mut SmallRng) -> HostConfig {
    let versions = vmbus::Version::ALL;
    let version = versions[rng.random_range(0..versions.len())];
    HostConfig {
        first_relid: rng.random_range(1..1000),
        dedicated: rng.random(),
        short_answers: rng.random(),
        ..HostConfig::only(version)
    }
}

fn storvsp(controller: u8, rng: &mut SmallRng) -> StorvspConfig {
    let versions = vstor::Version::ALL;
    StorvspConfig {
        max_transfer: [0x4000, 0x8000, 0x1_1000][rng.random_range(0..3)],
        // A VM that was made anew has other controllers.
        instance: std::array::from_fn(|at| if at == 0 { controller } else { rng.random() }),
        reversed: rng.random(),
        delay: rng.random_range(0..3),
        subchannels: rng.random_range(0..4),
        ..StorvspConfig::only(versions[rng.random_range(0..versions.len())])
    }
}

/// A disk as a unit.
fn lun(id: DiskId, disk: &Disk) -> Lun {
    Lun::new(disk.clone()).named(0x6000 + u64::from(id.0))
}

impl HvSide {
    pub(super) fn new(
        disks: &[(DiskId, Disk)],
        rng: &mut SmallRng,
        prepare: impl FnOnce(&HvMachine),
    ) -> Self {
        // Drawn aside: the fault table's seeds stand for controllers that it knows.
        let mut aside = rng.clone();
        let config = HostConfig {
            monitors: aside.random(),
            ..host(rng)
        };
        let mut world = HvWorld::new(config);
        let machine = world.machine.clone();
        prepare(&machine);
        machine.limit_memory(PAGES);
        let shared = rng.random();
        let mut plugs = Vec::new();
        for (number, (id, disk)) in (0u8..).zip(disks) {
            let controller = if shared { 0 } else { usize::from(number) };
            if controller == world.storvsps.len() {
                world.plug(storvsp(number, rng));
            }
            let storvsp = world.storvsps[controller].clone();
            storvsp.plug(number, lun(*id, disk));
            plugs.push(ScsiPlug {
                id: *id,
                // By controller, then by unit.
                present: DiskId::scsi(number.into()),
                storvsp,
                place: (controller, number),
                disk: disk.clone(),
                capacity: disk.capacity(),
                wrong: Cell::new(None),
                gone: Cell::new(false),
                again: Cell::new(None),
            });
        }
        let config = ControllerConfig {
            ring_pages: RING,
            depth: 32,
            deadline: PATIENCE,
            ..ControllerConfig::default()
        };
        let bus = VmbusConfig {
            monitored: aside.random(),
            ..VmbusConfig::default()
        };
        world.start(bus, config);
        let done = Rc::new(RefCell::default());
        if let Some(guest) = &mut world.guest {
            guest.deliver = Some(Rc::clone(&done));
        }
        let (host, guest) = (world.host.clone(), world.guest());
        Self {
            host,
            hv: guest.hv.clone(),
            bus: guest.bus.clone(),
            scsi: guest.scsi.clone(),
            plugs,
            done,
            world: RefCell::new(world),
            machine,
        }
    }

    /// As [`XenSide::turn`](super::XenSide).
    pub(super) fn turn(&self) -> bool {
        let moved = {
            let mut world = self.world.borrow_mut();
            let moved = world.host_turn();
            let now = self.machine.now();
            self.plugs
                .iter()
                .for_each(|plug| plug.tend(&self.host, now));
            if let Some(guest) = &mut world.guest {
                guest.pass();
            }
            moved
        };
        self.done.take().into_iter().for_each(super::deliver);
        moved
    }

    /// Leaves the bus.
    pub(super) async fn leave(&self) -> Result<(), Fault> {
        let other = |error: String| Fault::Other(error);
        let idle = self.scsi.disconnect_idle().await;
        idle.map_err(|error| other(error.to_string()))?;
        self.bus
            .unload()
            .await
            .map_err(|error| other(error.to_string()))
    }

    /// Everything there is when nothing is wrong.
    pub(crate) fn provide(&self) {
        self.machine.limit_memory(PAGES);
        self.machine.refuse_posts(0);
        self.host.forgive(HvOffence::RefusesOpen);
    }

    /// The machine has nothing left of something, or all its disks were reset.
    pub(crate) fn fall_short(&self, kind: Kind) {
        match kind {
            Kind::NoMemory => self.machine.limit_memory(0),
            Kind::NoGrants => self.machine.refuse_posts(u32::MAX),
            Kind::NoChannel => self.host.offend(HvOffence::RefusesOpen),
            _ => {
                let plugs = self.plugs.iter();
                plugs.for_each(|plug| plug.storvsp.attention(plug.place.1, 0x29, 0));
            }
        }
    }

    /// The guest has ended: the host may still carry out what it was told of.
    pub(super) fn lose_guest(&self, rng: &mut SmallRng) {
        if rng.random() {
            self.world.borrow_mut().host_turn();
        }
        self.plugs.iter().for_each(ScsiPlug::lose_guest);
    }

    pub(super) fn offence(&self) -> Option<String> {
        let violation = self.machine.violations().first().map(|v| format!("{v:?}"));
        violation.or_else(|| self.host.complaints().into_iter().next())
    }
}

impl ScsiPlug {
    /// Does to the disk, or to its controller, what makes `kind` happen in `step`.
    pub(super) fn afflict(&self, host: &VmbusHost, kind: Kind, step: Step) {
        self.wrong.set(Some(kind));
        match kind {
            Kind::Error | Kind::NoSpace => match step {
                Step::ConnectImage | Step::Reconnect => host.offend(HvOffence::RefusesBegin),
                _ => self.disk.fail_after(Some(0)),
            },
            Kind::Effect => {
                host.offend(HvOffence::SaysFailed);
                self.disk.fail_after(Some(1));
            }
            Kind::Timeout if !connects(step) => self.storvsp.allow(Some(0)),
            Kind::Timeout | Kind::Hangs => host.hang(true),
            Kind::Gone => {
                self.gone.set(true);
                self.storvsp.unplug(self.place.1);
            }
            Kind::Closes => {
                host.rescind(self.place.0);
                self.again.set(Some(Instant::from_nanos(u64::MAX)));
            }
            Kind::KeepsPages => host.offend(HvOffence::NeverTearsDown),
            Kind::Breaks => host.offend(HvOffence::UnknownTransaction),
            // The machine's, or Xen's.
            Kind::NoMemory | Kind::NoGrants | Kind::NoChannel | Kind::Reset => {}
        }
    }

    /// As [`Plug::next_step`](crate::plug::Plug::next_step).
    pub(super) fn next_step(&self, host: &VmbusHost, step: Step) {
        match self.wrong.get() {
            Some(Kind::Timeout) if !connects(step) => {}
            Some(Kind::Hangs | Kind::KeepsPages | Kind::Breaks) => {}
            _ => self.recover(host),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Nothing is wrong any more, but for what is gone.
    pub(super) fn recover(&self, host: &VmbusHost) {
        if self.wrong.take().is_some() {
            self.disk.fail_after(None);
            self.storvsp.allow(None);
            host.hang(false);
            host.behave();
        }
    }

    /// A controller that was taken back is offered again, after a while.
    fn tend(&self, host: &VmbusHost, now: Instant) {
        match self.again.get() {
            Some(then) if then == Instant::from_nanos(u64::MAX) => {
                self.again.set(Some(now + AWAY));
            }
            Some(then) if now >= then => {
                self.again.set(None);
                host.offer_again(self.place.0);
            }
            _ => {}
        }
    }

    /// The disk has no room for anything, or its room again; who is connected is
    /// told if `loud`.
    pub(super) fn shrink(&self, small: bool, loud: bool) {
        let capacity = if small { SMALL } else { self.capacity };
        if self.disk.capacity() == capacity || self.gone.get() {
            return;
        }
        self.disk.set_capacity(capacity);
        if loud {
            self.storvsp.plug(self.place.1, lun(self.id, &self.disk));
        }
    }

    /// The guest has ended: what it had asked for is not carried out any more.
    pub(super) fn lose_guest(&self) {
        self.disk.fail_after(None);
        self.disk.set_capacity(self.capacity);
    }
}
