//! What a guest has of the hypervisor: counted by the hypervisor.

use crate::boot::Boot;
use crate::side::{Front, Side};
use firn_block::DiskId;
use firn_block::gate::Lifecycle;
use firn_power::Fault;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// Ports of a guest without disks: the store's and the console's.
const BASE_PORTS: usize = 2;
/// Passes in which disks come to rest between two requests of a job.
const PASSES: usize = 400;
/// Time in which grants that a backend let go late are taken back.
const LATE: Duration = Duration::from_secs(60);

/// On Xen grant references and event channels, on Hyper-V pages in GPADLs and open
/// channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Grants in force or set aside, or pages that the host reaches.
    pub grants: usize,
    /// Ports that are not free, or channels.
    pub ports: usize,
}

impl Count {
    /// Of nobody's but, on Xen, the store and the console.
    const fn none(side: &Side) -> Self {
        let ports = match side {
            Side::Xen(_) => BASE_PORTS,
            Side::HyperV(_) => 0,
        };
        Self { grants: 0, ports }
    }

    fn now(boot: &Boot) -> Self {
        let [grants, ports] = boot.side.held();
        Self { grants, ports }
    }

    /// With nothing in flight.
    #[must_use]
    pub fn at_rest(boot: &Boot) -> Self {
        for _ in 0..PASSES {
            let busy = |front: &Front| front.in_flight > 0;
            if !boot.side.fronts().iter().any(busy) || boot.run_for(1).is_err() {
                break;
            }
        }
        Self::now(boot)
    }

    /// After all disks were disconnected that can be, and what is wrong if that
    /// is not that of nobody.
    #[must_use]
    pub fn disconnected(boot: &Rc<Boot>) -> (Self, Option<String>) {
        boot.undecided.set(true);
        let (all, theirs) = (boot.side.fronts(), boot.clone());
        let ended = boot.run(async move {
            for front in all {
                disconnect(&theirs, front.id).await?;
            }
            theirs.side.leave().await
        });
        // Jobs that try again and again would make this a long time.
        boot.parked.set(true);
        let waited = boot.wait(LATE);
        let left = Self::now(boot);
        let wrong = match (ended, waited) {
            (Ok(Err(fault)), _) => Some(format!("a disk does not let go: {fault}")),
            (Err(_), _) | (_, Err(_)) => Some("the machine hangs".to_owned()),
            _ if left != Self::none(&boot.side) => Some(format!("leaked: {left}")),
            _ if boot.disks.is_scratch_lent() => Some("memory stays lent".to_owned()),
            _ => boot.offence(),
        };
        (left, wrong)
    }
}

async fn disconnect(boot: &Boot, disk: DiskId) -> Result<(), Fault> {
    if boot.side.state(disk) == Some(Lifecycle::Live) {
        boot.disks.shut(disk)?;
    }
    if boot.side.state(disk) == Some(Lifecycle::Freezing) {
        boot.disks.drain(disk).await?;
        boot.disks.disconnect(disk).await?;
    }
    Ok(())
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}+{}", self.grants, self.ports))
    }
}
