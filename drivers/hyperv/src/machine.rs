//! The hypervisor's side of the machine: who it is, what it lets us do, and its
//! pages, turned on in one order and off in the opposite one.

use crate::hal::{Hal, HalExt};
use crate::synic::Synic;
use crate::wire::cpuid::{self, advice, privilege};
use crate::wire::msr::{ENABLE, FIRN_OS_ID, Msr};
use alloc::rc::Rc;
use core::fmt;
use firn_task::{Instant, Time, Timers};

/// One guest on Hyper-V, as its drivers see it. Shared by [`Rc`] on one vCPU.
pub struct HyperV<H: Hal> {
    /// The machine below.
    pub hal: H,
    /// Messages and event flags.
    pub synic: Synic,
    /// Deadlines of the drivers.
    pub timers: Timers,
    vp_index: u32,
}

/// The hypervisor could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// Somebody else is the hypervisor, or nobody.
    NotHyperV,
    /// The partition may not use something; bits of [`cpuid::privilege`].
    MissingPrivileges(u32),
    /// The hypercall page was not turned on.
    NoHypercallPage,
    /// There is no memory for the SynIC's pages.
    NoMemory,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHyperV => f.write_str("this is no Hyper-V"),
            Self::MissingPrivileges(bits) => write!(
                f,
                "Hyper-V does not grant privileges {bits:#x} (CPUID {:#x}, eax)",
                cpuid::FEATURES
            ),
            Self::NoHypercallPage => f.write_str("Hyper-V did not turn the hypercall page on"),
            Self::NoMemory => f.write_str("no memory for the SynIC's pages"),
        }
    }
}

impl core::error::Error for SetupError {}

/// What VMBus cannot do without.
const NEEDED: u32 = privilege::HYPERCALL | privilege::SYNIC | privilege::VP_INDEX;

impl<H: Hal> HyperV<H> {
    /// Finds out who the hypervisor is, and turns its pages on.
    ///
    /// # Errors
    /// [`SetupError`]; nothing is turned on then.
    pub fn new(hal: H) -> Result<Rc<Self>, SetupError> {
        identify(&hal)?;
        let recommended = hal.cpuid(cpuid::RECOMMENDATIONS).eax;
        let auto_eoi = recommended & advice::NO_AUTO_EOI == 0;
        hypercalls_on(&hal)?;
        let synic = Synic::new(&hal, auto_eoi);
        let synic = synic.ok_or_else(|| {
            hypercalls_off(&hal);
            SetupError::NoMemory
        })?;
        let vp_index = u32::try_from(hal.read_msr(Msr::VP_INDEX)).unwrap_or(0);
        Ok(Rc::new(Self {
            hal,
            synic,
            timers: Timers::new(),
            vp_index,
        }))
    }

    /// The number of this virtual processor, by which channels name it.
    #[must_use]
    pub const fn vp_index(&self) -> u32 {
        self.vp_index
    }

    /// One round of what every driver waits for: events and deadlines. Messages
    /// are the bus' to take.
    pub fn poll(&self) -> Instant {
        self.synic.scan_events();
        let now = self.hal.now();
        self.timers.fire(now);
        now
    }

    /// Turns the hypervisor's pages off, the last one turned on first. Their
    /// memory is plain memory again; the bus must have been unloaded before.
    pub fn turn_off(&self) {
        self.synic.turn_off(&self.hal);
        hypercalls_off(&self.hal);
    }

    /// Turns on again what [`HyperV::turn_off`] turned off: a freeze that was
    /// called off.
    ///
    /// # Errors
    /// [`SetupError::NoHypercallPage`].
    pub fn turn_on(&self) -> Result<(), SetupError> {
        hypercalls_on(&self.hal)?;
        self.synic.turn_on(&self.hal);
        Ok(())
    }
}

/// Says who we are, and has the hypervisor fill the hypercall page.
fn hypercalls_on(hal: &impl Hal) -> Result<(), SetupError> {
    hal.write_msr(Msr::GUEST_OS_ID, FIRN_OS_ID);
    hal.set_page(Msr::HYPERCALL, Some(hal.hypercall_page()));
    if hal.read_msr(Msr::HYPERCALL) & ENABLE == 0 {
        hypercalls_off(hal);
        return Err(SetupError::NoHypercallPage);
    }
    Ok(())
}

/// Late calls fail in the hypervisor from here on, and do no harm.
fn hypercalls_off(hal: &impl Hal) {
    hal.set_page(Msr::HYPERCALL, None);
    hal.write_msr(Msr::GUEST_OS_ID, 0);
}

fn identify(hal: &impl Hal) -> Result<(), SetupError> {
    let vendor = hal.cpuid(cpuid::VENDOR);
    let is_vendor = [vendor.ebx, vendor.ecx, vendor.edx] == cpuid::MICROSOFT_HV;
    if !is_vendor || vendor.eax < cpuid::RECOMMENDATIONS {
        return Err(SetupError::NotHyperV);
    }
    if hal.cpuid(cpuid::INTERFACE).eax != cpuid::HV_1 {
        return Err(SetupError::NotHyperV);
    }
    let missing = NEEDED & !hal.cpuid(cpuid::FEATURES).eax;
    if missing != 0 {
        return Err(SetupError::MissingPrivileges(missing));
    }
    Ok(())
}

impl<H: Hal> Time for HyperV<H> {
    fn now(&self) -> Instant {
        self.hal.now()
    }

    fn timers(&self) -> &Timers {
        &self.timers
    }
}
