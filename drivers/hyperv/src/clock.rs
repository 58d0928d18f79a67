//! The partition's reference time: 100 ns units since it was made (TLFS, chapter
//! 12), by a page and the TSC where the hypervisor offers that, else by a counter
//! that costs an exit.

use crate::hal::{Hal, HalExt};
use crate::wire::cpuid::{self, privilege};
use crate::wire::msr::Msr;
use core::cell::Cell;
use core::sync::atomic::Ordering::{Acquire, SeqCst};
use core::sync::atomic::fence;
use core::time::Duration;
use firn_block::shm::Region;

/// Offsets in the reference TSC page.
const SEQUENCE: usize = 0;
const SCALE: usize = 8;
const OFFSET: usize = 16;
/// In [`SEQUENCE`]: the page is of no use now.
const INVALID: u32 = 0;
/// A page that changes at each of so many looks is not waited for.
const MOST_LOOKS: u32 = 64;
/// Nanoseconds of a unit.
const UNIT: u64 = 100;

/// The reference time. Its page must be turned off before the hypercall page is.
pub struct ReferenceTime {
    page: Option<Region>,
    /// The hypervisor keeps the page.
    is_on: Cell<bool>,
}

impl ReferenceTime {
    /// Turns the page on, where there is one; `None` if the partition has no
    /// reference time at all.
    pub fn new(hal: &impl Hal) -> Option<Self> {
        let features = hal.cpuid(cpuid::FEATURES).eax;
        if features & privilege::REFERENCE_COUNTER == 0 {
            return None;
        }
        let offered = features & privilege::REFERENCE_TSC != 0;
        let page = offered.then(|| hal.alloc_shared(1)).flatten();
        let time = Self {
            page,
            is_on: Cell::new(false),
        };
        time.turn_on(hal);
        Some(time)
    }

    /// Time since the partition was made. `tsc` reads the processor's counter,
    /// and is only called between two looks at the page.
    pub fn now(&self, hal: &impl Hal, tsc: impl Fn() -> u64) -> Duration {
        let page = self.page.as_ref().filter(|_| self.is_on.get());
        let by_page = page.and_then(|page| read(page, tsc));
        let units = by_page.unwrap_or_else(|| hal.read_msr(Msr::TIME_REF_COUNT));
        Duration::from_nanos(units.saturating_mul(UNIT))
    }

    /// Turns the page on, if there is one.
    pub fn turn_on(&self, hal: &impl Hal) {
        if let Some(page) = &self.page {
            hal.set_page(Msr::REFERENCE_TSC, Some(hal.gfn(page, 0)));
            self.is_on.set(true);
        }
    }

    /// Turns the page off: the hypervisor does not touch it any more. The time
    /// goes on, by the counter.
    pub fn turn_off(&self, hal: &impl Hal) {
        if self.is_on.take() {
            hal.set_page(Msr::REFERENCE_TSC, None);
        }
    }
}

/// The time by the page, if it is valid and holds still.
fn read(page: &Region, tsc: impl Fn() -> u64) -> Option<u64> {
    for _ in 0..MOST_LOOKS {
        let sequence = page.atomic_u32(SEQUENCE).load(Acquire);
        if sequence == INVALID {
            return None;
        }
        let scale = page.atomic_u64(SCALE).load(Acquire);
        let offset = page.atomic_u64(OFFSET).load(Acquire);
        let ticks = tsc();
        fence(SeqCst);
        if page.atomic_u32(SEQUENCE).load(Acquire) == sequence {
            let scaled = (u128::from(ticks) * u128::from(scale)) >> 64;
            // Signed, and of 64 bits like the scaled ticks.
            return Some((scaled as u64).wrapping_add(offset));
        }
    }
    None
}
