//! A machine on Xen: each disk has a backend.

use crate::plug::Plug;
use crate::trouble::{self, Shortage};
use firn_block::DiskId;
use firn_peers::{Disk, FakeMachine, Peer, World, XenStored};
use firn_xen::blkfront::VbdConfig;
use firn_xen::bus::Bus;
use firn_xen::{Hal, Xen};
use rand::rngs::SmallRng;
use std::cell::RefCell;
use std::rc::Rc;

/// A guest on Xen.
pub struct XenSide {
    /// The machine that the drivers see.
    pub machine: FakeMachine,
    /// Its store daemon.
    pub store: XenStored,
    /// What its drivers share.
    pub xen: Rc<Xen<FakeMachine>>,
    /// Its devices.
    pub bus: Rc<Bus<FakeMachine>>,
    /// The disks' backends.
    pub plugs: Vec<Plug>,
    /// What is short.
    pub shortage: Shortage,
    pub(super) world: RefCell<World>,
}

impl XenSide {
    pub(super) fn new(
        disks: &[(DiskId, Disk)],
        rng: &mut SmallRng,
        prepare: impl FnOnce(&FakeMachine),
    ) -> Self {
        let mut world = World::new();
        let machine = world.machine.clone();
        prepare(&machine);
        trouble::provide(&machine);
        let plugs = disks
            .iter()
            .map(|(id, disk)| Plug::new(&mut world, *id, disk, rng))
            .collect();
        world.start(VbdConfig::default());
        if let Some(guest) = &mut world.guest {
            guest.deliver = Some(Box::new(super::deliver));
        }
        let (store, guest) = (world.store.clone(), world.guest());
        Self {
            store,
            xen: guest.xen.clone(),
            bus: guest.bus.clone(),
            plugs,
            shortage: Shortage::default(),
            world: RefCell::new(world),
            machine,
        }
    }

    /// The host does what there is to do, then the drivers. Whether the host did
    /// anything.
    pub(super) fn turn(&self) -> bool {
        let mut world = self.world.borrow_mut();
        let World {
            store,
            backends,
            guest,
            ..
        } = &mut *world;
        let mut moved = store.step();
        for back in backends {
            moved |= back.step();
        }
        let now = self.machine.now();
        self.plugs.iter().for_each(|plug| plug.tend(now));
        if let Some(guest) = guest {
            guest.pass();
        }
        moved
    }
}
