//! One life: a machine with a data disk and an image disk that freezes, loses
//! power, boots, restores, again and again.

use crate::boot::{Boot, Cut, Hardware};
use crate::host::SimHost;
use crate::memory::Arena;
use crate::script::{Ask, Cycle, Script};
use crate::side::Hypervisor;
use crate::witness::{Tally, Witness, Wrong};
use crate::writer;
use firn_block::DiskId;
use firn_image::Generation;
use firn_peers::Disk;
use firn_power::{
    Boot as Booted, BootOptions, Failure, FreezeOptions, Frozen, Standing, Then, Trouble,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The data disk.
pub const DATA: DiskId = DiskId(0);
/// The image disk.
pub const IMAGE: DiskId = DiskId(1);
/// Sectors of the image disk: 2 MiB.
const IMAGE_SECTORS: u64 = 4096;
/// Boots after which something must have come of it.
const MOST_BOOTS: usize = 8;
/// Passes in which news of a disk have arrived: on Hyper-V all disks of its
/// controller are looked at, one command after the other.
const NEWS: u64 = 200;
/// Longest time that a freeze or a boot may take, whatever goes wrong.
const BOUND: Duration = Duration::from_secs(400);

/// How a life went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened.
    pub tally: Tally,
    /// What was wrong.
    pub wrong: Option<Wrong>,
    /// The last lines of the trace, if one was kept.
    pub trace: Vec<String>,
}

/// Plays a script. `tracing` keeps a trace.
#[must_use]
pub fn play(script: &Script, tracing: bool) -> Outcome {
    let life = Life::with_job(script.lying, tracing, script.ledger);
    life.hardware.hypervisor.set(script.first);
    let mut boot = life.switch_on(script.cycles.first().map_or(0, |cycle| cycle.seed));
    for cycle in &script.cycles {
        if life.is_wrong() {
            break;
        }
        boot = life.cycle(boot, cycle);
    }
    if let Some(boot) = boot {
        boot.end();
    }
    life.finish()
}

/// A machine that outlives its boots.
pub struct Life {
    /// What outlives its boots.
    pub hardware: Hardware,
    ledger: bool,
    /// Where the newest image was made.
    frozen_on: Cell<Hypervisor>,
}

impl Life {
    /// New disks, a new machine.
    #[must_use]
    pub fn new(lying: bool, tracing: bool) -> Self {
        Self::with_job(lying, tracing, false)
    }

    /// The same; with `ledger` the job is the real one.
    #[must_use]
    pub fn with_job(lying: bool, tracing: bool, ledger: bool) -> Self {
        let room = match ledger {
            true => writer::LEDGER_SECTORS,
            false => writer::ROOM,
        };
        let disks = [(DATA, room), (IMAGE, IMAGE_SECTORS)];
        let disks: Vec<_> = disks.map(|(id, n)| (id, Disk::new(n))).into();
        for (_, disk) in &disks {
            disk.lie_about_flush(lying);
        }
        let mut witness = Witness::default();
        witness.tracing = tracing;
        Self {
            ledger,
            frozen_on: Cell::new(Hypervisor::Xen),
            hardware: Hardware {
                arena: Rc::new(Arena::claim()),
                disks,
                image: IMAGE,
                clock: Rc::new(Cell::new(1_000_000_000)),
                hypervisor: Cell::new(Hypervisor::Xen),
                build: Cell::new("this build"),
                witness: Rc::new(RefCell::new(witness)),
            },
        }
    }

    fn is_wrong(&self) -> bool {
        self.hardware.witness.borrow().wrong.is_some()
    }

    fn note(&self, line: impl FnOnce() -> String) {
        self.hardware.witness.borrow_mut().note(line);
    }

    fn offend(&self, property: &'static str, what: String) {
        self.hardware.witness.borrow_mut().offend(property, what);
    }

    fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.hardware.witness.borrow_mut().tally);
    }

    /// The first boot of all: there is no image.
    pub fn switch_on(&self, seed: u64) -> Option<Rc<Boot>> {
        let boot = Boot::start(&self.hardware, seed);
        match self.boot(&boot, BootOptions::default()) {
            Ok(Booted::Cold(_)) => {
                self.start_job(&boot, false);
                Some(boot)
            }
            other => {
                self.offend("boot", format!("the first boot: {other:?}"));
                boot.end();
                None
            }
        }
    }

    fn start_job(&self, boot: &Boot, recover: bool) {
        match self.ledger {
            true => boot.start_ledger(DATA, recover),
            false => boot.start_writer(DATA),
        }
    }

    /// One cycle, from a machine that runs to one that runs.
    fn cycle(&self, boot: Option<Rc<Boot>>, cycle: &Cycle) -> Option<Rc<Boot>> {
        let boot = boot?;
        self.note(|| format!("{cycle}"));
        boot.rng.replace(SmallRng::seed_from_u64(cycle.seed));
        boot.set_fuse(cycle.cut);
        match self.run_and_freeze(&boot, cycle) {
            Ok(true) => {
                boot.set_fuse(None);
                return Some(boot);
            }
            Ok(false) => {}
            Err(Cut) => self.tally(|tally| tally.cuts += 1),
        }
        boot.end();
        if self.is_wrong() {
            return None;
        }
        self.power_cut(cycle.seed);
        self.boot_until_it_runs(cycle)
    }

    /// Whether the machine runs on.
    fn run_and_freeze(&self, boot: &Rc<Boot>, cycle: &Cycle) -> Result<bool, Cut> {
        // To look through its disk takes the real ledger longer.
        boot.run_for(if self.ledger {
            10 * cycle.run
        } else {
            cycle.run
        })?;
        boot.inject(cycle.fault);
        self.tally(|tally| tally.freezes += 1);
        let ended = self.freeze(boot, cycle.ask)?;
        let standing = match ended {
            Ok(Frozen::Off(_)) => {
                self.hardware.witness.borrow_mut().off();
                self.frozen_on.set(self.hardware.hypervisor.get());
                return Ok(false);
            }
            Ok(Frozen::Thawed(_)) => Standing::Live,
            Err(failure) if cycle.fault.is_none() => {
                self.offend(
                    "freeze",
                    format!("a freeze failed without any fault: {failure}"),
                );
                return Ok(false);
            }
            Err(failure) if failure.left.is_empty() => failure.standing,
            Err(_) => return Ok(false),
        };
        if standing == Standing::Stopped {
            self.tally(|tally| tally.stopped += 1);
            return Ok(false);
        }
        self.tally(|tally| tally.live_again += 1);
        self.hardware.witness.borrow_mut().thawed();
        boot.run_for(NEWS)?;
        // A machine that lost a disk or a vCPU on the way is booted anew.
        Ok(boot.is_live(DATA) && boot.is_live(IMAGE) && !boot.parked.get())
    }

    /// Freezes, whatever goes wrong.
    ///
    /// # Errors
    /// [`Cut`] when the power failed.
    pub fn freeze(&self, boot: &Rc<Boot>, ask: Ask) -> Result<Result<Frozen, Failure>, Cut> {
        let options = FreezeOptions {
            image: Some(boot.side.present(IMAGE)),
            level: ask.level,
            then: match ask.thaw {
                true => Then::Thaw,
                false => Then::PowerOff,
            },
            compress: ask.compress,
            ..FreezeOptions::default()
        };
        if boot.shrink_before_freeze() {
            boot.run_for(NEWS)?;
        }
        let host = SimHost(boot.clone());
        let start = boot.now();
        let _working = boot.disks.begin();
        let ended = boot.run(async move { firn_power::freeze(&host, &options).await })?;
        self.note(|| format!("  {ended:?}"));
        self.bounded("a freeze", boot.now().since(start));
        boot.decided(true);
        Ok(ended)
    }

    fn bounded(&self, what: &str, took: Duration) {
        if took > BOUND {
            self.offend("P5", format!("{what} took {took:?}"));
        }
    }

    /// The machine is off. Of what was not flushed, anything may be lost.
    pub fn power_cut(&self, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x6375_7421);
        for (_, disk) in &self.hardware.disks {
            // All lost, all there, or anything in between.
            let fate = rng.random_range(0..4);
            disk.power_cut(|_, writes| match fate {
                0 => 0,
                1 => writes,
                _ => rng.random_range(0..=writes),
            });
            disk.clear_log();
        }
        let data = &self.hardware.disks[0].1;
        let checked = match self.ledger {
            true => writer::audit(data, &self.hardware.witness.borrow().acks),
            false => writer::check(data, self.hardware.witness.borrow().acked.clone()),
        };
        if let Err(lost) = checked {
            self.offend("P1", lost);
        }
    }

    /// Boots as often as it takes.
    fn boot_until_it_runs(&self, cycle: &Cycle) -> Option<Rc<Boot>> {
        for number in 0..MOST_BOOTS {
            let first = number == 0;
            let seed = cycle.seed.wrapping_add(number as u64 + 1);
            self.hardware.hypervisor.set(cycle.hypervisor);
            let boot = Boot::start(&self.hardware, seed);
            boot.set_fuse(cycle.boot_cut.filter(|_| first));
            boot.inject(cycle.boot_fault.filter(|_| first));
            let faulty = boot.injected.get().is_some();
            let ended = self.boot(&boot, BootOptions::default());
            let runs = match ended {
                Ok(ended) => self.after_boot(&boot, ended, faulty, cycle),
                Err(Cut) => {
                    self.tally(|tally| tally.cuts += 1);
                    false
                }
            };
            boot.set_fuse(None);
            let runs = runs && (!faulty || self.still_runs(&boot));
            if runs && !self.is_wrong() {
                return Some(boot);
            }
            boot.end();
            if self.is_wrong() {
                return None;
            }
            self.power_cut(seed);
        }
        self.offend("boot", format!("no machine runs after {MOST_BOOTS} boots"));
        None
    }

    /// Whether a machine runs once the news of what went wrong have arrived.
    fn still_runs(&self, boot: &Boot) -> bool {
        boot.run_for(NEWS).is_ok() && boot.is_live(DATA) && boot.is_live(IMAGE)
    }

    /// What a boot begins with, whatever goes wrong.
    ///
    /// # Errors
    /// [`Cut`] when the power failed.
    pub fn boot(&self, boot: &Rc<Boot>, options: BootOptions) -> Result<Booted, Cut> {
        let host = SimHost(boot.clone());
        let start = boot.now();
        let _working = boot.disks.begin();
        let ended = boot.run(async move { firn_power::boot(&host, &options).await });
        self.note(|| format!("  {ended:?}"));
        self.bounded("a boot", boot.now().since(start));
        boot.decided(matches!(ended, Ok(Booted::Cold(_) | Booted::Restored(_))));
        ended
    }

    /// Whether the machine runs.
    fn after_boot(&self, boot: &Rc<Boot>, ended: Booted, faulty: bool, cycle: &Cycle) -> bool {
        match ended {
            Booted::Cold(_) => {
                self.tally(|tally| tally.cold += 1);
                self.start_job(boot, true);
            }
            Booted::Restored(restored) => {
                let crossed = self.frozen_on.get() != self.hardware.hypervisor.get();
                self.tally(|tally| {
                    tally.restored += 1;
                    tally.crossed += u64::from(crossed);
                });
                if !restored.left.is_empty() {
                    if !faulty {
                        self.offend("boot", format!("without any fault: {:?}", restored.left));
                    }
                    return false; // jobs go on without a disk: booted anew
                }
            }
            Booted::Refused(refused) => {
                self.tally(|tally| tally.refused += 1);
                if !faulty {
                    let what = format!("refused without any fault: {}", refused.trouble);
                    self.offend("boot", what);
                }
                return cycle.cold && self.go_cold(boot, refused.undecided);
            }
        }
        boot.is_live(DATA) && boot.is_live(IMAGE) && !boot.parked.get()
    }

    /// Somebody says `cold`.
    fn go_cold(&self, boot: &Rc<Boot>, undecided: Vec<DiskId>) -> bool {
        let ended = self.cold(boot, undecided);
        let runs = matches!(ended, Ok(Ok(_)));
        if runs {
            self.tally(|tally| tally.cold += 1);
            self.start_job(boot, true);
        }
        runs && boot.is_live(DATA) && boot.is_live(IMAGE)
    }

    /// `cold`, whatever goes wrong.
    ///
    /// # Errors
    /// [`Cut`] when the power failed.
    pub fn cold(
        &self,
        boot: &Rc<Boot>,
        undecided: Vec<DiskId>,
    ) -> Result<Result<Vec<(DiskId, Generation)>, Trouble>, Cut> {
        let host = SimHost(boot.clone());
        let limits = BootOptions::default().limits;
        let cold = async move { firn_power::cold(&host, limits, &undecided).await };
        let _working = boot.disks.begin();
        let ended = boot.run(cold);
        self.note(|| format!("  cold: {ended:?}"));
        boot.decided(matches!(ended, Ok(Ok(_))));
        ended
    }

    /// How it went.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let witness = self.hardware.witness.borrow();
        Outcome {
            tally: witness.tally,
            wrong: witness.wrong.clone(),
            trace: witness.trace(),
        }
    }
}
