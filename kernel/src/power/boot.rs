//! What a boot does before any job: look for an image, restore it or refuse.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::time::Duration;

use firn_power::{Boot, BootOptions, Limits, OnRefusal};

use super::events;
use super::host::KernelHost;
use crate::exec::MainLoop;

/// What the jobs of this boot are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Those of the command line.
    Cold,
    /// Those of an image: they run already.
    Restored,
    /// A shell, and disks that cannot be written, until somebody decides.
    Refused,
}

/// Restores an image if there is one. Disks that are there are connected, with
/// their gates shut; afterwards they are open, but for a refusal.
pub(crate) fn begin(main_loop: &'static MainLoop, options: BootOptions) -> Begin {
    let host = KernelHost::new(main_loop);
    let state = host.state();
    state.configured.set(options.limits);
    state.disks.limits.set(options.limits);
    state.key.borrow_mut().clone_from(&options.key);
    let outcome = Rc::new(RefCell::new(None));
    let theirs = outcome.clone();
    main_loop.drivers().spawn(async move {
        let boot = firn_power::boot(&host, &options).await;
        *theirs.borrow_mut() = Some(conclude(host, &boot));
    });
    main_loop.run_until(|| outcome.borrow().is_some());
    main_loop.drivers().spawn(host.tend_disks());
    outcome.take().unwrap_or(Begin::Refused)
}

/// Tells what came of it, before any job runs.
fn conclude(host: KernelHost, boot: &Boot) -> Begin {
    let platform = host.main_loop.platform;
    platform.keep_shut(matches!(boot, Boot::Refused(_)));
    match boot {
        Boot::Cold(cold) => {
            if let Some(trouble) = &cold.refused {
                events::refused(&host, trouble, OnRefusal::Cold);
            }
            events::abandoned(&host, &cold.gone);
            if cold.refused.is_some() {
                events::cold(cold.gone.len());
            }
            Begin::Cold
        }
        Boot::Restored(restored) => {
            events::restored(&host, restored);
            events::abandoned(&host, &restored.gone);
            host.answer_restored(restored);
            host.main_loop.awaits_read.set(true);
            Begin::Restored
        }
        Boot::Refused(refused) => {
            if let Some(trouble) = &refused.first {
                events::refused(&host, trouble, OnRefusal::Cold);
            }
            events::refused(&host, &refused.trouble, OnRefusal::Shell);
            let state = host.state();
            state.undecided.borrow_mut().clone_from(&refused.undecided);
            state.guarded.set(true);
            state.inhabited.set(true);
            host.main_loop.unpark();
            Begin::Refused
        }
    }
}

/// How long leaving the host may take: one of Hyper-V answers only when it has
/// written its caches back, which was seen to take most of a minute.
const LEAVING: Duration = Duration::from_secs(130);

/// The limits for waits of freeze and restore: `drain` for requests in flight,
/// `backend` for one step of a backend's, of which a connection has two.
pub(crate) fn limits(drain: Duration, backend: Duration) -> Limits {
    Limits {
        drain,
        step: 2 * backend,
        power_off: LEAVING,
    }
}
