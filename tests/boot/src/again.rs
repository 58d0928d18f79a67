//! Scenarios that are run once more when the emulator broke a guest.

use anyhow::Result;
use firn_lab::Host;

use crate::bench::Bench;

/// How often a scenario is begun: on a busy machine two breakages in a row have
/// to be reckoned with.
const TRIES: u32 = 3;

/// Runs a scenario on Xen. If it fails and the emulator broke a guest meanwhile
/// ([`firn_lab::Lab::broken`]), runs it again, and says so. A failure
/// without that stands.
///
/// # Errors
/// The scenario's.
pub fn again<T>(body: impl FnMut() -> Result<T>) -> Result<T> {
    let broken =
        || Bench::shared(Host::Xen).map_or(0, |bench| bench.lab.broken(&Bench::elf()).len());
    repeat(broken, body)
}

fn repeat<T>(broken: impl Fn() -> usize, mut body: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        let before = broken();
        let result = body();
        let Err(error) = &result else { return result };
        if broken() == before {
            return result;
        }
        eprintln!("the emulator broke a guest (docs/lab.md); once more, after: {error:#}");
    }
    body()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::cell::Cell;

    #[test]
    fn only_what_the_emulator_broke_is_run_again() {
        let (runs, broken) = (Cell::new(0), Cell::new(0));
        let count = || broken.get();
        let fails = |breaks: usize| {
            runs.set(0);
            let body = || -> Result<()> {
                runs.set(runs.get() + 1);
                if runs.get() > breaks {
                    bail!("by itself");
                }
                broken.set(broken.get() + 1);
                bail!("broken")
            };
            let why = repeat(count, body).unwrap_err().to_string();
            (why, runs.get())
        };
        assert_eq!(fails(0), ("by itself".into(), 1));
        assert_eq!(fails(1), ("by itself".into(), 2));
        assert_eq!(fails(9), ("broken".into(), 3));
        runs.set(0);
        let succeeds = || {
            runs.set(runs.get() + 1);
            Ok(runs.get())
        };
        assert_eq!(repeat(count, succeeds).unwrap(), 1);
    }
}
