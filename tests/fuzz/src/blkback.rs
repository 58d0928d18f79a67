//! A whole guest with a disk, and a backend, a toolstack and a hypervisor that
//! do what the input says.

use super::each_act;
use arbitrary::{Arbitrary, Unstructured};
use firn_block::gate::Lifecycle;
use firn_block::{Buffer, DiskId, Op, Queue, Request, TokenId};
use firn_peers::{
    BlkBack, BlkOffence, CallKind, Config, DiscardConfig, FakeMachine, NewDisk, Order, Publish,
    World,
};
use firn_task::Instant;
use firn_xen::Hal;
use firn_xen::blkfront::{StepError, Terms, Vbd, VbdConfig};
use firn_xen::suspend::SuspendError;
use firn_xen::wire::errno::Errno;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

const SECTORS: u64 = 4096;
/// Where the toolstack puts disks.
const DEVICES: &str = "/local/domain/1/device/vbd";
/// Pages of every buffer.
const PAGES: usize = 16;
/// Buffers of one input.
const MOST_BUFFERS: usize = 24;
/// Rounds in which guest and host must come to rest, unless the host will not.
const MOST_TURNS: usize = 20_000;
/// More than all deadlines of a device on its way down.
const LONG: Duration = Duration::from_secs(60);

#[derive(Arbitrary, Debug)]
enum Act {
    Turns(u8),
    Submit {
        op: u8,
        sector: u16,
        sectors: u8,
        offset: u8,
    },
    Kick,
    Poll(u8),
    Arm,
    GiveUpBuffer,
    Offend(u8),
    Behave,
    Allow(u8),
    AllowAll,
    Close,
    Unplug,
    Vanish,
    Plug(Setup),
    Release,
    Pretend(u8),
    Frontend(u8),
    Key {
        key: u8,
        value: u8,
    },
    Resize(u16),
    Poke {
        word: u16,
        value: u32,
    },
    PokeIndex {
        index: u8,
        delta: i8,
    },
    Fail {
        call: u8,
        errno: u8,
    },
    ResetStore,
    Advance(u16),
    Step(u8),
    SuspendInVain,
    Migrate {
        setup: Setup,
        carried_out: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Setup {
    flags: u8,
    indirect: u8,
    ring_order: u8,
    block: u8,
    order: u8,
    delay: u8,
    seed: u64,
}

const OFFENCES: [BlkOffence; 25] = [
    BlkOffence::ResponseIndexRunsAway,
    BlkOffence::ResponseIndexGoesBack,
    BlkOffence::UnknownId,
    BlkOffence::IdleId,
    BlkOffence::DoubledCompletion,
    BlkOffence::WrongOperation,
    BlkOffence::UnknownOperation,
    BlkOffence::UnknownStatus,
    BlkOffence::FlushUnsupported,
    BlkOffence::DiscardUnsupported,
    BlkOffence::Unsupported,
    BlkOffence::Fails,
    BlkOffence::KeepsRequestPages,
    BlkOffence::ScribblesOverRequests,
    BlkOffence::OverwritesRequestIndex,
    BlkOffence::NeverWantsEvents,
    BlkOffence::NeverAnswers,
    BlkOffence::NeverTakes,
    BlkOffence::NeverNotifies,
    BlkOffence::NeverInitWait,
    BlkOffence::NeverConnects,
    BlkOffence::NeverCloses,
    BlkOffence::FeaturesFlip,
    BlkOffence::KeepsGrants,
    BlkOffence::GarbledState,
];

const STATES: [&str; 12] = ["", "0", "1", "2", "3", "4", "5", "6", "7", "8", "99", "-1"];

const KEYS: [&str; 12] = [
    "sectors",
    "sector-size",
    "physical-sector-size",
    "info",
    "feature-persistent",
    "feature-max-indirect-segments",
    "feature-flush-cache",
    "feature-barrier",
    "feature-discard",
    "discard-granularity",
    "max-ring-page-order",
    "max-ring-pages",
];

const VALUES: [&str; 12] = [
    "",
    "0",
    "1",
    "4",
    "512",
    "4096",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "-1",
    "x",
    "36028797018963967",
];

const CALLS: [CallKind; 6] = [
    CallKind::AddToPhysmap,
    CallKind::AllocUnbound,
    CallKind::ClosePort,
    CallKind::SendEvent,
    CallKind::GetParam,
    CallKind::QueryGrants,
];

fn pick<T: Copy>(list: &[T], index: u8) -> T {
    list[usize::from(index) % list.len()]
}

impl Setup {
    fn config(&self) -> Config {
        let flag = |bit: u8| self.flags & 1 << bit != 0;
        let discard = DiscardConfig {
            granularity: 4096,
            alignment: 0,
            secure: flag(0),
        };
        Config {
            persistent: flag(1),
            flush: flag(2),
            barrier: flag(3),
            discard: flag(4).then_some(discard),
            read_only: self.flags >> 5 == 7,
            publish: if flag(5) {
                Publish::Early
            } else {
                Publish::Late
            },
            max_persistent: if flag(6) { 3 } else { 1056 },
            indirect: u32::from(self.indirect) % 40,
            ring_order: Some(u32::from(self.ring_order) % 3),
            sector_size: pick(&[512, 1024, 2048, 4096], self.block),
            physical_sector_size: None,
            order: pick(&[Order::Fifo, Order::Reversed, Order::Random], self.order),
            delay: u64::from(self.delay) % 4,
            seed: self.seed,
            ..Config::default()
        }
    }
}

struct Case {
    world: World,
    back: BlkBack,
    /// Every device that there ever was.
    vbds: Vec<Rc<Vbd<FakeMachine>>>,
    waiting: BTreeSet<(usize, TokenId)>,
    buffers: Vec<(usize, Buffer)>,
    made: usize,
    /// On a host that cannot be lived on.
    stranded: bool,
}

/// The steps of a freeze, in order.
async fn freeze(vbd: &Vbd<FakeMachine>, until: Instant) -> Result<(), StepError> {
    vbd.shut()?;
    vbd.drain(until).await?;
    vbd.flush(until).await?;
    vbd.disconnect(until).await
}

impl Case {
    fn new(setup: &Setup) -> Self {
        let mut world = World::new();
        let back = world.plug(setup.config(), SECTORS);
        world.start(VbdConfig {
            max_ring_order: 2,
            max_segments: 40,
            ..VbdConfig::default()
        });
        let mut case = Self {
            world,
            back,
            vbds: Vec::new(),
            waiting: BTreeSet::new(),
            buffers: Vec::new(),
            made: 0,
            stranded: false,
        };
        case.rest();
        case
    }

    /// The present device, by its number among all.
    fn vbd(&mut self) -> Option<usize> {
        let vbd = self.world.guest().bus.find(DiskId(0))?;
        let known = self.vbds.iter().position(|known| Rc::ptr_eq(known, &vbd));
        Some(known.unwrap_or_else(|| {
            self.vbds.push(vbd);
            self.vbds.len() - 1
        }))
    }

    fn rest(&mut self) {
        let turn = |_: &usize| {
            self.take_what_is_drained();
            self.world.turn()
        };
        let busy = (0..MOST_TURNS).take_while(turn).count();
        assert!(busy < MOST_TURNS, "guest and host never come to rest");
        let _ = self.vbd();
    }

    /// A disk that is drained has its completions taken by the main loop.
    fn take_what_is_drained(&mut self) {
        for device in 0..self.vbds.len() {
            if self.vbds[device].state() == Lifecycle::Freezing {
                self.poll(device, usize::MAX);
            }
        }
    }

    /// Lets time pass, with a rest at every deadline.
    fn sleep(&mut self, time: Duration) {
        let end = self.world.machine.now() + time;
        loop {
            self.rest();
            let now = self.world.machine.now();
            let next = self.world.guest().xen.next_deadline();
            match next.filter(|at| *at < end) {
                Some(at) => self.world.machine.advance(at.since(now)),
                None => break,
            }
        }
        let left = end.since(self.world.machine.now());
        self.world.machine.advance(left);
        self.rest();
    }

    fn buffer(&mut self, device: usize) -> Option<Buffer> {
        if let Some(at) = self.buffers.iter().position(|(owner, _)| *owner == device) {
            return Some(self.buffers.remove(at).1);
        }
        if self.made == MOST_BUFFERS {
            return None;
        }
        let region = self.world.machine.alloc_shared(PAGES)?;
        self.made += 1;
        self.vbds[device].front.borrow_mut().register(region).ok()
    }

    fn submit(&mut self, op: u8, sector: u16, sectors: u8, offset: u8) {
        let Some(device) = self.vbd() else { return };
        let op = match op % 8 {
            0..3 => Op::Read,
            3..6 => Op::Write,
            6 => Op::Flush,
            _ => Op::Discard {
                secure: op & 8 != 0,
            },
        };
        let buffer = if op.has_data() {
            let buffer = self.buffer(device);
            if buffer.is_none() {
                return;
            }
            buffer
        } else {
            None
        };
        let request = Request {
            op,
            sector: sector.into(),
            sectors: sectors.into(),
            buffer,
            offset: usize::from(offset) * 256,
            cookie: 0,
        };
        let result = self.vbds[device].front.borrow_mut().submit(request);
        match result {
            Ok(token) => {
                let fresh = self.waiting.insert((device, token.id()));
                assert!(fresh, "a token twice");
                token.abandon();
            }
            Err(refused) => {
                let buffer = refused.request.buffer.map(|buffer| (device, buffer));
                self.buffers.extend(buffer);
            }
        }
    }

    fn poll(&mut self, device: usize, budget: usize) {
        let vbd = self.vbds[device].clone();
        let (waiting, buffers) = (&mut self.waiting, &mut self.buffers);
        vbd.front.borrow_mut().poll(budget, &mut |completion| {
            let known = waiting.remove(&(device, completion.token));
            assert!(known, "a completion of nothing, or a second one");
            buffers.extend(completion.request.buffer.map(|buffer| (device, buffer)));
        });
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Turns(turns) => {
                for _ in 0..turns {
                    self.world.turn();
                }
            }
            Act::Submit {
                op,
                sector,
                sectors,
                offset,
            } => self.submit(op, sector, sectors, offset),
            Act::Kick => {
                if let Some(device) = self.vbd() {
                    self.vbds[device].front.borrow_mut().kick();
                }
            }
            Act::Poll(budget) => {
                for device in 0..self.vbds.len() {
                    self.poll(device, budget.into());
                }
            }
            Act::Arm => {
                if let Some(device) = self.vbd() {
                    let _ = self.vbds[device].front.borrow_mut().arm();
                }
            }
            Act::GiveUpBuffer => {
                if let Some((device, buffer)) = self.buffers.pop() {
                    let freed = self.vbds[device].front.borrow_mut().unregister(buffer);
                    if let firn_block::Unregistered::Free(region) = freed {
                        self.world.machine.free_shared(region);
                        self.made -= 1;
                    }
                }
            }
            Act::Advance(millis) => self.sleep(Duration::from_millis(millis.into())),
            Act::Step(step) => self.step(step),
            Act::SuspendInVain => {
                let _ = self.world.suspend_in_vain();
            }
            Act::Migrate {
                ref setup,
                carried_out,
            } => self.migrate(setup, carried_out),
            _ => self.act_on_host(act),
        }
    }

    /// Starts a step of a freeze or of the way back; nobody waits for it.
    fn step(&mut self, step: u8) {
        let Some(device) = self.vbd() else { return };
        let vbd = self.vbds[device].clone();
        let until = self.world.machine.now() + Duration::from_secs(3);
        let _ = match step % 16 {
            0 => vbd.shut(),
            1 => vbd.check_idle(),
            2 => vbd.open(),
            _ => Ok(()),
        };
        self.world.guest().executor.spawn(async move {
            let _ = match step % 16 {
                3 => vbd.drain(until).await,
                4 => vbd.flush(until).await,
                5 | 6 => vbd.disconnect(until).await,
                7 => vbd.connect(Terms::Image, until).await,
                8 => vbd.connect(Terms::Ordinary, until).await,
                9 | 10 => vbd.thaw(until).await,
                11..16 => freeze(&vbd, until).await,
                _ => Ok(()),
            };
        });
    }

    /// Moves the guest to a new host, unless it will not or cannot.
    fn migrate(&mut self, setup: &Setup, carried_out: u8) {
        let disk = self.back.disk();
        let config = setup.config();
        let disks = vec![NewDisk { config, disk }];
        match self.world.migrate(disks, carried_out.into()) {
            Ok(_) => self.back = self.world.backends[0].clone(),
            Err(SuspendError::Disk(_) | SuspendError::Refused(_)) => {}
            Err(_) => self.stranded = true,
        }
    }

    fn act_on_host(&mut self, act: &Act) {
        let (back, store) = (&self.back, &self.world.store);
        match *act {
            Act::Offend(which) => back.offend(pick(&OFFENCES, which)),
            Act::Behave => back.behave(),
            Act::Allow(answers) => back.allow(Some(answers.into())),
            Act::AllowAll => back.allow(None),
            Act::Close => back.close(),
            Act::Unplug => back.unplug(),
            Act::Vanish => back.vanish(),
            Act::Plug(ref setup) if store.list(DEVICES).is_empty() => {
                let disk = back.disk();
                self.back = self.world.plug_disk(setup.config(), disk);
            }
            Act::Release => back.release(),
            Act::Pretend(state) => back.pretend(pick(&STATES, state)),
            Act::Frontend(state) => {
                let path = format!("{}/state", back.front_path());
                store.write(&path, pick(&STATES, state));
            }
            Act::Key { key, value } => {
                let path = format!("{}/{}", back.path(), pick(&KEYS, key));
                store.write(&path, pick(&VALUES, value));
            }
            Act::Resize(sectors) => back.resize(sectors.into()),
            Act::Poke { word, value } => back.poke(word.into(), value),
            Act::PokeIndex { index, delta } => {
                let index = usize::from(index % 4);
                let near = back.counters().requests as u32;
                back.poke(index, near.wrapping_add_signed(delta.into()));
            }
            Act::Fail { call, errno } => {
                let machine = &self.world.machine;
                machine.fail_next(pick(&CALLS, call), Errno(errno.into()));
            }
            Act::ResetStore => store.reset(),
            _ => {}
        }
    }

    /// The host comes to reason and takes the disk away: everything ends.
    fn finish(mut self) {
        self.world.machine.behave();
        for back in self.world.backends.clone() {
            back.behave();
            back.allow(None);
        }
        self.back.unplug();
        self.sleep(LONG);
        self.back.vanish();
        self.sleep(LONG);
        for device in 0..self.vbds.len() {
            self.poll(device, usize::MAX);
            assert_eq!(self.vbds[device].front.borrow().in_flight(), 0);
        }
        assert!(self.waiting.is_empty(), "{:?} never ended", self.waiting);
        assert_eq!(self.world.machine.violations(), []);
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(setup) = Setup::arbitrary(&mut input) else {
        return;
    };
    let mut case = Case::new(&setup);
    let acted = each_act(&mut input, |act: Act| {
        case.act(&act);
        match case.stranded {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if acted.is_continue() {
        case.finish();
    }
}
