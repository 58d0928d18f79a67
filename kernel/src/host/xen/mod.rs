//! Xen under the drivers: hypercalls, shared memory, the clock, stopping.

pub(crate) mod console;
mod platform;
mod report;

pub(crate) use platform::XenPlatform;

use alloc::rc::Rc;
use core::mem::offset_of;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::sync::atomic::{AtomicBool, AtomicU64};

use firn_block::shm::Region;
use firn_task::Instant;
use firn_xen::hal::{Fixed, FixedFrames, HalExt};
use firn_xen::hypercall::Hypercall;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::misc::{SchedShutdown, ShutdownReason};
use firn_xen::wire::shared_info::{SharedInfo, VcpuInfo, VcpuTimeInfo};
use firn_xen::wire::{Gfn, hvm};
use firn_xen::{Hal, SetupError, Xen};
use spin::Once;

use crate::arch::{cpu, hypercall};
use crate::clock::{self, Sample, Source, Torn, read_stable};
use crate::host::memory;
use crate::mm::{self, PAGE};
use crate::power::{self, Stop};

/// Any vector above the exceptions'.
const UPCALL_VECTOR: u64 = 0x20;

/// The machine as the Xen drivers see it.
pub struct XenHal;

impl Hal for XenHal {
    fn hypercall(&self, call: Hypercall<'_>) -> Result<u64, Errno> {
        hypercall::xen(call)
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

    fn map_frames(&self, first: Gfn, count: usize) -> Option<Region> {
        mm::foreign_frames(first.0, count)
    }

    fn fixed(&self, what: Fixed) -> FixedFrames {
        let hole = mm::hole();
        let first = hole.start / PAGE;
        let frames = u32::try_from((hole.end - hole.start) / PAGE).unwrap_or(0);
        match what {
            Fixed::SharedInfo => FixedFrames {
                first: Gfn(first),
                count: frames.min(1),
            },
            Fixed::GrantTable => FixedFrames {
                first: Gfn(first + 1),
                count: frames.saturating_sub(1),
            },
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(clock::now_ns())
    }
}

/// The clock of the first vCPU, in the shared info page.
struct XenClock {
    shared_info: Region,
    last: AtomicU64,
}

impl XenClock {
    /// Offset of `time` in the first vCPU's record.
    const TIME: usize = offset_of!(SharedInfo, vcpu_info) + offset_of!(VcpuInfo, time);
}

impl XenClock {
    fn sample(&self) -> Result<Sample, Torn> {
        let version = || self.shared_info.atomic_u32(Self::TIME).load(Acquire);
        let copy = || {
            let time: VcpuTimeInfo = self.shared_info.read(Self::TIME);
            Sample {
                version: time.version,
                tsc_timestamp: time.tsc_timestamp,
                system_time: time.system_time,
                multiplier: time.tsc_to_system_mul,
                shift: time.tsc_shift,
            }
        };
        read_stable(version, copy)
    }
}

impl Source for XenClock {
    fn now_ns(&self) -> u64 {
        // A record that is never consistent means a broken hypervisor; time
        // then stands still instead of hanging the guest.
        match self.sample() {
            Ok(sample) => {
                let now = sample.ns_at(cpu::tsc());
                self.last.store(now, Relaxed);
                now
            }
            Err(Torn) => self.last.load(Relaxed),
        }
    }
}

/// Wall clock in nanoseconds since 1970, from Xen's record in the shared info
/// page: the time at which the system clock was zero, and that clock.
pub(crate) fn wall_clock(shared_info: &Region) -> u64 {
    let word = |offset: usize| u64::from(shared_info.atomic_u32(offset).load(Acquire));
    let record = || {
        let seconds =
            word(offset_of!(SharedInfo, wc_sec_hi)) << 32 | word(offset_of!(SharedInfo, wc_sec));
        (seconds, word(offset_of!(SharedInfo, wc_nsec)))
    };
    let mut zero = record();
    // Rarely written: twice the same is a whole record.
    for _ in 0..100 {
        let again = record();
        if again == zero {
            break;
        }
        zero = again;
    }
    let system = CLOCK.get().map_or(0, Source::now_ns);
    let (seconds, nanos) = zero;
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanos)
        .wrapping_add(system)
}

static CLOCK: Once<XenClock> = Once::new();

/// Makes the hypervisor usable at all: hypercalls and a way to stop.
pub fn init() {
    hypercall::init();
    power::set_host(shutdown);
}

/// Sets up the hypervisor's pages and the clock. The clock's zero is when the
/// TSC read `entry_tsc`.
///
/// # Errors
/// [`ConnectError`].
pub fn connect(entry_tsc: u64) -> Result<Rc<Xen<XenHal>>, ConnectError> {
    let xen = Xen::new(XenHal).map_err(ConnectError::Pages)?;
    let shared_info = xen.events.shared_info().alias();
    let clock = CLOCK.call_once(|| XenClock {
        shared_info,
        last: AtomicU64::new(0),
    });
    let sample = clock.sample().map_err(|Torn| ConnectError::Clock)?;
    clock::start(clock, sample.ns_at(entry_tsc));
    set_upcall(&xen).map_err(ConnectError::Upcall)?;
    Ok(xen)
}

/// Whether [`set_upcall`] has anything to do.
static WANTS_UPCALL: AtomicBool = AtomicBool::new(false);

/// Before [`connect`], where Xen is imitated: an upcall vector is wanted.
pub fn want_upcall(imitated: bool) {
    WANTS_UPCALL.store(imitated, Relaxed);
}

/// Gives an imitation of Xen an upcall vector, which is never taken (interrupts are off): only
/// then does QEMU leave event channels to KVM, and only KVM wakes a vCPU that
/// waits in `SCHEDOP_poll`. Xen needs none.
pub(crate) fn set_upcall(xen: &Xen<XenHal>) -> Result<(), Errno> {
    if !WANTS_UPCALL.load(Relaxed) {
        return Ok(());
    }
    let vector = hvm::CALLBACK_TYPE_VECTOR | UPCALL_VECTOR;
    xen.hal.set_hvm_param(hvm::PARAM_CALLBACK_IRQ, vector)
}

/// The hypervisor could not be set up.
#[derive(Clone, Copy, Debug)]
pub enum ConnectError {
    /// Its pages.
    Pages(SetupError),
    /// Its time record never holds still.
    Clock,
    /// The vector of event upcalls.
    Upcall(Errno),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Pages(error) => write!(f, "{error}"),
            Self::Clock => write!(
                f,
                "the time record in the shared info page never holds still"
            ),
            Self::Upcall(errno) => write!(f, "an upcall vector was refused: {errno}"),
        }
    }
}

/// Asks Xen to stop the domain; returns only if it does not.
fn shutdown(how: Stop) {
    let reason = match how {
        Stop::PowerOff => ShutdownReason::POWEROFF,
        Stop::Reboot => ShutdownReason::REBOOT,
        Stop::Crash => ShutdownReason::CRASH,
    };
    let shutdown = SchedShutdown { reason: reason.0 };
    // What Xen answers makes no difference: the caller halts either way.
    let _ = hypercall::xen(Hypercall::Shutdown(&shutdown));
}
