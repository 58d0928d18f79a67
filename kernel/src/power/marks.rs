//! When the steps of the present sequence began.

use core::cell::RefCell;
use core::time::Duration;

use firn_power::Step;
use firn_task::Instant;

const STEPS: usize = Step::ALL.len();

/// The first and the last time that each step began.
pub(super) struct Marks(RefCell<[Option<(Instant, Instant)>; STEPS]>);

impl Default for Marks {
    fn default() -> Self {
        Self(RefCell::new([None; STEPS]))
    }
}

impl Marks {
    /// Forgets everything: a sequence begins.
    pub(super) fn clear(&self) {
        *self.0.borrow_mut() = [None; STEPS];
    }

    /// Notes that a step begins.
    pub(super) fn enter(&self, step: Step, now: Instant) {
        if let Some(mark) = self.0.borrow_mut().get_mut(step as usize) {
            let first = mark.map_or(now, |(first, _)| first);
            *mark = Some((first, now));
        }
    }

    /// When a step first began.
    pub(super) fn first(&self, step: Step) -> Option<Instant> {
        self.0.borrow().get(step as usize).copied()?.map(|m| m.0)
    }

    /// When a step last began.
    fn last(&self, step: Step) -> Option<Instant> {
        self.0.borrow().get(step as usize).copied()?.map(|m| m.1)
    }

    /// From the first beginning of one step to that of another.
    pub(super) fn between(&self, from: Step, to: Step) -> Option<Duration> {
        Some(self.first(to)?.since(self.first(from)?))
    }

    /// What it took to have the host map lanes, before it went on with `then`.
    pub(super) fn map(&self, then: Step) -> Option<Duration> {
        Some(self.last(then)?.since(self.first(Step::MapLanes)?))
    }

    /// What it took to read an image. The step begins by opening the disk, and
    /// again once lanes are mapped.
    pub(super) fn load(&self) -> Option<Duration> {
        Some(self.first(Step::Adopt)?.since(self.last(Step::Load)?))
    }
}
