//! Every fault point: each step that a sequence takes, and each thing that may
//! go wrong in it. The list is what the sequences do, not what somebody wrote
//! down.

use crate::boot::{Boot, Cut};
use crate::count::Count;
use crate::fault::{Injected, Kind, kinds};
use crate::life::{DATA, IMAGE, Life};
use crate::script::Ask;
use crate::side::Hypervisor;
use firn_power::{Boot as Booted, BootOptions, Choice, Frozen, Level, Standing, Step};
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// Which sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A freeze that ends with the power off.
    Freeze,
    /// The way back of one that goes on.
    Thaw,
    /// A boot that restores.
    Restore,
    /// `cold` after a refusal.
    Cold,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Freeze, Self::Thaw, Self::Restore, Self::Cold];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Restore => "restore",
            Self::Cold => "cold",
        })
    }
}

/// How a machine stands after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// Jobs go on, all disks work.
    Live,
    /// Jobs go on without what the fault took; it is named.
    Without,
    /// Nothing goes on until the machine is booted.
    Stopped,
    /// At the shell, gates shut, the image as it was.
    Refused,
    /// The image goes on.
    Restored,
    /// The power is off, the image valid: the fault did no harm.
    Frozen,
}

impl fmt::Display for Stands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live again",
            Self::Without => "live, without it",
            Self::Stopped => "stands still",
            Self::Refused => "refused",
            Self::Restored => "restored",
            Self::Frozen => "frozen",
        })
    }
}

/// How long a machine is left to itself before it is looked at.
const AFTER: Duration = Duration::from_millis(200);
/// So many times more, until its disks are there: a backend that hung may have to
/// be asked again.
const PATIENCE: u32 = 14;

/// One fault point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// On which hypervisor. What is restored on Hyper-V was frozen on Xen.
    pub on: Hypervisor,
    /// In which sequence.
    pub phase: Phase,
    /// What and where.
    pub fault: Injected,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where and what.
    pub point: Point,
    /// How the machine stood.
    pub stands: Stands,
    /// What the guest had of the hypervisor before, at rest.
    pub before: Count,
    /// What it had after.
    pub after: Count,
    /// What is left of that once every disk is disconnected: nothing.
    pub left: Count,
    /// Whether the headers on the image disk are as they were.
    pub same_headers: bool,
    /// Whether the next boot restores an image.
    pub next_restores: bool,
    /// What was wrong with that, if anything.
    pub wrong: Option<String>,
}

/// What the design says.
#[must_use]
pub const fn expected(point: &Point) -> Stands {
    let Injected { step, kind, .. } = point.fault;
    if let (Hypervisor::HyperV, Some(stands)) = (point.on, on_hyperv(point.phase, step, kind)) {
        return stands;
    }
    match point.phase {
        Phase::Freeze => after_freeze(step, kind),
        Phase::Thaw => after_thaw(step, kind),
        Phase::Restore => after_restore(step, kind),
        Phase::Cold => Stands::Refused,
    }
}

/// Kinds after which the disk is lost to this boot.
const fn is_lost(kind: Kind) -> bool {
    matches!(kind, Kind::Gone | Kind::Breaks)
}

/// What is different there: the host takes a controller back at once, where a
/// backend closes in the next step or two; a disk that is gone has nothing to be
/// disconnected; memory belongs to a channel, whose end is not known then.
const fn on_hyperv(phase: Phase, step: Step, kind: Kind) -> Option<Stands> {
    Some(match (phase, step, kind) {
        (Phase::Freeze, Step::Disconnect, Kind::Closes)
        | (Phase::Freeze, Step::DisconnectImage, Kind::KeepsPages) => Stands::Live,
        (Phase::Freeze, Step::WriteHeader | Step::FlushHeader | Step::ReadBack, Kind::Closes)
        | (Phase::Thaw, Step::Verify, Kind::Closes) => Stands::Stopped,
        (Phase::Freeze, Step::DisconnectImage, Kind::Gone) => Stands::Frozen,
        (Phase::Restore, Step::DisconnectImage, Kind::Closes) => Stands::Refused,
        _ => return None,
    })
}

const fn after_freeze(step: Step, kind: Kind) -> Stands {
    match (step, kind) {
        // What fails for a job is tried again by it after the restore.
        (Step::Drain, Kind::Error)
        // Both ends close, for two reasons.
        | (Step::Disconnect, Kind::Closes)
        // Said again over the new connection.
        | (_, Kind::Reset)
        // The image is durable by then, and none of its memory was granted for
        // longer than a request.
        | (Step::DisconnectImage, Kind::KeepsPages | Kind::Closes) => Stands::Frozen,
        // The header is durable, or may be, and its disk is away.
        (
            Step::WriteHeader | Step::FlushHeader | Step::ReadBack,
            Kind::Gone | Kind::Breaks | Kind::Hangs,
        )
        | (Step::DisconnectImage, Kind::Gone | Kind::Hangs) => Stands::Stopped,
        _ if is_lost(kind) => Stands::Without,
        _ => Stands::Live,
    }
}

const fn after_thaw(step: Step, kind: Kind) -> Stands {
    match (step, kind) {
        (Step::Void | Step::Unpark, _) => Stands::Stopped,
        (Step::Verify, Kind::Hangs) => Stands::Stopped,
        (Step::Verify, _) if is_lost(kind) => Stands::Stopped,
        (Step::Reconnect, _) if is_lost(kind) => Stands::Without,
        // Opened, or connected again, once nobody decides any more.
        _ => Stands::Live,
    }
}

const fn after_restore(step: Step, kind: Kind) -> Stands {
    match (step, kind) {
        (Step::Unpark, _) => Stands::Stopped,
        // After CONSUMED there is no way back, and none is needed.
        (Step::Retire | Step::Reconnect, _) if is_lost(kind) => Stands::Without,
        (Step::Retire | Step::Reconnect | Step::Open, _) | (_, Kind::Reset) => Stands::Restored,
        (Step::DisconnectImage, Kind::Closes) => Stands::Restored,
        _ => Stands::Refused,
    }
}

/// All fault points: every step that each sequence takes when nothing goes
/// wrong, and everything that may go wrong in it.
#[must_use]
pub fn points(on: Hypervisor) -> Vec<Point> {
    let mut all = Vec::new();
    let mut known = BTreeSet::new();
    for phase in Phase::ALL {
        for step in steps(on, phase) {
            // What a freeze shows, its way back need not show again.
            if phase == Phase::Thaw && known.contains(&step) {
                continue;
            }
            if phase == Phase::Freeze {
                known.insert(step);
            }
            let kinds = kinds(step).iter().filter(|kind| kind.happens(on, step));
            all.extend(kinds.map(|kind| Point {
                on,
                phase,
                fault: Injected {
                    step,
                    kind: *kind,
                    always: true,
                },
            }));
        }
    }
    all
}

/// The steps that a sequence takes.
///
/// # Panics
/// When it does not come to its end.
#[must_use]
pub fn steps(on: Hypervisor, phase: Phase) -> BTreeSet<Step> {
    let stage = Stage::set(on, phase);
    stage.boot.steps.borrow_mut().clear();
    let stands = stage.act();
    let steps = stage.boot.steps.borrow().clone();
    stage.leave();
    assert!(stands.is_ok(), "{phase}: {stands:?}");
    steps
}

/// Injects a fault and looks at what is left.
#[must_use]
pub fn run(point: Point) -> Row {
    let stage = Stage::set(point.on, point.phase);
    let headers = stage.image_headers();
    let before = Count::at_rest(&stage.boot);
    let written = stage.writes();
    stage.boot.inject(Some(point.fault));
    let (stands, mut wrong) = match stage.act() {
        Ok(stands) => (stands, None),
        Err(wrong) => (Stands::Stopped, Some(wrong)),
    };
    let after = Count::at_rest(&stage.boot);
    let same_headers = headers == stage.image_headers();
    let untouched = stage.is_untouched(point, stands, written);
    if stands != expected(&point) {
        wrong = wrong.or(Some(format!("expected: {}", expected(&point))));
    }
    let idle = stage.goes_on(stands);
    let (left, leaked) = Count::disconnected(&stage.boot);
    let (next_restores, broken) = stage.afterwards(point, stands, same_headers);
    Row {
        point,
        stands,
        before,
        after,
        left,
        same_headers,
        next_restores,
        wrong: wrong.or(untouched).or(idle).or(leaked).or(broken),
    }
}

/// A machine about to take the steps of a phase.
struct Stage {
    life: Life,
    boot: Rc<Boot>,
    phase: Phase,
}

impl Stage {
    /// A machine that was restored once already, so that there is a previous
    /// image.
    fn set(on: Hypervisor, phase: Phase) -> Self {
        let life = Life::new(false, false);
        let restores = matches!(phase, Phase::Restore | Phase::Cold);
        let before = match on {
            Hypervisor::HyperV if restores => on.other(),
            _ => on,
        };
        life.hardware.hypervisor.set(before);
        let boot = life.switch_on(1).unwrap_or_else(|| panic!("no first boot"));
        let boot = life.again(boot).unwrap_or_else(|| panic!("no restore"));
        let mut stage = Self { life, boot, phase };
        if restores {
            let frozen = stage.life.freeze(&stage.boot, Ask::FULL);
            assert!(matches!(frozen, Ok(Ok(Frozen::Off(_)))), "{frozen:?}");
            stage.life.hardware.witness.borrow_mut().off();
            stage.life.hardware.hypervisor.set(on);
            stage.switch_on(2);
        }
        stage
    }

    fn switch_on(&mut self, seed: u64) {
        self.boot.clone().end();
        self.life.power_cut(seed);
        self.boot = Boot::start(&self.life.hardware, seed);
    }

    /// The sequence itself, and a while after it.
    fn act(&self) -> Result<Stands, String> {
        let stands = match self.phase {
            Phase::Freeze => self.freeze(Level::Full),
            Phase::Thaw => self.freeze(Level::Verify),
            Phase::Restore => self.restore(),
            Phase::Cold => self.go_cold(),
        };
        stands.map_err(|Cut| "the machine hangs".to_owned())?
    }

    /// Leaves the machine to itself.
    fn rest(&self) -> Result<(), Cut> {
        self.boot.wait(AFTER)?;
        for _ in 0..PATIENCE {
            if self.is_whole() {
                break;
            }
            self.boot.wait(AFTER)?;
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.boot.is_live(DATA) && self.boot.is_live(IMAGE)
    }

    fn freeze(&self, level: Level) -> Result<Result<Stands, String>, Cut> {
        let boot = &self.boot;
        boot.until_busy(DATA)?;
        let ask = Ask { level, ..Ask::FULL };
        let frozen = self.life.freeze(boot, ask)?;
        self.rest()?;
        Ok(match frozen {
            Ok(Frozen::Off(_)) => Ok(Stands::Frozen),
            Ok(Frozen::Thawed(_)) => Ok(Stands::Live),
            Err(failure) if failure.standing == Standing::Stopped => Ok(Stands::Stopped),
            Err(failure) if boot.parked.get() => Err(failure.to_string()),
            Err(_) if self.is_whole() => Ok(Stands::Live),
            Err(_) => Ok(Stands::Without),
        })
    }

    fn restore(&self) -> Result<Result<Stands, String>, Cut> {
        let booted = self.life.boot(&self.boot, BootOptions::default())?;
        self.rest()?;
        Ok(match booted {
            Booted::Restored(_) if self.boot.parked.get() => Ok(Stands::Stopped),
            Booted::Restored(_) if self.is_whole() => Ok(Stands::Restored),
            Booted::Restored(_) => Ok(Stands::Without),
            Booted::Refused(_) => Ok(Stands::Refused),
            Booted::Cold(_) => Err("it went on cold".into()),
        })
    }

    fn go_cold(&self) -> Result<Result<Stands, String>, Cut> {
        let boot = &self.boot;
        let fault = boot.injected.take();
        let options = BootOptions {
            image: Choice::None,
            ..BootOptions::default()
        };
        let Booted::Refused(refused) = self.life.boot(boot, options)? else {
            return Ok(Err("not refused".into()));
        };
        boot.steps.borrow_mut().clear();
        boot.inject(fault);
        let cold = self.life.cold(boot, refused.undecided)?;
        self.rest()?;
        Ok(Ok(match cold {
            Ok(_) => Stands::Live,
            Err(_) => Stands::Refused,
        }))
    }

    /// Whether jobs of a machine that is live really work.
    fn goes_on(&self, stands: Stands) -> Option<String> {
        let life = &self.life;
        if matches!(self.phase, Phase::Freeze | Phase::Thaw)
            && !matches!(stands, Stands::Stopped | Stands::Frozen)
        {
            life.hardware.witness.borrow_mut().thawed();
        }
        if self.phase == Phase::Cold || !matches!(stands, Stands::Live | Stands::Restored) {
            return None;
        }
        let acked = || life.hardware.witness.borrow().tally.acked;
        let before = acked();
        let ran = self.boot.run_for(400);
        (ran.is_err() || acked() == before).then(|| "the job does not go on".to_owned())
    }

    fn image_headers(&self) -> Vec<u8> {
        self.life.hardware.disks[1].1.content(0, 16)
    }

    fn writes(&self) -> u64 {
        let disks = self.life.hardware.disks.iter();
        disks.map(|(_, disk)| disk.writes()).sum()
    }

    /// A restore that is refused before its image may be used up has written
    /// nothing.
    fn is_untouched(&self, point: Point, stands: Stands, before: u64) -> Option<String> {
        let refused = self.phase == Phase::Restore && stands == Stands::Refused;
        let reads_only = refused && point.fault.step != Step::Consume;
        let touched = reads_only && self.writes() != before;
        touched.then(|| "refused, and something was written".to_owned())
    }

    /// Whether the design's word is kept afterwards: an image that is promised is
    /// restored by the next boot, one that was taken back is not. Whether it was
    /// restored, and what is wrong with that.
    fn afterwards(
        self,
        point: Point,
        stands: Stands,
        same_headers: bool,
    ) -> (bool, Option<String>) {
        // A backend that closes does so in the next step or two.
        let first = match point.fault.kind {
            Kind::Closes => Step::FlushImage,
            _ => Step::WriteHeader,
        };
        let early = self.phase == Phase::Freeze && point.fault.step < first;
        let touched = early && !same_headers && stands != Stands::Frozen;
        let touched = touched.then(|| "the previous image was touched".to_owned());
        let life = &self.life;
        if stands == Stands::Frozen {
            life.hardware.witness.borrow_mut().off();
        }
        self.boot.end();
        life.power_cut(3);
        let next = Boot::start(&life.hardware, 3);
        let booted = life.boot(&next, BootOptions::default());
        next.end();
        // A refused image is lost to nobody: only one that may have been used
        // up or given up is not there any more.
        let may_be_gone = self.phase == Phase::Cold || point.fault.step == Step::Consume;
        let fits = match (&booted, stands) {
            (Ok(Booted::Restored(_)), Stands::Refused | Stands::Stopped | Stands::Frozen)
            | (
                Ok(Booted::Cold(_)),
                Stands::Live | Stands::Without | Stands::Stopped | Stands::Restored,
            ) => true,
            (Ok(Booted::Cold(_)), Stands::Refused) => may_be_gone,
            _ => false,
        };
        let restored = matches!(booted, Ok(Booted::Restored(_)));
        let other = (!fits).then(|| format!("the next boot: {booted:?}"));
        let witnessed = self.life.finish().wrong.map(|wrong| wrong.to_string());
        (restored, touched.or(other).or(witnessed))
    }

    fn leave(self) {
        self.boot.end();
        let _ = self.life.finish();
    }
}

impl Life {
    /// A freeze and a restore.
    fn again(&self, boot: Rc<Boot>) -> Option<Rc<Boot>> {
        boot.run_for(300).ok()?;
        let frozen = self.freeze(&boot, Ask::FULL);
        self.hardware.witness.borrow_mut().off();
        boot.end();
        self.power_cut(1);
        let boot = Boot::start(&self.hardware, 1);
        let restored = self.boot(&boot, BootOptions::default());
        boot.run_for(100).ok()?;
        matches!(
            (frozen, restored),
            (Ok(Ok(Frozen::Off(_))), Ok(Booted::Restored(_)))
        )
        .then_some(boot)
    }
}
