//! Hyper-V under the drivers: hypercalls, MSRs, shared memory, the clock.

mod cycle;
mod platform;
mod stop;

pub(crate) use platform::HyperVPlatform;
pub(crate) use stop::prepare_to_stop;

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use firn_block::Gfn;
use firn_block::shm::Region;
use firn_hyperv::clock::ReferenceTime;
use firn_hyperv::hypercall::Hypercall;
use firn_hyperv::wire::cpuid::{self, Leaf, privilege};
use firn_hyperv::wire::hypercall::Status;
use firn_hyperv::wire::msr::Msr;
use firn_hyperv::{Hal, HyperV, SetupError};
use firn_task::Instant;
use spin::Once;

use super::memory;
use crate::arch::{FirstCpu, apic, cpu, hyperv, traps};
use crate::clock::{self, Source};
use crate::mm;

/// How long the timer is compared with the clock where nobody says how fast it is.
const COMPARED: Duration = Duration::from_millis(2);
/// A clock that stands still is not waited for.
const MOST_LOOKS: u32 = 10_000_000;

/// The machine as the Hyper-V drivers see it.
pub(crate) struct HyperVHal;

impl Hal for HyperVHal {
    fn cpuid(&self, leaf: u32) -> Leaf {
        let [eax, ebx, ecx, edx] = cpu::cpuid(leaf);
        Leaf { eax, ebx, ecx, edx }
    }

    fn read_msr(&self, msr: Msr) -> u64 {
        hyperv::read_msr(msr)
    }

    fn write_msr(&self, msr: Msr, value: u64) {
        hyperv::write_msr(msr, value);
    }

    fn hypercall_page(&self) -> Gfn {
        // A page of the image: it has a frame.
        Gfn(mm::frame_of(hyperv::page()).unwrap_or(u64::MAX))
    }

    fn hypercall(&self, call: Hypercall) -> Status {
        hyperv::call(call)
    }

    fn vector(&self) -> u8 {
        traps::VMBUS
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        memory::alloc_shared(pages)
    }

    fn free_shared(&self, region: Region) {
        memory::free_shared(region);
    }

    fn gfn(&self, region: &Region, page: usize) -> Gfn {
        memory::gfn(region, page)
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(clock::now_ns())
    }
}

/// The clock of the partition, or the processor's own counter.
enum HyperVClock {
    Reference(ReferenceTime),
    /// The counter, and how many ticks of it a second has.
    Counter(u64),
}

impl HyperVClock {
    fn new() -> Option<Self> {
        if let Some(time) = ReferenceTime::new(&HyperVHal) {
            return Some(Self::Reference(time));
        }
        let ticks = frequency(Msr::TSC_FREQUENCY)?;
        Some(Self::Counter(ticks))
    }

    /// The time when the processor's counter read `tsc`, or now if that cannot be
    /// known.
    fn at(&self, tsc: impl Fn() -> u64) -> u64 {
        match self {
            Self::Reference(time) => time.now(&HyperVHal, tsc).as_nanos() as u64,
            Self::Counter(ticks) => {
                let nanos = u128::from(tsc()) * 1_000_000_000 / u128::from(*ticks);
                nanos as u64
            }
        }
    }
}

/// Has the hypervisor keep the clock's page, or leave it alone.
fn keep_clock_page(keep: bool) {
    if let Some(HyperVClock::Reference(time)) = CLOCK.get().map(|clock| &**clock) {
        match keep {
            true => time.turn_on(&HyperVHal),
            false => time.turn_off(&HyperVHal),
        }
    }
}

impl Source for FirstCpu<HyperVClock> {
    fn now_ns(&self) -> u64 {
        self.at(cpu::tsc)
    }
}

static CLOCK: Once<FirstCpu<HyperVClock>> = Once::new();

/// Ticks of a second, where the hypervisor says them.
fn frequency(msr: Msr) -> Option<u64> {
    let features = HyperVHal.cpuid(cpuid::FEATURES);
    let told =
        features.eax & privilege::FREQUENCIES != 0 && features.edx & cpuid::FREQUENCY_MSRS != 0;
    told.then(|| HyperVHal.read_msr(msr)).filter(|hz| *hz > 0)
}

/// What there is to tell of the hypervisor.
pub(crate) struct Connected {
    pub(crate) hv: Rc<HyperV<HyperVHal>>,
    /// Ticks of the local timer in a second.
    timer: u64,
}

/// Turns the hypervisor's pages and the local interrupt controller on, and starts
/// the clock. Its zero is when the TSC read `entry_tsc`.
///
/// # Errors
/// [`ConnectError`].
pub(crate) fn connect(entry_tsc: u64) -> Result<Connected, ConnectError> {
    // The first thing that a vector may come by.
    apic::init();
    let clock = HyperVClock::new().ok_or(ConnectError::Clock)?;
    let clock = CLOCK.call_once(|| FirstCpu::new(clock));
    clock::start(clock, clock.at(|| entry_tsc));
    let timer = frequency(Msr::APIC_FREQUENCY);
    let timer = timer.or_else(compare_timer).ok_or(ConnectError::Clock)?;
    let hv = HyperV::new(HyperVHal).map_err(ConnectError::Pages)?;
    Ok(Connected { hv, timer })
}

/// Finds out how fast the timer is.
fn compare_timer() -> Option<u64> {
    let begin = clock::now_ns();
    let mut took = 0;
    let ticks = apic::ticks_of(|| {
        for _ in 0..MOST_LOOKS {
            took = clock::now_ns() - begin;
            if u128::from(took) >= COMPARED.as_nanos() {
                break;
            }
        }
    });
    let hz = (u64::from(ticks) * 1_000_000_000).checked_div(took)?;
    (hz > 0).then_some(hz)
}

/// The hypervisor could not be set up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConnectError {
    /// Its pages.
    Pages(SetupError),
    /// There is no clock that goes.
    Clock,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages(error) => write!(f, "{error}"),
            Self::Clock => f.write_str(
                "no clock: neither a reference time, nor the frequency of the time stamp counter",
            ),
        }
    }
}
