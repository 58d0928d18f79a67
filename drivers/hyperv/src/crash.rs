//! The last words of a guest that crashes, for the host's log (TLFS, section
//! 7.1.1).

use crate::hal::Hal;
use crate::wire::cpuid::{self, CRASH_MSRS};
use crate::wire::msr::{CRASH_MESSAGE, CRASH_NOTIFY, Msr};
use firn_block::PAGE;
use firn_block::shm::Region;

/// Tells the host that this guest has crashed, and why: as much of the text as
/// fits into a page that was set aside for it. Waits for nothing, allocates
/// nothing. Whether the host takes such reports.
pub fn report(hal: &impl Hal, page: &Region, text: &str) -> bool {
    if hal.cpuid(cpuid::FEATURES).edx & CRASH_MSRS == 0 {
        return false;
    }
    let bytes = &text.as_bytes()[..text.len().min(PAGE)];
    page.copy_in(0, bytes);
    for parameter in [Msr::CRASH_P0, Msr::CRASH_P1, Msr::CRASH_P2] {
        hal.write_msr(parameter, 0);
    }
    hal.write_msr(Msr::CRASH_P3, hal.gfn(page, 0).0 << 12);
    hal.write_msr(Msr::CRASH_P4, bytes.len() as u64);
    hal.write_msr(Msr::CRASH_CTL, CRASH_NOTIFY | CRASH_MESSAGE);
    true
}
