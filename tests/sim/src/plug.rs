//! The disks' backends of one boot: what they offer, and what is wrong with
//! them.

use crate::fault::{Kind, connects};
use firn_block::DiskId;
use firn_peers::{BlkBack, BlkOffence, Config, Disk, Order, Publish, World};
use firn_power::Step;
use firn_task::Instant;
use firn_xen::wire::xenbus::XenbusState;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::cell::Cell;
use std::time::Duration;

/// Sectors of a disk without room for anything.
const SMALL: u64 = 144;

/// One disk and its backend.
pub struct Plug {
    /// The disk's name in this boot.
    pub id: DiskId,
    /// The backend.
    pub back: BlkBack,
    disk: Disk,
    capacity: u64,
    wrong: Cell<Option<Kind>>,
    restart: Cell<Restart>,
}

/// What the toolstack does about a backend that closed.
#[derive(Clone, Copy)]
enum Restart {
    Never,
    OnceClosed,
    At(Instant),
}

/// How long that takes it.
const RESTART: Duration = Duration::from_millis(50);

/// A backend that was drawn: what it offers, and in which order it works.
fn config(index: u32, rng: &mut SmallRng) -> Config {
    let mut any = || rng.random_range(0..3_u32);
    let (flush, barrier) = [(true, true), (true, false), (false, true)][any() as usize];
    Config {
        persistent: any() > 0,
        indirect: [0, 32, 256][any() as usize],
        ring_order: any().checked_sub(1),
        flush,
        barrier,
        publish: if any() > 0 {
            Publish::Late
        } else {
            Publish::Early
        },
        order: Order::Random,
        delay: any().into(),
        seed: rng.random(),
        ..Config::default()
    }
    .disk(index)
}

impl Plug {
    /// Plugs a disk into a machine.
    pub fn new(world: &mut World, id: DiskId, disk: &Disk, rng: &mut SmallRng) -> Self {
        Self {
            id,
            back: world.plug_disk(config(id.0, rng), disk.clone()),
            disk: disk.clone(),
            capacity: disk.capacity(),
            wrong: Cell::new(None),
            restart: Cell::new(Restart::Never),
        }
    }

    /// Does to the backend what makes `kind` happen in `step`.
    pub fn afflict(&self, kind: Kind, step: Step) {
        self.wrong.set(Some(kind));
        let (back, disk) = (&self.back, &self.disk);
        match kind {
            Kind::Error | Kind::NoSpace => match step {
                Step::ConnectImage | Step::Reconnect => {
                    back.offend(BlkOffence::ClosedInsteadOfConnected);
                }
                _ => disk.fail_after(Some(0)),
            },
            Kind::Effect => {
                back.offend(BlkOffence::Fails);
                disk.fail_after(Some(1));
            }
            Kind::Timeout | Kind::Hangs => {
                back.offend(BlkOffence::NeverAnswers);
                back.offend(BlkOffence::NeverConnects);
                back.offend(BlkOffence::NeverCloses);
            }
            Kind::Gone => back.vanish(),
            Kind::Closes => {
                back.close();
                self.restart.set(Restart::OnceClosed);
            }
            Kind::KeepsPages => back.offend(BlkOffence::KeepsGrants),
            Kind::Breaks => back.offend(BlkOffence::UnknownId),
            // The machine's.
            Kind::NoMemory | Kind::NoGrants | Kind::NoChannel | Kind::Reset => {}
        }
    }

    /// Another step begins: what is wrong passes with its step, unless it lasts.
    /// Who does not answer wakes up when somebody begins to connect or to
    /// disconnect him; who keeps pages or cheats does so until the end.
    pub fn next_step(&self, step: Step) {
        match self.wrong.get() {
            Some(Kind::Timeout) if !connects(step) => {}
            Some(Kind::Hangs | Kind::KeepsPages | Kind::Breaks) => {}
            _ => self.recover(),
        }
    }

    /// Nothing is wrong any more, but for what is gone. Who did not answer does
    /// so now, late.
    pub fn recover(&self) {
        let Some(kind) = self.wrong.take() else {
            return;
        };
        self.disk.fail_after(None);
        self.back.behave();
        self.back.release();
        if matches!(kind, Kind::Timeout | Kind::Hangs) {
            self.back.look_again();
        }
    }

    /// The toolstack has a backend that closed start anew, after a while.
    pub fn tend(&self, now: Instant) {
        match self.restart.get() {
            Restart::OnceClosed if self.back.state() == XenbusState::CLOSED => {
                self.restart.set(Restart::At(now + RESTART));
            }
            Restart::At(then) if now >= then => {
                self.restart.set(Restart::Never);
                self.back.start_over();
            }
            _ => {}
        }
    }

    /// The disk has no room for anything, or its room again. Whoever is
    /// connected is told if `loud`, everybody else with the next connection.
    pub fn shrink(&self, small: bool, loud: bool) {
        let capacity = if small { SMALL } else { self.capacity };
        if self.disk.capacity() == capacity || self.back.is_gone() {
            return;
        }
        self.disk.set_capacity(capacity);
        if loud {
            self.back.resize(capacity);
        }
    }

    /// Of what the guest had asked for when it ended, the host still carries out
    /// some.
    pub fn lose_guest(&self, rng: &mut SmallRng) {
        let under_way = self.back.outstanding() as usize;
        self.back.lose_guest(rng.random_range(0..=under_way));
        self.disk.fail_after(None);
        self.disk.set_capacity(self.capacity);
    }
}
