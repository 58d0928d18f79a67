//! What those ask for who run the guest: the toolstack of Xen by xenstore, the host
//! of Hyper-V by its integration services.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

use firn_block::gate::Lifecycle;
use firn_hyperv::ic;
use firn_jobs::{FreezeAsk, FreezeLevel, FreezeThen};
use firn_power::{Fault, Host};
use firn_xen::control::{self, Control};

use super::boot::Begin;
use super::host::KernelHost;
use super::{Stop, stop};
use crate::exec::{MainLoop, PowerAnswer};
use crate::host::Platform;
use crate::host::hyperv::HyperVPlatform;
use crate::host::xen::XenPlatform;

/// Obeys whoever runs the guest, for as long as they can ask. Call it before
/// there are jobs: what could be done is looked at first.
pub(crate) fn follow_toolstack(main_loop: &'static MainLoop, begun: Begin) {
    let host = KernelHost::new(main_loop);
    match main_loop.platform {
        Platform::Xen(xen) => {
            main_loop.drivers().spawn(host.follow_xenstore(xen));
        }
        Platform::HyperV(hyperv) => {
            host.look_for_image_disk(begun);
            main_loop.drivers().spawn(host.follow_services(hyperv));
        }
    }
}

/// What is done about a request.
enum Wish {
    End(Stop),
    Suspend,
    Freeze,
}

impl KernelHost {
    async fn follow_xenstore(self, platform: &XenPlatform) {
        use control::Command;
        let mut control = Control::new(&platform.xen, &platform.store);
        loop {
            let command = match control.next().await {
                Ok(command) => command,
                Err(error) => {
                    return log::error!("the toolstack cannot ask for anything any more: {error}");
                }
            };
            let wish = match command {
                Command::PowerOff | Command::Halt => Wish::End(Stop::PowerOff),
                Command::Reboot => Wish::End(Stop::Reboot),
                Command::Suspend => Wish::Suspend,
                Command::Hibernate => Wish::Freeze,
            };
            self.obey(&command, wish).await;
        }
    }

    async fn follow_services(self, platform: &HyperVPlatform) {
        use ic::Command;
        loop {
            let command = platform.next_command().await;
            let wish = match command {
                Command::PowerOff => Wish::End(Stop::PowerOff),
                Command::Reboot => Wish::End(Stop::Reboot),
                Command::Hibernate => Wish::Freeze,
            };
            self.obey(&command, wish).await;
        }
    }

    async fn obey(self, command: &dyn fmt::Display, wish: Wish) {
        log::info!("the toolstack asks for {command}");
        let answer = match wish {
            Wish::End(how) => self.end(how).await,
            Wish::Suspend => self.suspend().await,
            Wish::Freeze => self.freeze(&HIBERNATE, "toolstack").await,
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

    /// Finds out whether a hibernation could succeed, as a host of Hyper-V is to be
    /// told before it asks for one.
    fn look_for_image_disk(self, begun: Begin) {
        let main_loop = self.main_loop;
        match begun {
            Begin::Restored => self.has_image_disk(),
            Begin::Refused => {}
            Begin::Cold => {
                let looked = Rc::new(Cell::new(false));
                let theirs = looked.clone();
                main_loop.drivers().spawn(async move {
                    let ask = FreezeAsk {
                        check: true,
                        ..HIBERNATE
                    };
                    if self.freeze(&ask, "toolstack").await.is_ok() {
                        self.has_image_disk();
                    }
                    theirs.set(true);
                });
                main_loop.run_until(|| looked.get());
            }
        }
    }

    /// A disk is there that a hibernation can write to.
    pub(super) fn has_image_disk(self) {
        if let Platform::HyperV(hyperv) = self.main_loop.platform {
            hyperv.hibernates(true);
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
