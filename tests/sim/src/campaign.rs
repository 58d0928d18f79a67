//! Many lives, on every CPU there is.

use crate::life::{Outcome, play};
use crate::script::Script;
use crate::witness::{Tally, Wrong};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Cycles of one life.
pub const LIFE: u64 = 20;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Freeze and restore cycles in all.
    pub cycles: u64,
    /// Seed of the first life; the next has the next.
    pub seed: u64,
    /// Whether disks only say that they flush.
    pub lying: bool,
    /// How many lives at a time.
    pub threads: usize,
}

/// A life that went wrong.
#[derive(Clone, Debug)]
pub struct Failing {
    /// Its seed.
    pub seed: u64,
    /// What was wrong.
    pub wrong: Wrong,
    /// The smallest script that still shows something wrong.
    pub script: Script,
    /// The end of its trace.
    pub trace: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Cycles played.
    pub cycles: u64,
    /// What happened.
    pub tally: Tally,
    /// The life with the lowest seed that went wrong.
    pub failing: Option<Failing>,
    /// How long it took.
    pub took: Duration,
}

impl Campaign {
    /// Plays all lives, or until one goes wrong. `tick` is told of each life's
    /// cycles.
    pub fn run(&self, tick: impl Fn(u64) + Sync) -> Report {
        let start = Instant::now();
        let lives = self.cycles.div_ceil(LIFE);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let total = Mutex::new((0, Tally::default(), None::<(u64, Wrong)>));
        let worker = || {
            while !stop.load(Ordering::Relaxed) {
                let life = next.fetch_add(1, Ordering::Relaxed);
                if life >= lives {
                    return;
                }
                let seed = self.seed.wrapping_add(life);
                let Outcome { tally, wrong, .. } = play(&self.script(seed), false);
                let Ok(mut total) = total.lock() else {
                    return;
                };
                total.0 += LIFE;
                total.1.add(&tally);
                if let Some(wrong) = wrong {
                    stop.store(true, Ordering::Relaxed);
                    if total.2.as_ref().is_none_or(|(first, _)| seed < *first) {
                        total.2 = Some((seed, wrong));
                    }
                }
                drop(total);
                tick(LIFE);
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(worker);
            }
            worker();
        });
        let total = total.into_inner();
        let (cycles, tally, wrong) = total.unwrap_or((0, Tally::default(), None));
        Report {
            cycles,
            tally,
            failing: wrong.map(|(seed, wrong)| self.failing(seed, wrong)),
            took: start.elapsed(),
        }
    }

    fn script(&self, seed: u64) -> Script {
        Script::draw(seed, LIFE as usize, self.lying)
    }

    fn failing(&self, seed: u64, wrong: Wrong) -> Failing {
        let script = self
            .script(seed)
            .shrink(|script| play(script, false).wrong.is_some());
        let trace = play(&script, true).trace;
        Failing {
            seed,
            wrong,
            script,
            trace,
        }
    }
}
