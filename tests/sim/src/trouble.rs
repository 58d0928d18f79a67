//! Faults on their way from a list to the machine, and back to order.

use crate::boot::Boot;
use crate::fault::{Injected, Kind};
use crate::side::{Side, XenSide};
use firn_block::DiskId;
use firn_block::shm::Region;
use firn_peers::{CallKind, FakeMachine, HOST};
use firn_power::Step;
use firn_xen::Hal;
use firn_xen::grant::Access;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::grant_table::GrantRef;
use std::cell::RefCell;

/// Pages that drivers and image code may take: enough for what they need, not
/// for all that they would like.
const PAGES: usize = 480;
/// Frames that the grant table may grow to.
const GRANT_FRAMES: u32 = 4;

/// What is wrong with the machine itself.
#[derive(Default)]
pub struct Shortage {
    /// Grants that somebody else has.
    hoard: RefCell<Vec<GrantRef>>,
}

/// Gives a machine what it has when nothing is wrong.
pub fn provide(machine: &FakeMachine) {
    machine.limit_memory(PAGES);
    machine.limit_grant_frames(GRANT_FRAMES);
    machine.refuse(CallKind::AllocUnbound, None);
}

impl Boot {
    /// Something is to go wrong.
    pub fn inject(&self, fault: Option<Injected>) {
        self.injected.set(fault);
    }

    /// A disk that is to be too small for a freeze is so before anybody asks.
    /// Whether that is so.
    pub fn shrink_before_freeze(&self) -> bool {
        let small = self.is_to_be(Step::Check, Kind::NoSpace);
        if small {
            self.shrink(true, true);
        }
        small
    }

    fn is_to_be(&self, step: Step, kind: Kind) -> bool {
        let injected = self.injected.get();
        injected.is_some_and(|fault| fault.step == step && fault.kind == kind)
    }

    fn shrink(&self, small: bool, loud: bool) {
        self.side.shrink(self.image, small, loud);
    }

    /// What goes wrong in the step that is being taken.
    pub fn trouble(&self) -> Option<Kind> {
        let injected = self.injected.get()?;
        (self.step.get() == Some(injected.step)).then_some(injected.kind)
    }

    /// Tells everybody which step comes, and lets go wrong what is to.
    pub fn take_step(&self, step: Step, disk: Option<DiskId>) {
        self.steps.borrow_mut().insert(step);
        let theirs = disk.map(|disk| self.side.disk(disk));
        self.witness.borrow_mut().step(step, theirs, || self.hash());
        let before = self.step.replace(Some(step));
        if before != Some(step)
            && let Some(injected) = self.injected.get()
            && before == Some(injected.step)
            && !injected.always
        {
            self.injected.set(None);
        }
        self.relieve();
        self.side.next_step(step);
        if step == Step::ConnectImage && self.is_to_be(Step::Plan, Kind::NoSpace) {
            self.shrink(true, false);
        }
        let Some(kind) = self.trouble() else { return };
        match kind {
            Kind::NoSpace if matches!(step, Step::Check | Step::Plan) => {}
            Kind::NoMemory | Kind::NoGrants | Kind::NoChannel | Kind::Reset => {
                self.side.fall_short(kind, &self.arena.region());
            }
            _ => {
                if let Some(disk) = disk {
                    self.side.afflict(disk, kind, step);
                }
            }
        }
    }

    fn relieve(&self) {
        self.side.relieve();
    }

    /// Nothing goes wrong any more: who did not answer does so now, late.
    pub fn mend(&self) {
        self.injected.set(None);
        self.relieve();
        self.shrink(false, true);
        self.side.recover();
    }
}

impl Side {
    /// The machine has nothing left of something.
    fn fall_short(&self, kind: Kind, memory: &Region) {
        match (self, kind) {
            (Self::Xen(side), Kind::NoMemory) => side.machine.limit_memory(0),
            (Self::Xen(side), Kind::NoGrants) => side.hoard(memory),
            (Self::Xen(side), Kind::NoChannel) => {
                let refused = Some(Errno::ENOSPC);
                side.machine.refuse(CallKind::AllocUnbound, refused);
            }
            (Self::Xen(side), _) => side.store.reset(),
            (Self::HyperV(side), kind) => side.fall_short(kind),
        }
    }

    fn relieve(&self) {
        match self {
            Self::Xen(side) => side.relieve(),
            Self::HyperV(side) => side.provide(),
        }
    }
}

impl XenSide {
    /// Somebody else takes every grant there is.
    fn hoard(&self, memory: &Region) {
        let page = self.machine.gfn(memory, 0);
        let mut hoard = self.shortage.hoard.borrow_mut();
        let grants = &self.xen.grants;
        while let Ok(grant) = grants.grant(&self.machine, HOST, page, Access::Read, "hoard") {
            hoard.push(grant);
        }
    }

    fn relieve(&self) {
        provide(&self.machine);
        for grant in self.shortage.hoard.borrow_mut().drain(..) {
            let ended = self.xen.grants.end(grant);
            debug_assert!(ended.is_ok(), "nobody maps it");
        }
    }
}
