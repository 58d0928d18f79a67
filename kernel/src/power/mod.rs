//! Ways to end: power off, reboot, crash, each so that the host sees it.

#[cfg(firn_bare)]
mod asks;
mod audit;
#[cfg(firn_bare)]
mod boot;
mod disks;
#[cfg(firn_bare)]
mod events;
mod hash;
#[cfg(firn_bare)]
mod host;
mod late;
#[cfg(firn_bare)]
mod marks;
mod scratch;
#[cfg(firn_bare)]
mod suspend;
#[cfg(firn_bare)]
mod toolstack;

use spin::Once;

pub use audit::{Audit, Finding, Owner, audit, poisoned};
#[cfg(firn_bare)]
pub(crate) use boot::{Begin, begin, limits};
pub use disks::Disks;
#[cfg(firn_bare)]
pub(crate) use events::first_read;
pub use hash::memory_hash;
#[cfg(firn_bare)]
pub(crate) use host::{KernelHost, PowerState};
pub use late::Working;
#[cfg(firn_bare)]
pub(crate) use toolstack::follow_toolstack;

/// Why the guest stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All is done.
    PowerOff,
    /// Start again.
    Reboot,
    /// Something is wrong that only a person can mend.
    Crash,
}

static HOST: Once<fn(Stop)> = Once::new();

/// Tells how the hypervisor is asked to stop us. The first call counts.
pub fn set_host(stop: fn(Stop)) {
    HOST.call_once(|| stop);
}

/// Stops the guest.
#[cfg(firn_bare)]
pub fn stop(how: Stop) -> ! {
    crate::console::drain();
    if let Some(host) = HOST.get() {
        host(how);
    }
    // No hypervisor that we know, or it did not comply. QEMU without one has
    // a device for this; elsewhere the line on the console must do.
    crate::println!("firn: halted ({how:?}); nothing here can switch the machine off");
    crate::arch::port::debug_exit(how as u8);
    crate::arch::cpu::halt_forever()
}

/// Ends the guest as crashed; everything worth saying has been printed.
#[cfg(firn_bare)]
pub fn crash() -> ! {
    stop(Stop::Crash)
}
