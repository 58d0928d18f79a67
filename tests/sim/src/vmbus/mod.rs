//! The fault table of what is under a freeze on Hyper-V: the bus, its channels and
//! the memory that they share. `firn-power` asks for disks only; leaving the bus
//! and coming back is the machine's, so it is shown here by itself: each thing that
//! may go wrong at a step of the way down or up, how that ends, that the disks
//! which are left work afterwards, that the next freeze succeeds, and that the host
//! has nothing of the guest's then.

mod bench;
mod rows;

use bench::Bench;
use firn_block::gate::Lifecycle;
use firn_block::{Op, Request};
use firn_hyperv::Hal;
use firn_hyperv::vmbus::BusState;
use firn_hyperv::wire::msr::Msr;
use firn_peers::hyperv::HvWorld;
use firn_peers::pattern;
use std::fmt;
use std::time::Duration;

/// The limit of a step, and how long a machine is left to itself afterwards.
const LONG: Duration = Duration::from_secs(30);
/// Requests on their way when a freeze begins.
const LOAD: u64 = 6;
/// Pages that a machine has when nothing is wrong: as many as it wants.
const PAGES: usize = 10_000;
/// The most pages that a controller's channels and what belongs to them take.
const CHANNEL_PAGES: usize = 80 + 2 * 32;

/// A step, taken for all disks and controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BusStep {
    /// Gates.
    Shut,
    /// What is in flight.
    Drain,
    /// The disks' caches.
    Flush,
    /// Nothing may be left.
    Idle,
    /// Channels and their memory.
    Disconnect,
    /// The bus.
    Unload,
    /// SynIC and hypercall page.
    TurnOff,
    /// The same again.
    TurnOn,
    /// A version, and all offers.
    Contact,
    /// Channels and their memory, the handshake, which disks there are.
    Connect,
    /// Gates.
    Open,
}

impl BusStep {
    /// The way down.
    pub const DOWN: [Self; 7] = [
        Self::Shut,
        Self::Drain,
        Self::Flush,
        Self::Idle,
        Self::Disconnect,
        Self::Unload,
        Self::TurnOff,
    ];
    /// The way up.
    pub const UP: [Self; 4] = [Self::TurnOn, Self::Contact, Self::Connect, Self::Open];
}

impl fmt::Display for BusStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shut => "shut",
            Self::Drain => "drain",
            Self::Flush => "flush",
            Self::Idle => "idle",
            Self::Disconnect => "disconnect",
            Self::Unload => "unload",
            Self::TurnOff => "turn-off",
            Self::TurnOn => "turn-on",
            Self::Contact => "contact",
            Self::Connect => "connect",
            Self::Open => "open",
        })
    }
}

/// What a fault takes for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// The first disk, which is gone or has failed.
    Disk,
    /// Both disks of the first controller.
    Controller,
    /// The bus: the machine has to be booted anew.
    Bus,
    /// Pages of one channel, which the host did not say it let go of.
    Pages,
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "live again",
            Self::Disk => "without the disk",
            Self::Controller => "without both disks",
            Self::Bus => "stands still",
            Self::Pages => "live, pages given up",
        })
    }
}

/// One fault point.
#[derive(Clone, Copy)]
pub struct BusPoint {
    /// When it happens.
    pub step: BusStep,
    /// What happens.
    pub fault: &'static str,
    make: fn(&mut Bench),
    /// What the error of the sequence says; nothing where it succeeds.
    pub ends: &'static str,
    /// What is left of it.
    pub takes: Takes,
}

/// What came of one.
pub struct BusRow {
    /// Which.
    pub point: BusPoint,
    /// Pages in use once the machine is off the bus again.
    pub pages: usize,
    /// Of those, the ones that the host reaches.
    pub shared: usize,
    /// What was wrong with that, if anything.
    pub wrong: Option<String>,
}

/// Every fault point.
#[must_use]
pub fn points() -> Vec<BusPoint> {
    rows::ROWS.to_vec()
}

/// Pages in use of a machine that went down, up, and down again without a fault.
///
/// # Panics
/// When that does not succeed.
#[must_use]
pub fn pages_without_fault() -> usize {
    let nothing = BusPoint {
        step: BusStep::Shut,
        fault: "nothing",
        make: |_| {},
        ends: "",
        takes: Takes::Nothing,
    };
    let mut bench = Bench::new();
    let played = play(&mut bench, &nothing);
    assert_eq!(played, Ok(()), "without any fault");
    bench.world.machine.pages_in_use()
}

/// Has a fault happen, and looks at what is left; `pages` are
/// [`pages_without_fault`].
#[must_use]
pub fn run(point: BusPoint, pages: usize) -> BusRow {
    let mut bench = Bench::new();
    let played = play(&mut bench, &point);
    let machine = &bench.world.machine;
    let (in_use, shared) = (machine.pages_in_use(), machine.shared_pages());
    let given_up = pages + 1..pages + CHANNEL_PAGES;
    let leaked = match point.takes {
        Takes::Bus => false,
        Takes::Pages => shared > 0 || !given_up.contains(&in_use),
        _ => shared > 0 || in_use != pages,
    };
    let leaked = leaked.then(|| format!("{in_use} pages in use, not {pages}; {shared} shared"));
    BusRow {
        point,
        pages: in_use,
        shared,
        wrong: played.err().or(leaked),
    }
}

/// The way down and up with a fault on it, the disks after that, and the way down
/// again.
fn play(bench: &mut Bench, point: &BusPoint) -> Result<(), String> {
    let data = pattern(7, 8192);
    for disk in 0..3 {
        let written = bench.world.write(disk, 0, &data);
        written.map_err(|error| format!("before: {error}"))?;
    }
    // It comes to the load when that is waited for.
    bench.world.host.hang(true);
    for at in 0..LOAD {
        let request = Request::data(Op::Write, 64 + 8 * at, bench.world.buffer(0, 1), 4096);
        let token = bench.world.submit(0, request);
        token.map_err(|refused| refused.why.to_string())?.abandon();
    }
    let ended = down_and_up(bench, point);
    let as_designed = match &ended {
        Ok(()) => point.ends.is_empty(),
        Err(why) => !point.ends.is_empty() && why.contains(point.ends),
    };
    if !as_designed {
        return Err(format!("ended in {ended:?}"));
    }
    undo(bench, point)?;
    for disk in 0..3 {
        let lost = is_lost(point.takes, disk);
        if bench.world.is_live(disk) == lost {
            let state = bench.world.unit(disk).state();
            return Err(format!("disk {disk} is {state}; {}", bench.world.failure()));
        }
        if !lost && bench.read(disk, data.len())? != data {
            return Err(format!("disk {disk} holds something else"));
        }
    }
    if point.takes != Takes::Bus {
        freeze_again(bench)?;
    }
    let violations = bench.world.machine.violations();
    match violations.first() {
        Some(violation) => Err(format!("{violation:?}")),
        None => Ok(()),
    }
}

fn down_and_up(bench: &mut Bench, point: &BusPoint) -> Result<(), String> {
    for step in BusStep::DOWN.into_iter().chain(BusStep::UP) {
        if step == BusStep::Drain {
            bench.world.host.hang(false);
        }
        if step == point.step {
            (point.make)(bench);
        }
        take(&mut bench.world, step).map_err(|why| format!("{step}: {why}"))?;
    }
    Ok(())
}

const fn is_lost(takes: Takes, disk: u32) -> bool {
    match takes {
        Takes::Nothing | Takes::Pages => false,
        Takes::Disk => disk == 0,
        Takes::Controller => disk < 2,
        Takes::Bus => true,
    }
}

/// One step, to its end. Disks and controllers that are gone take no part.
fn take(world: &mut HvWorld, step: BusStep) -> Result<(), String> {
    let until = world.machine.now() + LONG;
    let guest = world.guest();
    let (scsi, bus, hv) = (guest.scsi.clone(), guest.bus.clone(), guest.hv.clone());
    let work = async move {
        let text = |error: &dyn fmt::Display| error.to_string();
        match step {
            BusStep::TurnOff => hv.turn_off(),
            BusStep::TurnOn => hv.turn_on().map_err(|error| text(&error))?,
            BusStep::Unload => bus.unload().await.map_err(|error| text(&error))?,
            BusStep::Contact => drop(bus.connect().await.map_err(|error| text(&error))?),
            _ => {}
        }
        for controller in scsi.controllers() {
            for unit in controller.units() {
                let taken = match step {
                    BusStep::Shut => unit.shut(),
                    BusStep::Drain => unit.drain(until).await,
                    BusStep::Flush => unit.flush(until).await,
                    BusStep::Idle => unit.check_idle(),
                    // Others are gone, or new and live.
                    BusStep::Open if unit.state() == Lifecycle::Freezing => unit.open(),
                    BusStep::Open if unit.state() == Lifecycle::Closed => unit.open(),
                    _ => Ok(()),
                };
                taken.map_err(|error| text(&error))?;
            }
            let taken = match step {
                BusStep::Disconnect => controller.disconnect().await.map_err(|e| text(&e)),
                BusStep::Connect => controller.connect().await.map_err(|e| text(&e)),
                _ => Ok(()),
            };
            taken?;
        }
        Ok(())
    };
    world.finish(work).0
}

/// Nothing goes wrong any more; what was done is undone, in reverse.
fn undo(bench: &mut Bench, point: &BusPoint) -> Result<(), String> {
    bench.mend();
    let world = &mut bench.world;
    world.run_for(LONG);
    if world.guest().bus.state() == BusState::Disconnected {
        take(world, BusStep::TurnOn)?;
        let contacted = take(world, BusStep::Contact);
        match contacted {
            Err(why) if point.takes != Takes::Bus => return Err(format!("undo: {why}")),
            _ => {}
        }
    }
    let controllers = world.guest().scsi.controllers();
    world.finish(async move {
        for controller in controllers {
            // One that is connected says so, one that is gone as well.
            let _ = controller.connect().await;
        }
    });
    for unit in bench.units() {
        if unit.state() == Lifecycle::Freezing {
            let opened = unit.open();
            opened.map_err(|error| format!("undo: {error}"))?;
        }
    }
    bench.world.settle();
    Ok(())
}

/// Down once more, with what is left; nothing of the guest is the host's then.
fn freeze_again(bench: &mut Bench) -> Result<(), String> {
    for step in BusStep::DOWN {
        let taken = match step {
            BusStep::Shut | BusStep::Drain | BusStep::Flush | BusStep::Idle => bench.live(step),
            _ => take(&mut bench.world, step),
        };
        taken.map_err(|why| format!("the next freeze: {step}: {why}"))?;
    }
    let world = &bench.world;
    let bus = &world.guest().bus;
    let held = (bus.gpadls(), bus.channels(), world.host.open_channels());
    if held != (0, 0, 0) {
        return Err(format!("GPADLs, channels, and the host's: {held:?}"));
    }
    for msr in [Msr::HYPERCALL, Msr::SIMP, Msr::SIEFP, Msr::SCONTROL] {
        if world.machine.msr(msr) & 1 != 0 {
            return Err(format!("{msr} is on"));
        }
    }
    Ok(())
}
