//! A whole guest with disks behind VMBus, and a host that does what the input
//! says, with bytes that go wrong where it says so.

use super::each_act;
use arbitrary::{Arbitrary, Unstructured};
use firn_block::gate::Lifecycle;
use firn_block::{Armed, DiskId, Op, Queue, Request, TokenId};
use firn_hyperv::storvsc::{ControllerConfig, Unit};
use firn_hyperv::vmbus::VmbusConfig;
use firn_hyperv::wire::{vmbus, vstor};
use firn_peers::Disk;
use firn_peers::hyperv::{
    HostConfig, HvMachine, HvOffence, HvViolation, HvWorld, Lun, StorvspConfig,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

const SECTORS: u64 = 4096;
/// Pages of every buffer.
const PAGES: usize = 16;
/// Requests of one input: none gets its buffer twice.
const MOST_REQUESTS: usize = 64;
/// Rounds in which guest and host must come to rest.
const MOST_TURNS: usize = 20_000;
/// More than all deadlines of a controller on its way down.
const LONG: Duration = Duration::from_secs(2000);

#[derive(Arbitrary, Debug)]
struct Setup {
    bus: u8,
    storage: u8,
    reversed: bool,
    delay: bool,
    interrupts: bool,
    depth: u8,
    block: bool,
}

#[derive(Arbitrary, Debug)]
enum Act {
    Turns(u8),
    Submit {
        op: u8,
        sector: u16,
        sectors: u8,
        offset: u8,
    },
    Poll(u8),
    Arm,
    Noise([u8; 12]),
    Message {
        kind: u8,
        words: [u8; 12],
        length: u8,
    },
    Offend(u8),
    Behave,
    Attention(u8, u8),
    Busy(u8),
    Plug(u8),
    Unplug(u8),
    Rescind,
    Offer,
    Allow(u8),
    AllowAll,
    Shut,
    Open,
    Disconnect,
    Connect,
    Advance(u16),
}

use HvOffence as O;

/// Those that end: a host that never answers something is `NeverAnswersIo`.
const OFFENCES: [HvOffence; 24] = [
    O::OpenResultTwice,
    O::GpadlCreatedTwice,
    O::GpadlCreatedForeign,
    O::RescindsAtOpen,
    O::RescindsAtGpadl,
    O::RefusesGpadl,
    O::RefusesOpen,
    O::NeverTearsDown,
    O::ReadIndexRunsAway,
    O::WriteIndexOdd,
    O::WriteIndexGoesBack,
    O::PacketTorn,
    O::PacketTooLong,
    O::UnknownTransaction,
    O::DoubledCompletion,
    O::CompletionTooShort,
    O::MovesTooMuch,
    O::MovesTooLittle,
    O::SenseTooLong,
    O::UnknownNotice,
    O::NeverAnswersIo,
    O::OddLuns,
    O::ZeroBlock,
    O::WrongPage,
];

struct Case {
    world: HvWorld,
    units: Vec<Rc<Unit<HvMachine>>>,
    waiting: BTreeSet<(usize, TokenId)>,
    requests: usize,
}

fn pick<T: Copy>(from: &[T], which: u8) -> T {
    from[usize::from(which) % from.len()]
}

impl Case {
    fn new(setup: &Setup) -> Self {
        let host = HostConfig::only(pick(&vmbus::Version::ALL, setup.bus));
        let mut world = HvWorld::new(host);
        let storvsp = world.plug(StorvspConfig {
            reversed: setup.reversed,
            delay: setup.delay.into(),
            ..StorvspConfig::only(pick(&vstor::Version::ALL, setup.storage))
        });
        let lun = Lun::new(Disk::new(SECTORS)).named(1);
        let block = if setup.block { 4096 } else { 512 };
        storvsp.plug(0, lun.blocks_of(block));
        storvsp.plug(2, Lun::new(Disk::new(SECTORS)).named(2));
        let config = ControllerConfig {
            depth: u32::from(setup.depth) % 64 + 2,
            interrupts: setup.interrupts,
            ..ControllerConfig::default()
        };
        world.start(VmbusConfig::default(), config);
        world.run_for(Duration::from_secs(1));
        let find = |id| world.guest().scsi.find(DiskId::scsi(id));
        let units: Vec<_> = (0..2).filter_map(find).collect();
        assert_eq!(units.len(), 2, "a friendly host: {}", world.failure());
        Self {
            world,
            units,
            waiting: BTreeSet::new(),
            requests: 0,
        }
    }

    fn poll(&mut self, budget: usize) {
        for (disk, unit) in self.units.iter().enumerate() {
            let waiting = &mut self.waiting;
            unit.front.borrow_mut().poll(budget, &mut |done| {
                assert!(waiting.remove(&(disk, done.token)), "ended twice");
            });
        }
    }

    fn submit(&mut self, op: u8, sector: u16, sectors: u8, offset: u8) {
        let disk = usize::from(op & 1);
        self.requests += 1;
        if self.requests > MOST_REQUESTS {
            return;
        }
        let (sector, sectors) = (u64::from(sector), u64::from(sectors));
        let request = match op >> 1 & 3 {
            0 => Request::flush(),
            1 => Request::discard(sector, sectors, false),
            way => {
                let op = if way == 2 { Op::Read } else { Op::Write };
                let buffer = self.world.buffer(disk as u32, PAGES);
                let bytes = sectors as usize * 512;
                Request {
                    offset: usize::from(offset) * 512,
                    ..Request::data(op, sector, buffer, bytes)
                }
            }
        };
        let mut front = self.units[disk].front.borrow_mut();
        let state = front.state();
        if let Ok(token) = front.submit(request) {
            assert_eq!(state, Lifecycle::Live, "the gate");
            self.waiting.insert((disk, token.id()));
            token.abandon();
        }
        front.kick();
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            if !self.world.turn() {
                return;
            }
        }
    }

    /// Something that takes time, to go on beside the other acts.
    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        self.world.guest().executor.spawn(work);
    }

    fn act(&mut self, act: &Act) {
        let storvsp = self.world.storvsps[0].clone();
        match *act {
            Act::Turns(count) => self.turns(count.into()),
            Act::Submit {
                op,
                sector,
                sectors,
                offset,
            } => self.submit(op, sector, sectors, offset),
            Act::Poll(budget) => self.poll(budget.into()),
            Act::Arm => {
                for unit in &self.units {
                    let armed = unit.front.borrow_mut().arm();
                    assert!(matches!(armed, Armed::Sleep | Armed::Poll));
                }
            }
            Act::Noise(tape) => self.world.machine.play_noise(&tape),
            Act::Message {
                kind,
                words,
                length,
            } => {
                let mut message = vec![kind % 30, 0, 0, 0, 0, 0, 0, 0];
                message.extend(words.iter().flat_map(|word| [*word, 0, 0, 0]));
                message.resize(length.into(), 0);
                self.world.machine.send_message(&message);
            }
            Act::Offend(which) => self.world.host.offend(pick(&OFFENCES, which)),
            Act::Behave => self.world.host.behave(),
            Act::Attention(code, qualifier) => storvsp.attention(0, code, qualifier),
            Act::Busy(commands) => storvsp.busy(0, commands.into()),
            Act::Plug(unit) => storvsp.plug(unit, Lun::new(Disk::new(64)).named(unit.into())),
            Act::Unplug(unit) => storvsp.unplug(unit),
            Act::Rescind => self.world.host.rescind(0),
            Act::Offer => self.world.host.offer_again(0),
            Act::Allow(answers) => storvsp.allow(Some(answers.into())),
            Act::AllowAll => storvsp.allow(None),
            Act::Shut => {
                let _ = self.units[0].shut();
                let _ = self.units[1].shut();
            }
            Act::Open => {
                let _ = self.units[0].open();
                let _ = self.units[1].open();
            }
            Act::Disconnect => self.control(true),
            Act::Connect => self.control(false),
            Act::Advance(millis) => {
                self.world
                    .machine
                    .advance(Duration::from_millis(millis.into()));
                self.turns(MOST_TURNS);
            }
        }
    }

    fn control(&self, down: bool) {
        let Some(controller) = self.world.guest().scsi.controllers().first().cloned() else {
            return;
        };
        self.spawn(async move {
            if down {
                let _ = controller.disconnect().await;
            } else {
                let _ = controller.connect().await;
            }
        });
    }

    /// The host comes to reason: everything ends.
    fn finish(mut self) {
        self.world.machine.make_noise(0);
        self.world.host.behave();
        self.world.storvsps[0].allow(None);
        for _ in 0..20 {
            self.poll(usize::MAX);
            self.world.run_for(LONG / 10);
        }
        self.poll(usize::MAX);
        assert!(self.waiting.is_empty(), "{:?} never ended", self.waiting);
        let mut wrong = self.world.machine.violations();
        // A host that says that it has let go of memory is believed.
        wrong.retain(|violation| {
            use HvViolation as V;
            !matches!(
                violation,
                V::FreedWhileShared(_) | V::WrittenAfterFree(_) | V::BadEvent(_)
            )
        });
        assert_eq!(wrong, []);
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else {
        return;
    };
    let mut case = Case::new(&setup);
    let _ = each_act(&mut input, |act: Act| {
        case.act(&act);
        ControlFlow::Continue(())
    });
    case.finish();
}
