//! A model of the protocol, small enough to be explored completely.
//!
//! One machine that freezes, is switched off, boots and restores; a data disk
//! and an image disk with volatile caches. The power may fail between any two
//! steps, with any part of the caches lost or torn; every I/O may fail, with or
//! without effect. `stateright` visits every state there is.

mod disk;
mod steps;

use disk::Disk;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::time::{Duration, Instant};

/// Where the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Off,
    Look,
    Load,
    ConsumeWrite,
    ConsumeFlush,
    RetireWrite,
    RetireFlush,
    Running,
    Drain,
    FlushData,
    WriteChunks,
    WriteTable,
    FlushImage,
    WriteHeader,
    FlushHeader,
    ReadBack,
    PowerOff,
    /// Rounds of writing and flushing that are left.
    VoidWrite(u8),
    VoidFlush(u8),
    /// No gate opens any more in this boot, unless the void is tried again.
    Stopped,
    /// Stands at the shell; the image is as it was.
    Refused,
    /// The newest image is spent, as far as the disk's cache knows.
    SpentFlush,
    /// Somebody said `cold`: what is there?
    ColdLook,
    AbandonWrite,
    AbandonFlush,
}

/// What job memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Memory {
    /// The last record written.
    written: u8,
    /// The last record acknowledged.
    acked: u8,
    in_flight: bool,
}

/// What was saved by one freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Image {
    memory: Memory,
    epoch: u8,
}

/// What an omniscient observer knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Seen {
    acked: u8,
    /// How often gates were opened.
    epoch: u8,
    images: Vec<Image>,
    /// A freeze ended in power-off, and its image was not yet used up.
    promised: Option<u8>,
    restored: bool,
    /// The freeze whose restore was begun last.
    begun: Option<u8>,
    restored_again: bool,
    /// This boot has written a header before it went on.
    touched: bool,
    voided: bool,
    abandoned: bool,
    wrong: Option<Wrong>,
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wrong {
    Doubled,
    Mixed,
    Lost,
    NotStill,
    Touched,
    OnlyCopy,
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    cuts: u8,
    faults: u8,
    freezes: u8,
    writes: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    at: At,
    memory: Memory,
    image: Disk,
    data: u8,
    data_cached: Option<u8>,
    /// The freeze that is under way, or whose image is being restored.
    freeze: u8,
    generation: u8,
    slot: usize,
    seen: Seen,
    left: Left,
}

/// A rule of the protocol that may be left out, to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The protocol as it is.
    Nothing,
    /// The freeze does not wait for requests in flight.
    NoDrain,
    /// The data disks are not flushed before the snapshot.
    NoFlushData,
    /// The header is written without a flush of the image before it.
    NoFlushImage,
    /// Power goes off without a flush of the header.
    NoFlushHeader,
    /// The header goes into the slot that holds the latest state.
    SlotsSwapped,
    /// Gates open after a header write failed, without a void.
    NoVoid,
    /// The void is not flushed.
    NoFlushVoid,
    /// Gates open before CONSUMED is durable.
    OpenBeforeConsumed,
    /// Gates open without CONSUMED.
    NoConsume,
    /// CONSUMED is written before the image is verified.
    ConsumeBeforeVerify,
    /// Chunks are not checked against the header.
    NoVerify,
    /// A cold start opens gates over a valid image.
    NoAbandon,
    /// A restore that begins is noted in the header.
    NotesTries,
    /// A restore that fails gives the image up.
    RefusalAbandons,
    /// VALID wins over CONSUMED of the same generation.
    ValidWins,
    /// A cold start believes a spent header that may not be durable.
    NoFlushSpent,
    /// The disk's flush does nothing.
    DiskLies,
}

impl Broken {
    /// Every rule, with the protocol as it is first.
    pub const ALL: [Self; 18] = [
        Self::Nothing,
        Self::NoDrain,
        Self::NoFlushData,
        Self::NoFlushImage,
        Self::NoFlushHeader,
        Self::SlotsSwapped,
        Self::NoVoid,
        Self::NoFlushVoid,
        Self::OpenBeforeConsumed,
        Self::NoConsume,
        Self::ConsumeBeforeVerify,
        Self::NoVerify,
        Self::NoAbandon,
        Self::NotesTries,
        Self::RefusalAbandons,
        Self::ValidWins,
        Self::NoFlushSpent,
        Self::DiskLies,
    ];
}

/// The bounds of what is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Power cuts.
    pub cuts: u8,
    /// I/O errors, each with and without effect.
    pub faults: u8,
    /// Freezes.
    pub freezes: u8,
    /// Records written.
    pub writes: u8,
}

/// The protocol within bounds.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// How much may happen.
    pub bounds: Bounds,
    /// What is left out.
    pub broken: Broken,
}

/// What can happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The machine's next step succeeds.
    Step,
    /// The step's I/O reports an error; whether it took effect.
    Fail(bool),
    /// The power fails; of what is left on the image disk this is one way, and
    /// whether the data disk's cache arrived.
    Cut(usize, bool),
    /// The machine is switched on.
    Boot,
    /// The image's chunks rot while the machine is off.
    Rot,
    /// A job writes a record.
    Write,
    /// A job flushes and acknowledges.
    Sync,
    /// Somebody asks for a freeze.
    Freeze,
    /// Somebody says `cold`, or tries a void again.
    Decide,
}

impl Model for Protocol {
    type State = Hidden;
    type Action = Action;

    fn init_states(&self) -> Vec<Hidden> {
        vec![Hidden(steps::start(self.bounds))]
    }

    fn actions(&self, state: &Hidden, actions: &mut Vec<Action>) {
        steps::actions(&state.0, actions);
    }

    fn next_state(&self, state: &Hidden, action: Action) -> Option<Hidden> {
        steps::next(self.broken, &state.0, &action).map(Hidden)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no acknowledged record is lost", |_, s: &Hidden| {
                s.0.data >= s.0.seen.acked
            }),
            Property::always("an image goes on at most once", |_, s: &Hidden| {
                s.0.seen.wrong != Some(Wrong::Doubled)
            }),
            Property::always("what goes on is what was frozen", |_, s: &Hidden| {
                s.0.seen.wrong != Some(Wrong::Mixed)
            }),
            Property::always("no promised image is lost", |_, s: &Hidden| {
                s.0.seen.wrong != Some(Wrong::Lost)
            }),
            Property::always("nothing is in flight in an image", |_, s: &Hidden| {
                s.0.seen.wrong != Some(Wrong::NotStill)
            }),
            Property::always("a refusal leaves the disk as it was", |_, s: &Hidden| {
                s.0.seen.wrong != Some(Wrong::Touched)
            }),
            Property::always(
                "no header is written over the only copy of the latest",
                |_, s: &Hidden| s.0.seen.wrong != Some(Wrong::OnlyCopy),
            ),
            Property::always(
                "a valid header stands for a whole image",
                |_, s: &Hidden| steps::is_whole(&s.0),
            ),
            Property::sometimes("restored", |_, s: &Hidden| s.0.seen.restored),
            Property::sometimes("restored at a second try", |_, s: &Hidden| {
                s.0.seen.restored_again
            }),
            Property::sometimes("voided", |_, s: &Hidden| s.0.seen.voided),
            Property::sometimes("abandoned", |_, s: &Hidden| s.0.seen.abandoned),
            Property::sometimes("stopped", |_, s: &Hidden| s.0.at == At::Stopped),
        ]
    }
}

/// A state, for the checker's eyes only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hidden(State);

/// What the exploration found.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states visited.
    pub states: usize,
    /// Whether none was left to visit.
    pub complete: bool,
    /// Properties that do not hold, with a short trace of actions.
    pub offences: Vec<(&'static str, Vec<String>)>,
    /// How long it took.
    pub took: Duration,
}

impl Protocol {
    /// Visits every state; stops early once something wrong was found.
    #[must_use]
    pub fn explore(self, threads: usize) -> Explored {
        let start = Instant::now();
        let until = match self.broken {
            Broken::Nothing => HasDiscoveries::All,
            _ => HasDiscoveries::AnyFailures,
        };
        let checker = self.checker().threads(threads).finish_when(until);
        let checker = checker.spawn_bfs().join();
        let mut offences: Vec<_> = checker
            .discoveries()
            .into_iter()
            .filter(|(name, _)| !self.is_wished(name))
            .map(|(name, path)| {
                let actions = path.into_actions();
                (name, actions.iter().map(|a| format!("{a:?}")).collect())
            })
            .collect();
        // A wish that never came true is wrong, too, but has no trace; and it
        // may come true yet where the exploration was stopped.
        let found = checker.discoveries();
        let wishes = self.properties().into_iter().map(|p| p.name);
        let stopped = !offences.is_empty();
        for name in wishes
            .filter(|_| !stopped)
            .filter(|name| self.is_wished(name) && !found.contains_key(name))
        {
            offences.push((name, vec!["never happens".into()]));
        }
        Explored {
            states: checker.unique_state_count(),
            complete: checker.is_done(),
            offences,
            took: start.elapsed(),
        }
    }

    fn is_wished(self, name: &str) -> bool {
        let property = self.properties().into_iter().find(|p| p.name == name);
        property.is_some_and(|p| matches!(p.expectation, stateright::Expectation::Sometimes))
    }
}
