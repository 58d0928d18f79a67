//! The partition's reference time: 100 ns units since it was made (TLFS, chapter
//! 12), by a page and the TSC where the hypervisor offers that, else by a counter
//! that costs an exit.

use crate::hal::{Hal, HalExt};
use crate::wire::cpuid::{self, privilege};
use crate::wire::msr::Msr;
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

/// The reference time. Its page must be turned off before memory is saved.
pub struct ReferenceTime {
    page: Option<Region>,
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
        if let Some(page) = &page {
            hal.set_page(Msr::REFERENCE_TSC, Some(hal.gfn(page, 0)));
        }
        Some(Self { page })
    }

    /// Time since the partition was made. `tsc` reads the processor's counter,
    /// and is only called between two looks at the page.
    pub fn now(&self, hal: &impl Hal, tsc: impl Fn() -> u64) -> Duration {
        let by_page = self.page.as_ref().and_then(|page| read(page, tsc));
        let units = by_page.unwrap_or_else(|| hal.read_msr(Msr::TIME_REF_COUNT));
        Duration::from_nanos(units.saturating_mul(UNIT))
    }

    /// Turns the page off, and gives its memory back.
    pub fn turn_off(self, hal: &impl Hal) {
        if let Some(page) = self.page {
            hal.set_page(Msr::REFERENCE_TSC, None);
            hal.free_shared(page);
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
