//! Every fault point: each step that a sequence takes, and each thing that may
//! go wrong in it. The list is what the sequences do, not what somebody wrote
//! down.

use crate::boot::{Boot, Cut};
use crate::fault::{Injected, Kind, kinds};
use crate::life::{DATA, IMAGE, Life};
use crate::script::Ask;
use firn_block::Queue;
use firn_power::{Boot as Booted, BootOptions, Choice, Frozen, Level, Standing, Step};
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

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
}

impl fmt::Display for Stands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live again",
            Self::Without => "live, without it",
            Self::Stopped => "stands still",
            Self::Refused => "refused",
            Self::Restored => "restored",
        })
    }
}

/// One fault point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
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
    /// What was wrong with that, if anything.
    pub wrong: Option<String>,
}

/// What the design says.
#[must_use]
pub const fn expected(point: &Point) -> Stands {
    let Injected { step, kind, .. } = point.fault;
    match (point.phase, step, kind) {
        // The header is durable, or may be, and its disk is away.
        (
            Phase::Freeze,
            Step::WriteHeader | Step::FlushHeader | Step::ReadBack | Step::DisconnectImage,
            Kind::Gone,
        )
        | (Phase::Thaw, Step::Void, _)
        | (Phase::Thaw, Step::Verify, Kind::Gone)
        | (Phase::Thaw | Phase::Restore, Step::Unpark, _) => Stands::Stopped,
        // The disk went away, or could not be brought back.
        (Phase::Freeze, _, Kind::Gone)
        | (Phase::Freeze, Step::DisconnectImage, _)
        | (Phase::Thaw, Step::Reconnect | Step::Open, _) => Stands::Without,
        (Phase::Freeze | Phase::Thaw, _, _) => Stands::Live,
        // After CONSUMED there is no way back, and none is needed.
        (Phase::Restore, Step::Retire | Step::Reconnect | Step::Open, _) => Stands::Without,
        (Phase::Restore | Phase::Cold, _, _) => Stands::Refused,
    }
}

/// All fault points: every step that each sequence takes when nothing goes
/// wrong, and everything that may go wrong in it.
#[must_use]
pub fn points() -> Vec<Point> {
    let mut all = Vec::new();
    let mut known = BTreeSet::new();
    for phase in Phase::ALL {
        for step in steps(phase) {
            // What a freeze shows, its way back need not show again.
            if phase == Phase::Thaw && known.contains(&step) {
                continue;
            }
            if phase == Phase::Freeze {
                known.insert(step);
            }
            all.extend(kinds(step).iter().map(|kind| Point {
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
pub fn steps(phase: Phase) -> BTreeSet<Step> {
    let stage = Stage::set(phase);
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
    let stage = Stage::set(point.phase);
    let before = stage.image_headers();
    let written = stage.writes();
    stage.boot.injected.set(Some(point.fault));
    let (stands, mut wrong) = match stage.act() {
        Ok(stands) => (stands, None),
        Err(wrong) => (Stands::Stopped, Some(wrong)),
    };
    let same = before == stage.image_headers();
    let untouched = stage.is_untouched(point, stands, written);
    let leaked = stage.leaked();
    let after = stage.afterwards(point, stands, same);
    if stands != expected(&point) {
        wrong = wrong.or(Some(format!("expected: {}", expected(&point))));
    }
    Row {
        point,
        stands,
        wrong: wrong.or(untouched).or(leaked).or(after),
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
    fn set(phase: Phase) -> Self {
        let life = Life::new(false, false);
        let boot = life.switch_on(1).unwrap_or_else(|| panic!("no first boot"));
        let boot = life.again(boot).unwrap_or_else(|| panic!("no restore"));
        let mut stage = Self { life, boot, phase };
        if matches!(phase, Phase::Restore | Phase::Cold) {
            let frozen = stage.life.freeze(&stage.boot, Ask::FULL);
            assert!(matches!(frozen, Ok(Ok(Frozen::Off(_)))), "{frozen:?}");
            stage.life.hardware.witness.borrow_mut().off();
            stage.switch_on(2);
        }
        stage
    }

    fn switch_on(&mut self, seed: u64) {
        self.boot.clone().end();
        self.life.power_cut(seed);
        self.boot = Boot::start(&self.life.hardware, seed);
    }

    /// The sequence itself.
    fn act(&self) -> Result<Stands, String> {
        let cut = |Cut| "the machine hangs".to_owned();
        let (life, boot) = (&self.life, &self.boot);
        match self.phase {
            Phase::Freeze | Phase::Thaw => {
                let ask = Ask {
                    level: match self.phase {
                        Phase::Thaw => Level::Verify,
                        _ => Level::Full,
                    },
                    ..Ask::FULL
                };
                match life.freeze(boot, ask).map_err(cut)? {
                    Ok(Frozen::Off(_)) => Ok(Stands::Stopped),
                    Ok(Frozen::Thawed(_)) => Ok(Stands::Live),
                    Err(failure) if failure.standing == Standing::Stopped => Ok(Stands::Stopped),
                    Err(_) if !boot.is_live(DATA) || !boot.is_live(IMAGE) => Ok(Stands::Without),
                    Err(failure) if !failure.left.is_empty() => Ok(Stands::Without),
                    Err(failure) if self.boot.parked.get() => Err(failure.to_string()),
                    Err(_) => Ok(Stands::Live),
                }
            }
            Phase::Restore => match life.boot(boot, BootOptions::default()).map_err(cut)? {
                Booted::Restored(restored) if restored.left.is_empty() => Ok(Stands::Restored),
                Booted::Restored(_) if boot.parked.get() => Ok(Stands::Stopped),
                Booted::Restored(_) => Ok(Stands::Without),
                Booted::Refused(_) => Ok(Stands::Refused),
                Booted::Cold(_) => Err("it went on cold".into()),
            },
            Phase::Cold => {
                let fault = boot.injected.take();
                let options = BootOptions {
                    image: Choice::None,
                    ..BootOptions::default()
                };
                let Booted::Refused(refused) = life.boot(boot, options).map_err(cut)? else {
                    return Err("not refused".into());
                };
                boot.steps.borrow_mut().clear();
                boot.injected.set(fault);
                match life.cold(boot, refused.undecided).map_err(cut)? {
                    Ok(_) => Ok(Stands::Live),
                    Err(_) => Ok(Stands::Refused),
                }
            }
        }
    }

    fn image_headers(&self) -> Vec<u8> {
        let mut headers = vec![0; 8192];
        self.life.hardware.disks[1].1.read(0, &mut headers);
        headers
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

    /// What somebody still holds that nobody uses.
    fn leaked(&self) -> Option<String> {
        let boot = &self.boot;
        let _ = boot.run_for(60);
        boot.reap(); // late answers
        let disks = boot.disks.borrow();
        let borrowed = disks.values().any(|disk| disk.borrowed > 0);
        let in_flight = disks[&IMAGE].in_flight();
        match (boot.lent.get(), borrowed, in_flight) {
            (false, false, 0) => None,
            other => Some(format!("leaked: {other:?}")),
        }
    }

    /// Whether the design's word is kept afterwards: who is live works on, and
    /// can be frozen and restored; who stopped or was refused is restored by
    /// the next boot.
    fn afterwards(self, point: Point, stands: Stands, same_headers: bool) -> Option<String> {
        let wrong = match stands {
            Stands::Live | Stands::Without if self.phase == Phase::Freeze => {
                let early = point.fault.step < Step::WriteHeader;
                (early && !same_headers).then(|| "the previous image was touched".to_owned())
            }
            _ => None,
        };
        let life = &self.life;
        if matches!(self.phase, Phase::Freeze | Phase::Thaw) && stands != Stands::Stopped {
            life.hardware.witness.borrow_mut().thawed();
        }
        let acked = life.hardware.witness.borrow().tally.acked;
        let boot = self.boot;
        if stands == Stands::Live && boot.run_for(400).is_ok() {
            let now = life.hardware.witness.borrow().tally.acked;
            if now == acked && self.phase != Phase::Cold {
                return Some("the job does not go on".into());
            }
        }
        boot.end();
        life.power_cut(3);
        let next = Boot::start(&life.hardware, 3);
        let booted = life.boot(&next, BootOptions::default());
        let ended = match (&booted, stands) {
            (Ok(Booted::Restored(_)), Stands::Refused | Stands::Stopped)
            | (Ok(Booted::Cold(_)), _) => None,
            (other, _) => Some(format!("the next boot: {other:?}")),
        };
        // A refused image is lost to nobody: only one that may have been used
        // up or given up is not there any more.
        let used_up = self.phase == Phase::Cold || point.fault.step == Step::Consume;
        let lost = matches!(booted, Ok(Booted::Cold(_))) && stands == Stands::Refused && !used_up;
        next.end();
        let witnessed = self.life.finish().wrong.map(|wrong| wrong.to_string());
        wrong
            .or(ended)
            .or(lost.then(|| "the refused image is gone".to_owned()))
            .or(witnessed)
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
