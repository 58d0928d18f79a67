//! The lab that the scenarios of a program share, and another one in its place once
//! it has broken down.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};

/// What is asked of a lab in which a scenario failed.
pub(crate) trait Replaceable {
    /// How many guests the emulator broke so far.
    fn broken_guests(&self) -> usize;

    /// Sees whether it still does what it is known to do.
    ///
    /// # Errors
    /// It does not, and another one may.
    fn works(&self) -> Result<()>;

    /// Ends it at once.
    fn kill(&self);
}

/// The lab of a program; booted by whoever wants it first.
pub(crate) struct Shared<T: 'static>(Mutex<Now<T>>);

struct Now<T: 'static> {
    /// How many labs were replaced.
    generation: u32,
    /// Never freed: scenarios may hold one that is dead already.
    lab: Option<Result<&'static T, String>>,
}

/// How things stood before a scenario.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    generation: u32,
    broken_guests: usize,
}

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Now {
            generation: 0,
            lab: None,
        }))
    }

    /// The lab; `boot` makes it if there is none.
    ///
    /// # Errors
    /// That of `boot`; later callers get the same error.
    pub(crate) fn get(&self, boot: impl FnOnce() -> Result<T>) -> Result<&'static T> {
        let mut now = self.lock();
        let booted = || -> Result<&'static T, String> {
            let lab = boot().map_err(|error| format!("{error:#}"))?;
            Ok(Box::leak(Box::new(lab)))
        };
        let lab = now.lab.get_or_insert_with(booted);
        lab.as_ref().copied().map_err(|error| anyhow!("{error}"))
    }

    fn lock(&self) -> MutexGuard<'_, Now<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Replaceable> Shared<T> {
    /// Notes how things stand, for [`Shared::excuse`].
    pub(crate) fn mark(&self) -> Mark {
        let now = self.lock();
        let lab = now.lab.as_ref().and_then(|lab| lab.as_ref().ok());
        Mark {
            generation: now.generation,
            broken_guests: lab.map_or(0, |lab| lab.broken_guests()),
        }
    }

    /// Why a failure since the mark need not be the scenario's own. A lab that does
    /// not work any more is killed, and the next who wants one boots another; all
    /// others wait meanwhile, so it is replaced once for all who failed in it.
    pub(crate) fn excuse(&self, mark: Mark) -> Option<String> {
        let mut now = self.lock();
        if now.generation != mark.generation {
            return Some("the lab had broken down and was replaced".into());
        }
        let Some(Ok(lab)) = now.lab else { return None };
        if lab.broken_guests() != mark.broken_guests {
            return Some("the emulator broke a guest".into());
        }
        let fault = lab.works().err()?;
        lab.kill();
        now.generation += 1;
        now.lab = None;
        Some(format!("the lab broke down and is replaced ({fault:#})"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use anyhow::{bail, ensure};

    use super::*;

    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) broken_guests: AtomicUsize,
        pub(crate) dead: AtomicBool,
        pub(crate) asked: AtomicUsize,
        pub(crate) killed: AtomicUsize,
    }

    impl Replaceable for Fake {
        fn broken_guests(&self) -> usize {
            self.broken_guests.load(SeqCst)
        }

        fn works(&self) -> Result<()> {
            self.asked.fetch_add(1, SeqCst);
            ensure!(!self.dead.load(SeqCst), "no word from it");
            Ok(())
        }

        fn kill(&self) {
            self.killed.fetch_add(1, SeqCst);
        }
    }

    impl Shared<Fake> {
        pub(crate) fn fake(&self) -> Result<&'static Fake> {
            self.get(|| Ok(Fake::default()))
        }
    }

    #[test]
    fn a_lab_that_does_not_come_up_is_not_booted_again() {
        let labs = Shared::new();
        let mark = labs.mark();
        let why = |lab: Result<&Fake>| lab.err().map(|error| format!("{error:#}"));
        let refused = labs.get(|| bail!("no room"));
        assert_eq!(why(refused), Some("no room".into()));
        assert_eq!(why(labs.fake()), Some("no room".into()));
        assert_eq!(labs.excuse(mark), None);
        assert_eq!(why(labs.fake()), Some("no room".into()));
    }

    #[test]
    fn only_a_lab_that_does_not_work_is_replaced() {
        let labs = Shared::new();
        let mark = labs.mark();
        let first = labs.fake().unwrap();
        assert_eq!(labs.excuse(mark), None);
        assert!(std::ptr::eq(first, labs.fake().unwrap()));
        first.dead.store(true, SeqCst);
        let why = labs.excuse(mark).unwrap();
        assert!(why.contains("no word from it"), "{why}");
        assert_eq!(first.killed.load(SeqCst), 1);
        assert!(!std::ptr::eq(first, labs.fake().unwrap()));
    }

    #[test]
    fn a_new_lab_is_not_asked_for_what_failed_in_the_old_one() {
        let labs = Shared::new();
        let marks = [labs.mark(), labs.mark()];
        labs.fake().unwrap().dead.store(true, SeqCst);
        assert!(labs.excuse(marks[0]).is_some());
        let second = labs.fake().unwrap();
        second.dead.store(true, SeqCst);
        assert!(labs.excuse(marks[1]).is_some());
        assert_eq!(second.asked.load(SeqCst), 0);
        assert!(std::ptr::eq(second, labs.fake().unwrap()));
    }
}
