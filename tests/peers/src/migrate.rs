//! A guest that is saved on one host and restored on another.

use crate::blkback::{BlkBack, Config, Disk};
use crate::world::World;
use firn_xen::suspend::{Parts, SuspendError, Suspended};
use std::cell::RefCell;
use std::rc::Rc;

/// A disk on the new host.
pub struct NewDisk {
    /// What its backend offers there.
    pub config: Config,
    /// The disk, the same as before or another one.
    pub disk: Disk,
}

impl World {
    /// Suspends the guest, and lets it go on where it was.
    ///
    /// # Errors
    /// As [`Parts::suspend`].
    pub fn suspend_in_vain(&mut self) -> Result<Suspended, SuspendError> {
        self.machine.at_suspend(|| 1);
        self.suspend()
    }

    /// Suspends the guest and lets it go on on another host with these disks. Of
    /// the requests that each old backend has taken, `carried_out` are still
    /// carried out.
    ///
    /// # Errors
    /// As [`Parts::suspend`].
    pub fn migrate(
        &mut self,
        disks: Vec<NewDisk>,
        carried_out: usize,
    ) -> Result<Suspended, SuspendError> {
        let (machine, store) = (self.machine.clone(), self.store.clone());
        let old = self.backends.clone();
        let backends = Rc::new(RefCell::new(None));
        let slot = backends.clone();
        self.machine.at_suspend(move || {
            machine.arrive();
            for back in &old {
                back.lose_guest(carried_out);
            }
            machine.new_host();
            store.new_host(&machine);
            let plug = |new: NewDisk| BlkBack::plug(&machine, &store, new.config, new.disk);
            *slot.borrow_mut() = Some(disks.into_iter().map(plug).collect());
            0
        });
        let result = self.suspend();
        if let Some(backends) = backends.take() {
            self.backends = backends;
        }
        result
    }

    fn suspend(&self) -> Result<Suspended, SuspendError> {
        let guest = self.guest();
        let parts = Parts {
            xen: &guest.xen,
            store: &guest.store,
            console: guest.console.as_deref(),
            bus: &guest.bus,
        };
        let (suspended, console) = parts.suspend(|| Ok(()))?;
        assert_eq!(console, None, "the console of the new host");
        Ok(suspended)
    }
}
