//! From the entry point to the jobs: the order in which things come up.

use alloc::string::String;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use firn_jobs::shell;
use firn_xen::store::Store;

use crate::arch::{self, cpu};
use crate::bootinfo::{BootInfo, EntryKind};
use crate::cmdline::{self, Options};
use crate::console::{self, Emergency};
use crate::exec::{KernelMachine, MainLoop};
use crate::host::{self, Hypervisor};
use crate::{mm, power};

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
        Hypervisor::Xen { .. } => run_on_xen(&boot, &options, jobs, entry_tsc),
        other => {
            banner(&boot, format_args!("{other}"));
            log::error!("this is {other}, and firn drives only Xen: start it by `xl create`");
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
    let console = host::xen_console::attach(&xen)
        .inspect_err(|e| log::error!("{e}; text goes to port 0xE9 only"))
        .ok();
    banner(boot, format_args!("Xen {}", xen.version()));
    let store = Store::attach(&xen).map_err(|e| failed("xenstore", &e))?;
    let main_loop =
        MainLoop::start(&xen, &store, console, options.blk).map_err(|e| failed("timer", &e))?;
    if let Some(fault) = options.provoke {
        arch::provoke(fault);
    }
    main_loop.settle(2 * options.blk.deadline);
    main_loop.spawn_job(|| shell::run(KernelMachine, String::from(jobs)));
    main_loop.run();
    Ok(())
}

/// What a person wants to know first.
fn banner(boot: &BootInfo, hypervisor: fmt::Arguments<'_>) {
    let id = arch::build_id();
    let version = env!("CARGO_PKG_VERSION");
    log::info!(
        "firn {version} (build {id}) on {hypervisor}, entered by {:?}",
        boot.entry
    );
    if let Some(memory) = mm::report() {
        log::info!("memory: {memory}");
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
    power::crash()
}
