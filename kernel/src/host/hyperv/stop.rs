//! How a guest of Hyper-V ends: by ACPI, and a crash by the registers that tell the
//! host its last words.

use firn_block::shm::Region;
use firn_hyperv::Hal;
use spin::Once;

use super::HyperVHal;
use crate::acpi::{self, ACPI_ON, PowerControl};
use crate::arch::{FirstCpu, port};
use crate::bootinfo::BootInfo;
use crate::console;
use crate::mm::BootPhysMemory;
use crate::power::{self, Stop};

/// Looks at whether ACPI has been turned on.
const MOST_LOOKS: u32 = 10_000;

struct Ways {
    control: PowerControl,
    /// For the last words of a crash.
    words: Option<Region>,
}

static WAYS: Once<FirstCpu<Ways>> = Once::new();

/// Reads the tables by which the machine is switched off, which may lie where
/// something else will, and sets memory aside for a crash. Call it when there is
/// memory to be had, and nobody has any yet.
pub(crate) fn prepare_to_stop(boot: &BootInfo) {
    let control = acpi::power_control(boot.rsdp, &BootPhysMemory);
    if control.off.is_none() {
        log::warn!("no ACPI table says how this machine is switched off");
    }
    WAYS.call_once(|| {
        FirstCpu::new(Ways {
            control,
            words: HyperVHal.alloc_shared(1),
        })
    });
    power::set_host(stop);
}

/// Ends the machine; returns only if it does not.
fn stop(how: Stop) {
    let Some(ways) = WAYS.get() else { return };
    match how {
        Stop::PowerOff => off(&ways.control),
        Stop::Reboot => reset(&ways.control),
        Stop::Crash => crash(ways),
    }
}

fn off(control: &PowerControl) {
    let Some(off) = &control.off else { return };
    if let Some((port, value)) = off.enable
        && port::in16(off.a.0) & ACPI_ON == 0
    {
        port::out8(port, value);
        for _ in 0..MOST_LOOKS {
            if port::in16(off.a.0) & ACPI_ON != 0 {
                break;
            }
        }
    }
    for (register, sleep_type) in [Some(off.a), off.b].into_iter().flatten() {
        let now = port::in16(register);
        port::out16(register, acpi::sleep_word(now, sleep_type));
    }
}

/// By the register that ACPI names, by the chipset's, by the keyboard controller's.
fn reset(control: &PowerControl) {
    let by_acpi = control.reset;
    for (register, value) in by_acpi.into_iter().chain([(0xcf9, 0x06), (0x64, 0xfe)]) {
        port::out8(register, value);
    }
}

/// A host that takes no last words sees the machine go off, after its console.
fn crash(ways: &Ways) {
    let told = ways.words.as_ref().is_some_and(|page| {
        console::last_words(|words| firn_hyperv::crash::report(&HyperVHal, page, words))
    });
    if !told {
        // Emulators see it by this one's exit code.
        port::debug_exit(Stop::Crash as u8);
        off(&ways.control);
    }
}
