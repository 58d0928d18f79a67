//! Scenarios that are run once more when the emulator broke a guest, or the lab.

use anyhow::Result;
use firn_lab::Host;

use crate::bench::Bench;
use crate::shared::{Replaceable, Shared};

/// How often a scenario is begun: on a busy machine two breakages in a row have
/// to be reckoned with.
const TRIES: u32 = 3;

/// Runs a scenario in this host's shared lab. If it fails and the emulator broke a
/// guest meanwhile ([`firn_lab::Lab::broken`]), or the lab itself, runs it again, and
/// says so. A lab that is broken is replaced by a new one before that. A failure
/// without either stands.
///
/// # Errors
/// The scenario's; or the host has no shared lab.
pub fn again<T>(host: Host, body: impl FnMut() -> Result<T>) -> Result<T> {
    repeat(Bench::labs(host)?, body)
}

fn repeat<L: Replaceable, T>(labs: &Shared<L>, mut body: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        let before = labs.mark();
        let result = body();
        let Err(error) = &result else { return result };
        let Some(why) = labs.excuse(before) else {
            return result;
        };
        eprintln!("{why} (docs/lab.md); once more, after: {error:#}");
    }
    body()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::shared::tests::Fake;
    use anyhow::bail;

    /// Runs a scenario whose first runs so `spoil` the lab that it fails for it, and
    /// whose others fail by themselves: why it failed, and how often it was run.
    fn fails(spoilt: usize, spoil: impl Fn(&Fake)) -> (String, usize) {
        let labs = Shared::new();
        let mut runs = 0;
        let result = repeat(&labs, || -> Result<()> {
            runs += 1;
            if runs > spoilt {
                bail!("by itself");
            }
            spoil(labs.fake()?);
            bail!("spoilt")
        });
        (result.unwrap_err().to_string(), runs)
    }

    #[test]
    fn only_what_the_emulator_broke_is_run_again() {
        let break_guest = |lab: &Fake| {
            lab.broken_guests.fetch_add(1, SeqCst);
        };
        let break_lab = |lab: &Fake| lab.dead.store(true, SeqCst);
        for spoil in [&break_guest as &dyn Fn(&Fake), &break_lab] {
            assert_eq!(fails(0, spoil), ("by itself".into(), 1));
            assert_eq!(fails(1, spoil), ("by itself".into(), 2));
            assert_eq!(fails(9, spoil), ("spoilt".into(), 3));
        }
        assert_eq!(fails(9, |_| ()), ("spoilt".into(), 1));
    }

    #[test]
    fn what_succeeds_is_run_once() {
        let labs = Shared::new();
        let mut runs = 0;
        let succeeds = || {
            runs += 1;
            labs.fake()?.dead.store(true, SeqCst);
            Ok(runs)
        };
        assert_eq!(repeat(&labs, succeeds).unwrap(), 1);
    }

    /// Two scenarios fail in the same lab at once: it is replaced once, and both pass.
    #[test]
    fn a_lab_is_replaced_once_for_all_who_failed_in_it() {
        let (labs, both, boots) = (Shared::new(), Barrier::new(2), AtomicUsize::new(0));
        let boot = || {
            let first = boots.fetch_add(1, SeqCst) == 0;
            let lab = Fake::default();
            lab.dead.store(first, SeqCst);
            Ok(lab)
        };
        let scenario = || {
            let lab = labs.get(boot)?;
            if lab.dead.load(SeqCst) {
                both.wait();
                bail!("it does not go on");
            }
            Ok(lab)
        };
        let pair = std::thread::scope(|threads| {
            let pair = [(); 2].map(|()| threads.spawn(|| repeat(&labs, scenario)));
            pair.map(|thread| thread.join().unwrap().unwrap())
        });
        assert!(std::ptr::eq(pair[0], pair[1]));
        assert_eq!(boots.load(SeqCst), 2);
        assert_eq!(pair[0].asked.load(SeqCst), 0);
    }
}
