//! Xen suspend, and what else the toolstack asks for.

use alloc::format;
use alloc::vec::Vec;

use firn_block::gate::Lifecycle;
use firn_jobs::{Datum, FreezeAsk, FreezeLevel, FreezeThen, PowerRefusal, PowerReport};
use firn_power::{Fault, Host};
use firn_xen::control::{Command, Control};
use firn_xen::suspend::{Parts, SuspendError, Suspended};

use super::events;
use super::host::KernelHost;
use super::{Stop, stop};
use crate::clock;
use crate::exec::{MainLoop, PowerAnswer};

/// Obeys the toolstack for as long as xenstore works.
pub(crate) fn follow_toolstack(main_loop: &'static MainLoop) {
    let Some(platform) = main_loop.platform.xen() else {
        return;
    };
    let mut control = Control::new(&platform.xen, &platform.store);
    let host = KernelHost::new(main_loop);
    main_loop.drivers().spawn(async move {
        loop {
            match control.next().await {
                Ok(command) => host.obey(command).await,
                Err(error) => {
                    return log::error!("the toolstack cannot ask for anything any more: {error}");
                }
            }
        }
    });
}

impl KernelHost {
    async fn obey(self, command: Command) {
        log::info!("the toolstack asks for {command}");
        let answer = match command {
            Command::PowerOff | Command::Halt => self.end(Stop::PowerOff).await,
            Command::Reboot => self.end(Stop::Reboot).await,
            Command::Suspend => self.suspend().await,
            Command::Hibernate => self.freeze(&HIBERNATE, "toolstack").await,
        };
        match answer {
            Ok(report) => log::info!("{command}: {}", report.summary),
            Err(refusal) => log::error!(
                "{command}: {} (at {}); {}",
                refusal.what,
                refusal.place,
                refusal.hint
            ),
        }
    }

    /// Ends the machine in good order: nothing that was acknowledged is lost,
    /// and what is in flight ends. A disk that does not comply does not keep it
    /// from ending.
    async fn end(self, how: Stop) -> PowerAnswer {
        let _working = self.begin()?;
        let complain = |result: Result<(), Fault>| {
            if let Err(fault) = result {
                log::warn!("before the end: {fault}");
            }
        };
        complain(self.park().await);
        let mut disks = self.disks();
        disks.retain(|disk| disk.state == Lifecycle::Live);
        for disk in &disks {
            complain(self.shut(disk.id));
        }
        for disk in &disks {
            complain(self.drain(disk.id).await);
            complain(self.flush(disk.id).await);
            complain(self.disconnect(disk.id).await);
        }
        complain(self.main_loop.platform.leave().await);
        stop(how)
    }

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

/// What `xl trigger`-like tools mean: to the only image disk there is.
const HIBERNATE: FreezeAsk = FreezeAsk {
    image: None,
    level: FreezeLevel::Full,
    then: FreezeThen::PowerOff,
    compress: false,
    audit: false,
    check: false,
    deadline: None,
};

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
