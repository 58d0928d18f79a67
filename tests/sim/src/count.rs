//! What a guest has of the hypervisor: counted by the hypervisor.

use crate::boot::{Boot, Vbd};
use firn_block::Queue;
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

/// Grant references and event channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Grants in force.
    pub grants: usize,
    /// Ports that are not free.
    pub ports: usize,
}

impl Count {
    /// Of nobody's but the store and the console.
    pub const NONE: Self = Self {
        grants: 0,
        ports: BASE_PORTS,
    };

    fn now(boot: &Boot) -> Self {
        Self {
            grants: boot.machine.live_grants().len(),
            ports: boot.machine.open_ports().len(),
        }
    }

    /// With nothing in flight.
    #[must_use]
    pub fn at_rest(boot: &Boot) -> Self {
        for _ in 0..PASSES {
            let busy = |vbd: &Rc<Vbd>| vbd.front.borrow().in_flight() > 0;
            if !boot.bus.vbds().iter().any(busy) || boot.run_for(1).is_err() {
                break;
            }
        }
        Self::now(boot)
    }

    /// After all disks were disconnected that can be, and what is wrong if that
    /// is not [`Count::NONE`].
    #[must_use]
    pub fn disconnected(boot: &Rc<Boot>) -> (Self, Option<String>) {
        boot.undecided.set(true);
        let (all, theirs) = (boot.bus.vbds(), boot.clone());
        let ended = boot.run(async move {
            for vbd in all {
                disconnect(&theirs, &vbd).await?;
            }
            Ok::<_, Fault>(())
        });
        // Jobs that try again and again would make this a long time.
        boot.parked.set(true);
        let waited = boot.wait(LATE);
        let left = Self::now(boot);
        let wrong = match (ended, waited) {
            (Ok(Err(fault)), _) => Some(format!("a disk does not let go: {fault}")),
            (Err(_), _) | (_, Err(_)) => Some("the machine hangs".to_owned()),
            _ if left != Self::NONE => Some(format!("leaked: {left}")),
            _ if boot.disks.is_scratch_lent() => Some("memory stays lent".to_owned()),
            _ => boot.offence(),
        };
        (left, wrong)
    }
}

async fn disconnect(boot: &Boot, vbd: &Vbd) -> Result<(), Fault> {
    if vbd.state() == Lifecycle::Live {
        boot.disks.shut(vbd.id())?;
    }
    if vbd.state() == Lifecycle::Freezing {
        boot.disks.drain(vbd.id()).await?;
        boot.disks.disconnect(vbd.id()).await?;
    }
    Ok(())
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}+{}", self.grants, self.ports))
    }
}
