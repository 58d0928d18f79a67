//! Xen suspend.

use alloc::format;
use alloc::vec::Vec;

use firn_jobs::{Datum, PowerRefusal, PowerReport};
use firn_xen::suspend::{Parts, SuspendError, Suspended};

use super::events;
use super::host::KernelHost;
use crate::clock;
use crate::exec::PowerAnswer;

impl KernelHost {
    /// Lets the host take the memory, and goes on where it gives it back.
    pub(super) async fn suspend(self) -> PowerAnswer {
        let _working = self.begin()?;
        let main_loop = self.main_loop;
        let Some(platform) = main_loop.platform.xen() else {
            return Err(PowerRefusal {
                error: "suspend",
                what: "only Xen takes a guest's memory and gives it back".into(),
                place: "suspend".into(),
                hint: "`freeze` saves the machine on any host".into(),
            });
        };
        let parts = Parts {
            xen: &*platform.xen,
            store: &platform.store,
            console: platform.console(),
            bus: &*platform.bus,
        };
        // Time stands still for the guest, so that nothing is late only because
        // the machine was away.
        clock::pause();
        let outcome = parts.suspend(|| {
            clock::rebase();
            main_loop.forget_timer();
            platform.meet_new_host()
        });
        clock::rebase();
        match outcome {
            Ok((suspended, console)) => {
                if let Some(error) = console {
                    log::error!("the new host's console: {error}");
                }
                Ok(self.awake(suspended))
            }
            Err(error) => Err(refusal(&error)),
        }
    }

    fn awake(self, suspended: Suspended) -> PowerReport {
        let new_host = suspended == Suspended::Resumed;
        let jobs = self.main_loop.jobs();
        if new_host {
            let mut era = jobs.era.get();
            era.resumes = era.resumes.wrapping_add(1);
            jobs.era.set(era);
            events::resumed(era.resumes);
        }
        let summary = match new_host {
            true => "resumed on a new host",
            false => "cancelled: everything is as it was",
        };
        PowerReport {
            summary: summary.into(),
            fields: Vec::from([("new_host", Datum::Flag(new_host))]),
            ..PowerReport::default()
        }
    }
}

fn refusal(error: &SuspendError) -> PowerRefusal {
    let nothing_happened = matches!(error, SuspendError::Disk(_) | SuspendError::Refused(_));
    PowerRefusal {
        error: "suspend",
        what: format!("{error}"),
        place: "suspend".into(),
        hint: match nothing_happened {
            true => "nothing was changed; try again".into(),
            false => "the machine cannot use this host: restore it from the saved state".into(),
        },
    }
}
