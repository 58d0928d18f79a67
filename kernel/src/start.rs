//! From the entry point to the jobs: the order in which things come up.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::time::Duration;

use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::VmbusConfig;
use firn_image::Key;
use firn_jobs::shell;
use firn_power::BootOptions;
use firn_xen::blkfront::VbdConfig;
use firn_xen::hypercall::Hypercall;
use firn_xen::store::{Store, StoreError};
use firn_xen::{Hal, Xen};

use crate::arch::{self, cpu};
use crate::bootinfo::{BootInfo, EntryKind};
use crate::cmdline::{self, ImageKey, Options};
use crate::console::{self, Emergency};
use crate::exec::{KernelMachine, MainLoop};
use crate::host::hyperv::{self, HyperVPlatform};
use crate::host::xen::{XenHal, XenPlatform};
use crate::host::{self, Hypervisor, Platform};
use crate::power::Begin;
use crate::{mm, power};

/// With fewer bytes of frames than this, rings are at most of this order.
const MANY_FRAMES: u64 = 6 << 20;
const SMALL_RING_ORDER: u32 = 1;
/// With fewer, the connection for an image is a frugal one.
const IMAGE_FRAMES: u64 = 17 << 19;

/// Brings the machine up and runs the jobs; where `firn-boot` hands over.
///
/// `info` is the physical address of the monitor's structure, `entry_tsc` the
/// time stamp counter at the first instruction.
pub fn start(kind: EntryKind, info: u64, entry_tsc: u64) -> ! {
    console::init();
    arch::init();
    let hypervisor = host::detect(cpu::cpuid);
    if matches!(hypervisor, Hypervisor::Xen { .. }) {
        host::xen::init();
    }
    match bring_up(hypervisor, kind, info, entry_tsc) {
        Ok(()) => power::stop(power::Stop::PowerOff),
        Err(Failed) => power::crash(),
    }
}

/// Bringing up failed, and the reason has been logged.
struct Failed;

fn bring_up(
    hypervisor: Hypervisor,
    kind: EntryKind,
    info: u64,
    entry_tsc: u64,
) -> Result<(), Failed> {
    let boot = BootInfo::parse(kind, info, &mm::BootPhysMemory)
        .map_err(|e| failed("boot information", &e))?;
    let (options, jobs) = cmdline::parse(&boot.command_line, |bad| log::error!("{bad}"));
    console::set_level(options.log);
    mm::init(&boot).map_err(|e| failed("memory", &e))?;
    match hypervisor {
        Hypervisor::Xen { imitated, .. } => {
            host::xen::want_upcall(imitated);
            run_on_xen(&boot, &options, jobs, entry_tsc)
        }
        Hypervisor::HyperV => run_on_hyperv(&boot, &options, jobs, entry_tsc),
        other => {
            banner(&boot, &options, format_args!("{other}"));
            log::error!(
                "this is {other}, and firn drives only Xen and Hyper-V: start it by `xl create`, \
                 or as a guest of Hyper-V"
            );
            Err(Failed)
        }
    }
}

fn run_on_xen(
    boot: &BootInfo,
    options: &Options,
    jobs: &str,
    entry_tsc: u64,
) -> Result<(), Failed> {
    let xen = host::xen::connect(entry_tsc).map_err(|e| failed("Xen", &e))?;
    let console = host::xen::console::attach(&xen)
        .inspect_err(|e| log::error!("{e}; text goes to port 0xE9 only"))
        .ok();
    banner(boot, options, format_args!("Xen {}", xen.version()));
    let store = attach_store(&xen, options.blk.deadline).map_err(|e| failed("xenstore", &e))?;
    store.set_deadline(options.blk.deadline);
    let platform = XenPlatform::new(&xen, &store, console, blk(options));
    let platform = platform.map_err(|e| failed("timer", &e))?;
    run(Platform::Xen(platform).leak(), options, jobs);
    Ok(())
}

fn run_on_hyperv(
    boot: &BootInfo,
    options: &Options,
    jobs: &str,
    entry_tsc: u64,
) -> Result<(), Failed> {
    hyperv::prepare_to_stop(boot);
    let connected = hyperv::connect(entry_tsc).map_err(|e| failed("Hyper-V", &e))?;
    let has_serial = console::keep_serial();
    banner(boot, options, format_args!("Hyper-V"));
    let bus = VmbusConfig {
        max_version: options.vmbus,
        monitored: options.monitored,
        ..VmbusConfig::default()
    };
    let scsi = ControllerConfig {
        max_version: options.vstor,
        // A host that promises channels and offers none must not make the boot
        // believe that its disks do not come.
        subchannel_deadline: options.blk.deadline / 2,
        ..ControllerConfig::default()
    };
    let platform = HyperVPlatform::new(connected, bus, scsi, has_serial);
    let platform = platform.map_err(|e| failed("VMBus", &e))?;
    run(Platform::HyperV(platform).leak(), options, jobs);
    Ok(())
}

/// Restores an image, or runs the jobs.
fn run(platform: &'static Platform, options: &Options, jobs: &str) {
    let main_loop = MainLoop::start(platform);
    // Until it is known that no image waits for them, disks stay shut.
    platform.keep_shut(true);
    main_loop.park();
    main_loop.settle(2 * options.blk.deadline);
    let begun = power::begin(main_loop, boot_options(options));
    power::follow_toolstack(main_loop, begun);
    let jobs = match begun {
        Begin::Cold => Some(jobs),
        Begin::Refused => Some(""),
        Begin::Restored => None,
    };
    if let Some(jobs) = jobs {
        main_loop.spawn_job(|| shell::run(KernelMachine, String::from(jobs)));
    }
    main_loop.run();
}

/// What disks may use: in a small guest, large rings of a few disks would be all
/// of the memory that they share with a freeze.
fn blk(options: &Options) -> VbdConfig {
    let mut blk = options.blk;
    let free = mm::free_bytes();
    blk.frugal = free < IMAGE_FRAMES;
    if free < MANY_FRAMES {
        blk.max_ring_order = blk.max_ring_order.min(SMALL_RING_ORDER);
    }
    blk
}

fn boot_options(options: &Options) -> BootOptions {
    BootOptions {
        image: options.image,
        on_refusal: options.on_refusal,
        key: options.key.map(|ImageKey(secret)| Key { secret }),
        limits: power::limits(options.freeze_deadline, options.blk.deadline),
    }
}

/// Connects to xenstore; a toolstack that starts it later is waited for.
fn attach_store(xen: &Rc<Xen<XenHal>>, limit: Duration) -> Result<Store<XenHal>, StoreError> {
    let until = xen.hal.now() + limit;
    loop {
        match Store::attach(xen) {
            Err(StoreError::NotYet) if xen.hal.now() < until => {
                // Nothing tells when it is there, and nothing else can run yet.
                let _ = xen.hal.hypercall(Hypercall::Yield);
            }
            result => return result,
        }
    }
}

/// What a person wants to know first; a provoked fault comes right after it.
fn banner(boot: &BootInfo, options: &Options, hypervisor: fmt::Arguments<'_>) {
    let id = arch::build_id();
    let version = env!("CARGO_PKG_VERSION");
    log::info!(
        "firn {version} (build {id}) on {hypervisor}, entered by {}",
        boot.entry
    );
    if let Some(memory) = mm::report() {
        log::info!("memory: {memory}");
    }
    if let Some(fault) = options.provoke {
        arch::provoke(fault);
    }
}

fn failed(what: &str, why: &dyn fmt::Display) -> Failed {
    log::error!("{what}: {why}");
    Failed
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Writing to the emergency console does not fail.
    let _ = writeln!(Emergency, "\nPANIC: {info}");
    if mm::OutOfMemory::is_told_by(&info.message()) {
        let _ = writeln!(Emergency, "{}", mm::out_of_memory());
    }
    power::crash()
}
