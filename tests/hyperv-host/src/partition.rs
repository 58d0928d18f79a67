//! The partition: CPUID leaves, synthetic MSRs, hypercalls, and the peers behind
//! them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use firn_block::{Gfn, PAGE};
use firn_hyperv::Hal;
use firn_hyperv::hypercall::Hypercall;
use firn_hyperv::wire::cpuid::{self, CRASH_MSRS, Leaf, advice, privilege};
use firn_hyperv::wire::hypercall::{FAST, POST_MESSAGE, SIGNAL_EVENT, Status};
use firn_hyperv::wire::msr::{CRASH_MESSAGE, CRASH_NOTIFY, ENABLE, FRAME_SHIFT, Msr, SINT_VECTOR};
use firn_peers::Peer;
use firn_peers::hyperv::{HostConfig, HvMachine, Lun, Storvsp, StorvspConfig, VmbusHost};

use crate::attention::Attention;
use crate::disk;
use crate::medium::Medium;
use crate::memory::Memory;
use crate::options::Options;

/// The port by which the hypercall page reaches us.
pub const HYPERCALL_PORT: u8 = 0xa7;
/// `out HYPERCALL_PORT, al; ret`.
const HYPERCALL_CODE: [u8; 3] = [0xe6, HYPERCALL_PORT, 0xc3];
/// A host that never comes to rest is stepped on after the guest's next exit.
const MOST_STEPS: usize = 10_000;

/// Synthetic MSRs that no driver of ours reads.
const TSC_FREQUENCY: u32 = 0x4000_0022;
const APIC_FREQUENCY: u32 = 0x4000_0023;
const VP_ASSIST_PAGE: u32 = 0x4000_0073;
const SVERSION: u32 = 0x4000_0081;
const SINT0: u32 = 0x4000_0090;
const SINT15: u32 = 0x4000_009f;
/// Ticks of KVM's local APIC timer in a second.
const APIC_HZ: u64 = 1_000_000_000;
/// Privilege and feature: the frequency MSRs.
const FREQUENCIES: u32 = 1 << 11;
const HAS_FREQUENCIES: u32 = 1 << 8;
/// Leaves without names of their own.
const VERSION_LEAF: u32 = 0x4000_0002;
const LIMITS_LEAF: u32 = 0x4000_0005;
/// The reference time's units of 100 ns in a second.
const UNITS: u128 = 10_000_000;
/// What disks are called that were given no name: from here on.
const NAME: u64 = 0x6002_2480_0000_0000;

/// One guest's partition.
pub struct Partition {
    machine: HvMachine,
    host: VmbusHost,
    /// When the machine's clock was last set, and by what.
    clock: Instant,
    tsc_hz: u64,
    auto_eoi: bool,
}

impl Partition {
    /// A partition with the controllers and disks of the command line.
    ///
    /// # Errors
    /// A disk cannot be opened.
    pub fn new(
        memory: &Memory,
        options: &Options,
        tsc_hz: u64,
        attention: &Arc<Attention>,
    ) -> Result<Self> {
        let machine = HvMachine::over(memory.region());
        if options.no_reference_tsc {
            machine.deprive(privilege::REFERENCE_TSC);
        }
        let host = VmbusHost::new(
            &machine,
            HostConfig {
                newest: options.vmbus_max_version,
                oldest: options.vmbus_min_version,
                no_new_connection: options.vmbus_max_version.0 < 5 << 16,
                first_relid: options.first_relid,
                unload: options.unload_takes,
                ..HostConfig::default()
            },
        );
        for controller in controllers(options, attention)? {
            host.plug(&controller);
        }
        Ok(Self {
            machine,
            host,
            clock: Instant::now(),
            tsc_hz,
            auto_eoi: options.auto_eoi,
        })
    }

    /// Every CPUID leaf of the hypervisor's.
    pub fn leaves(&self) -> impl Iterator<Item = (u32, Leaf)> {
        (cpuid::VENDOR..=LIMITS_LEAF).map(|leaf| (leaf, self.leaf(leaf)))
    }

    fn leaf(&self, leaf: u32) -> Leaf {
        let mut answer = self.machine.cpuid(leaf);
        match leaf {
            cpuid::VENDOR => answer.eax = LIMITS_LEAF,
            cpuid::FEATURES => {
                answer.eax |= FREQUENCIES;
                answer.edx |= CRASH_MSRS | HAS_FREQUENCIES;
            }
            cpuid::RECOMMENDATIONS if self.auto_eoi => answer.eax &= !advice::NO_AUTO_EOI,
            VERSION_LEAF => (answer.eax, answer.ebx) = (1, 10 << 16),
            // One virtual processor, one logical one.
            LIMITS_LEAF => (answer.eax, answer.ebx) = (1, 1),
            _ => {}
        }
        answer
    }

    /// Sets the machine's clock.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.machine.advance(now - self.clock);
        self.clock = now;
    }

    /// The guest reads an MSR; `None` if there is none.
    #[must_use]
    pub fn read_msr(&self, index: u32) -> Option<u64> {
        match Msr(index) {
            Msr(TSC_FREQUENCY) => Some(self.tsc_hz),
            Msr(APIC_FREQUENCY) => Some(APIC_HZ),
            Msr(SVERSION) => Some(1),
            Msr::VP_INDEX | Msr::EOM => Some(0),
            Msr::CRASH_CTL => Some(CRASH_NOTIFY | CRASH_MESSAGE),
            msr if is_known(index) => Some(self.machine.read_msr(msr)),
            _ => None,
        }
    }

    /// The guest writes an MSR that [`is_writable`]; its last words, if it told of
    /// its crash. `tsc` reads the guest's counter.
    pub fn write_msr(
        &mut self,
        index: u32,
        value: u64,
        tsc: impl FnOnce() -> u64,
    ) -> Option<String> {
        let msr = Msr(index);
        if msr == Msr::HYPERCALL && value & ENABLE != 0 && self.machine.msr(Msr::GUEST_OS_ID) == 0 {
            // Nobody has said who is there: the page stays off.
            return None;
        }
        self.machine.write_msr(msr, value);
        let page = (value & ENABLE != 0).then(|| self.machine.page(value >> FRAME_SHIFT));
        match (msr, page.flatten()) {
            (Msr::HYPERCALL, Some(page)) => page.copy_in(0, &HYPERCALL_CODE),
            (Msr::REFERENCE_TSC, Some(page)) => page.copy_in(0, &self.reference_tsc(tsc())),
            // Overlays of the hypervisor's begin empty.
            (Msr::SIMP | Msr::SIEFP, Some(page)) => page.zero(0, PAGE),
            (Msr::CRASH_CTL, _) if value & CRASH_NOTIFY != 0 => {
                return Some(self.last_words(value));
            }
            _ => {}
        }
        None
    }

    /// Sequence, scale and offset by which the TSC tells the reference time.
    fn reference_tsc(&self, tsc: u64) -> [u8; 24] {
        let scale = ((UNITS << 64) / u128::from(self.tsc_hz)) as u64;
        let scaled = ((u128::from(tsc) * u128::from(scale)) >> 64) as u64;
        let now = self.machine.read_msr(Msr::TIME_REF_COUNT);
        let mut page = [0; 24];
        page[..4].copy_from_slice(&1u32.to_le_bytes());
        page[8..16].copy_from_slice(&scale.to_le_bytes());
        page[16..].copy_from_slice(&now.wrapping_sub(scaled).to_le_bytes());
        page
    }

    /// What the crash MSRs say.
    fn last_words(&self, control: u64) -> String {
        let parameters = [
            Msr::CRASH_P0,
            Msr::CRASH_P1,
            Msr::CRASH_P2,
            Msr::CRASH_P3,
            Msr::CRASH_P4,
        ];
        let words = parameters.map(|msr| self.machine.msr(msr));
        let [.., address, bytes] = words;
        let page = self.machine.page(address >> FRAME_SHIFT);
        match page.filter(|_| control & CRASH_MESSAGE != 0) {
            Some(page) => {
                let offset = address as usize % PAGE;
                let mut text = vec![0; (bytes as usize).min(PAGE - offset)];
                page.copy_out(offset, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
            None => format!("parameters {words:x?}"),
        }
    }

    /// The guest makes a hypercall, with these registers; what it returns.
    #[must_use]
    pub fn hypercall(&self, rcx: u64, rdx: u64) -> u64 {
        let call = match (rcx as u16, rcx & FAST != 0) {
            (POST_MESSAGE, false) => match rdx as usize % PAGE {
                0 => Hypercall::PostMessage(Gfn(rdx >> FRAME_SHIFT)),
                _ => return u64::from(Status::INVALID_ALIGNMENT.0),
            },
            (SIGNAL_EVENT, true) => Hypercall::SignalEvent {
                connection: rdx as u32,
                flag: (rdx >> 32) as u16,
            },
            _ => return u64::from(Status::INVALID_CODE.0),
        };
        self.machine.hypercall(call).0.into()
    }

    /// Lets the host do what there is to do; the vector of the interrupt that the
    /// guest is due, if it is.
    pub fn serve(&mut self) -> Option<u8> {
        for _ in 0..MOST_STEPS {
            if !self.host.step() {
                break;
            }
        }
        let due = self.machine.take_interrupt();
        due.then(|| (self.machine.msr(Msr::SINT2) & SINT_VECTOR) as u8)
    }

    /// Whether the host waits for its clock.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.host.next_event().is_some()
    }

    /// What the guest did that no guest should.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut all = self.host.complaints();
        let violations = self.machine.violations();
        all.extend(violations.iter().map(|violation| format!("{violation:?}")));
        all
    }
}

/// The MSRs that are kept, as values.
fn is_known(index: u32) -> bool {
    let known = matches!(
        Msr(index),
        Msr::GUEST_OS_ID
            | Msr::HYPERCALL
            | Msr::VP_INDEX
            | Msr::TIME_REF_COUNT
            | Msr::REFERENCE_TSC
            | Msr::SCONTROL
            | Msr::SIEFP
            | Msr::SIMP
            | Msr::EOM
    );
    let crash = Msr::CRASH_P0.0..=Msr::CRASH_CTL.0;
    known || index == VP_ASSIST_PAGE || (SINT0..=SINT15).contains(&index) || crash.contains(&index)
}

/// Whether a guest may write this MSR.
#[must_use]
pub fn is_writable(index: u32) -> bool {
    is_known(index) && !matches!(Msr(index), Msr::VP_INDEX | Msr::TIME_REF_COUNT)
}

/// The controllers of the command line, with their disks.
fn controllers(options: &Options, attention: &Arc<Attention>) -> Result<Vec<Storvsp>> {
    let last = options.disk.iter().map(|disk| disk.controller).max();
    let mut all = Vec::new();
    for number in 0..=last.unwrap_or(0) {
        let mut instance = [options.instance; 16];
        instance[0] = number;
        let controller = Storvsp::new(StorvspConfig {
            newest: options.vstor_max_version,
            subchannels: options.subchannels,
            instance,
            ..StorvspConfig::default()
        });
        let medium = options.media.as_ref().filter(|_| number == 0);
        if let Some(path) = medium {
            let mut lun = Lun::new(Medium::open(path)?.disk()).named(NAME);
            lun.read_only = true;
            controller.plug(options.media_lun, lun);
        }
        let taken = |unit: &u8| medium.is_some() && *unit == options.media_lun;
        let disks = options.disk.iter().zip(1..);
        let its = disks.filter(|(disk, _)| disk.controller == number);
        let units = (0..).filter(|unit| !taken(unit));
        for (unit, (arg, place)) in units.zip(its) {
            let unit = arg.lun.unwrap_or(unit);
            ensure!(!taken(&unit), "unit {unit} is the boot medium's");
            let attention = Arc::clone(attention);
            let wake = move || attention.want();
            let (disk, sector) = disk::open(&arg.path, arg.read_only, arg.sector, wake)?;
            let name = arg.naa.unwrap_or(NAME + place);
            let mut lun = Lun::new(disk).blocks_of(sector).named(name);
            lun.read_only = arg.read_only;
            if sector > 512 {
                lun.physical_exponent = 0;
            }
            controller.plug(unit, lun);
        }
        all.push(controller);
    }
    Ok(all)
}
