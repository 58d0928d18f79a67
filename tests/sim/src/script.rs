//! What happens in one life of a machine: made from a seed, and made smaller
//! when it shows something wrong.

use crate::fault::{Injected, kinds};
use crate::side::Hypervisor;
use firn_power::{Level, Step};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::fmt;

/// How a freeze is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How far it goes.
    pub level: Level,
    /// Whether the machine goes on afterwards.
    pub thaw: bool,
    /// Whether chunks are compressed.
    pub compress: bool,
}

impl Ask {
    /// A freeze to its end.
    pub const FULL: Self = Self {
        level: Level::Full,
        thaw: false,
        compress: false,
    };
}

/// Passes that a freeze takes, or a few more.
const FREEZE: u64 = 120;
/// The same of a boot that restores.
const BOOT: u64 = 160;

/// One cycle: jobs run, a freeze, an end, a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Seed of every choice that is not written down here.
    pub seed: u64,
    /// Passes before the freeze.
    pub run: u64,
    /// The freeze.
    pub ask: Ask,
    /// The power fails after so many passes from the cycle's start.
    pub cut: Option<u64>,
    /// What goes wrong in the freeze.
    pub fault: Option<Injected>,
    /// The power fails after so many passes of the first boot.
    pub boot_cut: Option<u64>,
    /// What goes wrong in the first boot.
    pub boot_fault: Option<Injected>,
    /// Whether whoever stands at the shell of a refused boot says `cold`.
    pub cold: bool,
    /// Where the machine boots after the freeze.
    pub hypervisor: Hypervisor,
}

impl Cycle {
    fn draw(rng: &mut SmallRng) -> Self {
        let levels = Level::ALL;
        let full = rng.random_bool(0.85);
        let level = match full {
            true => Level::Full,
            false => levels[rng.random_range(0..levels.len())],
        };
        let run = rng.random_range(0..160);
        Self {
            seed: rng.random(),
            run,
            ask: Ask {
                level,
                thaw: rng.random_bool(0.05),
                compress: rng.random_bool(0.2),
            },
            cut: rng
                .random_bool(0.25)
                .then(|| rng.random_range(0..run + FREEZE)),
            fault: rng.random_bool(0.15).then(|| injected(rng)),
            boot_cut: rng.random_bool(0.25).then(|| rng.random_range(0..BOOT)),
            boot_fault: rng.random_bool(0.12).then(|| injected(rng)),
            cold: rng.random_bool(0.2),
            hypervisor: Hypervisor::draw(rng),
        }
    }

    /// The same with less in it, each in one way.
    fn simpler(self) -> Vec<Self> {
        let mut all = vec![
            Self { cut: None, ..self },
            Self {
                fault: None,
                ..self
            },
            Self {
                boot_cut: None,
                ..self
            },
            Self {
                boot_fault: None,
                ..self
            },
            Self {
                cold: false,
                ..self
            },
            Self {
                ask: Ask::FULL,
                ..self
            },
            Self {
                hypervisor: Hypervisor::Xen,
                ..self
            },
            Self { run: 0, ..self },
            Self {
                run: self.run / 2,
                ..self
            },
        ];
        all.retain(|other| *other != self);
        all
    }
}

fn injected(rng: &mut SmallRng) -> Injected {
    let step = Step::ALL[rng.random_range(0..Step::ALL.len())];
    let kinds = kinds(step);
    Injected {
        step,
        kind: kinds[rng.random_range(0..kinds.len())],
        always: rng.random_bool(0.3),
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}, freeze", self.run)?;
        if self.ask.level != Level::Full {
            write!(f, " level={:?}", self.ask.level)?;
        }
        if self.ask.thaw {
            f.write_str(" then=thaw")?;
        }
        if let Some(fault) = self.fault {
            write!(f, ", {fault}")?;
        }
        if let Some(cut) = self.cut {
            write!(f, ", power cut after {cut}")?;
        }
        write!(f, "; boot on {}", self.hypervisor)?;
        if let Some(fault) = self.boot_fault {
            write!(f, ", {fault}")?;
        }
        if let Some(cut) = self.boot_cut {
            write!(f, ", power cut after {cut}")?;
        }
        if self.cold {
            f.write_str(", cold if refused")?;
        }
        Ok(())
    }
}

/// A whole life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The cycles in their order.
    pub cycles: Vec<Cycle>,
    /// Where the machine boots first.
    pub first: Hypervisor,
    /// Whether the disks only say that they flush.
    pub lying: bool,
    /// Whether the job is the real `ledger`, or the small writer of records.
    pub ledger: bool,
}

impl Script {
    /// The life of `seed`.
    #[must_use]
    pub fn draw(seed: u64, cycles: usize, lying: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            cycles: (0..cycles).map(|_| Cycle::draw(&mut rng)).collect(),
            first: Hypervisor::draw(&mut rng),
            lying,
            ledger: seed.is_multiple_of(8),
        }
    }

    /// A script as small as can be found for which `is_wrong` still holds.
    #[must_use]
    pub fn shrink(mut self, is_wrong: impl Fn(&Self) -> bool) -> Self {
        loop {
            let smaller = self.candidates().into_iter().find(&is_wrong);
            match smaller {
                Some(smaller) => self = smaller,
                None => return self,
            }
        }
    }

    /// Scripts with one thing less.
    fn candidates(&self) -> Vec<Self> {
        let with = |cycles| Self { cycles, ..*self };
        let mut all = Vec::new();
        if self.first != Hypervisor::Xen {
            let mut other = self.clone();
            other.first = Hypervisor::Xen;
            all.push(other);
        }
        for half in [self.cycles.len() / 2, 1] {
            if half > 0 && half < self.cycles.len() {
                all.push(with(self.cycles[half..].to_vec()));
                all.push(with(self.cycles[..self.cycles.len() - half].to_vec()));
            }
        }
        for at in 0..self.cycles.len() {
            let mut fewer = self.cycles.clone();
            fewer.remove(at);
            if !fewer.is_empty() {
                all.push(with(fewer));
            }
            for simpler in self.cycles[at].simpler() {
                let mut other = self.cycles.clone();
                other[at] = simpler;
                all.push(with(other));
            }
        }
        all
    }
}
