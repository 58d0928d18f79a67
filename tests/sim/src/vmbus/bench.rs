//! A guest of Hyper-V with two disks on one controller and one on another, and what
//! may be done to it.

use super::{BusStep, LONG, PAGES};
use firn_block::gate::Lifecycle;
use firn_block::{Completion, Op, PAGE, Queue, Request, Unregistered};
use firn_hyperv::Hal;
use firn_hyperv::storvsc::{ControllerConfig, Unit};
use firn_hyperv::vmbus::VmbusConfig;
use firn_peers::hyperv::{HostConfig, HvMachine, HvOffence, HvWorld, Lun, Storvsp, StorvspConfig};
use firn_peers::{Disk, SECTORS};
use std::rc::Rc;
use std::time::Duration;

/// How long a disk may be left alone that was too busy.
const PAUSE: Duration = Duration::from_secs(1);

/// Rounds until a request is answered: so many are under way when a freeze begins.
const DELAY: u64 = 8;

/// Further channels of each controller.
const SUBCHANNELS: u16 = 2;

/// The guest and its host.
pub(super) struct Bench {
    pub(super) world: HvWorld,
    pub(super) disks: [Disk; 3],
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut world = HvWorld::new(HostConfig::default());
        let disks = [(); 3].map(|()| Disk::new(SECTORS));
        for (instance, units) in [([1; 16], 0..2_u8), ([2; 16], 2..3)] {
            let config = StorvspConfig {
                instance,
                delay: DELAY,
                subchannels: SUBCHANNELS,
                ..StorvspConfig::default()
            };
            let storvsp = world.plug(config);
            for unit in units {
                let disk = disks[usize::from(unit)].clone();
                storvsp.plug(unit, Lun::new(disk).named(0x100 + u64::from(unit)));
            }
        }
        world.start(VmbusConfig::default(), ControllerConfig::default());
        world.settle();
        let channels = |at| world.controller(at).channels();
        assert_eq!(
            [channels(0), channels(1)],
            [1 + usize::from(SUBCHANNELS); 2]
        );
        let live = (0..3).all(|disk| world.is_live(disk));
        assert!(live, "{}", world.failure());
        Self { world, disks }
    }

    /// The first controller.
    pub(super) fn first(&self) -> &Storvsp {
        &self.world.storvsps[0]
    }

    pub(super) fn offend(&self, offence: HvOffence) {
        self.world.host.offend(offence);
    }

    /// The host takes the first controller back.
    pub(super) fn take_back(&mut self) {
        self.world.host.rescind(0);
        self.world.settle();
    }

    /// The first controller's host makes so many further channels from now on, and
    /// says that there may be so many.
    pub(super) fn make_subchannels(&self, says: u16, makes: u16) {
        self.first().make_subchannels(says, makes);
    }

    /// The host takes one of the first controller's further channels back.
    pub(super) fn take_subchannel(&self) {
        self.world.host.rescind_subchannel(0, 1);
    }

    /// The first disk is taken out, and everybody sees it.
    pub(super) fn take_out(&mut self) {
        self.first().unplug(0);
        self.world.settle();
    }

    pub(super) fn offer_again(&mut self) {
        self.take_back();
        self.world.host.offer_again(0);
    }

    /// The first controller is another one, with the same disks.
    pub(super) fn rename(&mut self) {
        self.take_back();
        let config = StorvspConfig {
            instance: [9; 16],
            ..StorvspConfig::default()
        };
        self.world.plug(config);
    }

    /// Another disk is plugged where the first one was.
    pub(super) fn exchange(&self) {
        let lun = Lun::new(Disk::new(SECTORS)).named(0x999);
        self.first().plug(0, lun);
    }

    /// The first disk is plugged as another unit.
    pub(super) fn renumber(&self) {
        self.first().unplug(0);
        let lun = Lun::new(self.disks[0].clone()).named(0x100);
        self.first().plug(3, lun);
    }

    /// The kernel sends something of its own that is not answered.
    pub(super) fn leave_one_unanswered(&self) {
        self.first().allow(Some(0));
        let unit = self.world.unit(0);
        let mut front = unit.front.borrow_mut();
        if let Ok(token) = front.private().submit(Request::flush()) {
            token.abandon();
        }
        front.kick();
    }

    /// Somebody shut the first disk already.
    pub(super) fn shut_one(&self) {
        let _ = self.world.unit(0).shut();
    }

    /// Nothing goes wrong any more.
    pub(super) fn mend(&self) {
        let world = &self.world;
        world.host.behave();
        world.host.hang(false);
        world.host.unload_takes(Duration::ZERO);
        world.machine.refuse_posts(0);
        world.machine.limit_memory(PAGES);
        world.machine.withhold_hypercalls(false);
        world.storvsps.iter().for_each(|s| s.allow(None));
        self.disks.iter().for_each(|disk| disk.fail_after(None));
    }

    /// Every disk that the drivers know.
    pub(super) fn units(&self) -> Vec<Rc<Unit<HvMachine>>> {
        let controllers = self.world.guest().scsi.controllers();
        controllers.iter().flat_map(|c| c.units()).collect()
    }

    /// A step of those disks that are live, or were when it was shut.
    pub(super) fn live(&mut self, step: BusStep) -> Result<(), String> {
        let units = self.units().into_iter();
        let connected = |state| matches!(state, Lifecycle::Live | Lifecycle::Freezing);
        let units: Vec<_> = units.filter(|unit| connected(unit.state())).collect();
        let until = self.world.machine.now() + LONG;
        let work = async move {
            for unit in units {
                match step {
                    BusStep::Shut => unit.shut(),
                    BusStep::Drain => unit.drain(until).await,
                    BusStep::Flush => unit.flush(until).await,
                    _ => unit.check_idle(),
                }?;
            }
            Ok(())
        };
        let taken = self.world.finish(work).0;
        taken.map_err(|error: firn_hyperv::storvsc::StepError| error.to_string())
    }

    /// The first sectors of a disk, once everything of before has ended.
    pub(super) fn read(&mut self, disk: u32, bytes: usize) -> Result<Vec<u8>, String> {
        self.end_all(disk)?;
        let buffer = self.world.buffer(disk, bytes.div_ceil(PAGE));
        let request = Request::data(Op::Read, 0, buffer, bytes);
        let token = self.world.submit(disk, request);
        token.map_err(|refused| refused.why.to_string())?.abandon();
        let mut done = self.end_all(disk)?;
        let done = done.pop().filter(|_| done.is_empty());
        let done = done.ok_or_else(|| format!("disk {disk}: not one request ended"))?;
        done.result
            .map_err(|error| format!("disk {disk}: {error}"))?;
        let mut data = vec![0; bytes];
        let buffer = done.request.buffer.ok_or("no buffer comes back")?;
        buffer.region().copy_out(0, &mut data);
        let freed = self.world.unit(disk).front.borrow_mut().unregister(buffer);
        if let Unregistered::Free(region) = freed {
            self.world.machine.free_shared(region);
        }
        Ok(data)
    }

    /// What a disk has in flight comes to its end, perhaps after a pause.
    fn end_all(&mut self, disk: u32) -> Result<Vec<Completion>, String> {
        let mut done = self.world.drain(disk);
        self.world.run_for(PAUSE);
        done.extend(self.world.drain(disk));
        match self.world.unit(disk).front.borrow().in_flight() {
            0 => Ok(done),
            left => Err(format!("disk {disk}: {left} requests never end")),
        }
    }
}
