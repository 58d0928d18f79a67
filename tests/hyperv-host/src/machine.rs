//! The machine on KVM: one processor, its exits, and who answers them.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use firn_block::shm::Region;
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_USER_SPACE_MSR, Msrs, kvm_enable_cap, kvm_msi,
    kvm_msr_entry, kvm_sregs,
};
use kvm_ioctls::{
    Cap, Kvm, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuExit,
    VcpuFd, VmFd,
};

use crate::attention::Attention;
use crate::boot::{self, Entry};
use crate::chipset::Chipset;
use crate::end::{End, Place};
use crate::memory::Memory;
use crate::options::Options;
use crate::partition::{self, HYPERCALL_PORT, Partition};
use crate::{processor, trace};

/// The synthetic MSRs: every access to one comes to us.
const MSRS: u32 = 0x4000_0000;
const MSR_COUNT: u32 = 0x200;
const NO_MSR: [u8; MSR_COUNT as usize / 8] = [0; MSR_COUNT as usize / 8];
const IA32_TSC: u32 = 0x10;
/// What firmware leaves in the MTRRs, and their MSRs: write-back below 640 KiB.
const MTRRS: [(u32, u64); 3] = [
    (0x2ff, 0xc00),
    (0x250, 0x0606_0606_0606_0606),
    (0x258, 0x0606_0606_0606_0606),
];
/// Where messages to the only local APIC go.
const MSI_ADDRESS: u32 = 0xfee0_0000;
/// Pins of the I/O APIC that there is none of.
const NO_PINS: u64 = 24;
/// Where in a table of gates that for double faults is, and the bit of its first word
/// that says it is there (Intel SDM 3A, 6.14.1).
const DOUBLE_FAULT: u64 = 8 * 16;
const PRESENT: u64 = 1 << 47;

/// A machine with one guest.
pub struct Machine {
    vm: VmFd,
    vcpu: VcpuFd,
    chipset: Chipset,
    partition: Partition,
    attention: Arc<Attention>,
    /// Typed, and not taken by COM1 yet.
    typed: Vec<u8>,
    /// Where the processor stood without memory when it was inspected last.
    lost_at: Option<Place>,
    memory: Region,
    /// The system registers of a processor that stood in the guest's memory.
    seen: Option<kvm_sregs>,
}

/// What an exit asks for once the processor's page is free again.
enum Then {
    Nothing,
    Hypercall,
    WriteMsr(u32, u64),
    End(End),
    Fault,
}

impl Machine {
    /// Makes the machine, and loads its guest.
    ///
    /// # Errors
    /// There is no KVM, it lacks something, or a file cannot be used.
    pub fn new(options: &Options, attention: Arc<Attention>) -> Result<Self> {
        Self::with(options, attention, boot::load)
    }

    fn with(
        options: &Options,
        attention: Arc<Attention>,
        load: impl Fn(&Memory, &Options) -> Result<Entry>,
    ) -> Result<Self> {
        let (kvm, vm) = empty()?;
        let memory = Memory::new(options.memory)?;
        memory.give_to(&vm)?;
        let entry = load(&memory, options)?;
        let vcpu = vm.create_vcpu(0).context("creating the processor")?;
        let tsc_hz = u64::from(vcpu.get_tsc_khz().context("the TSC's frequency")?) * 1000;
        let partition = Partition::new(&memory, options, tsc_hz, &attention)?;
        let cpuid = processor::cpuid(&kvm, &partition, options.compatible)?;
        vcpu.set_cpuid2(&cpuid).context("setting CPUID")?;
        set_up(&vcpu, entry)?;
        let early = options.early.as_ref();
        let early = early.map(|path| File::options().append(true).create(true).open(path));
        Ok(Self {
            vm,
            vcpu,
            chipset: Chipset::new(early.transpose().context("the early console")?),
            partition,
            attention,
            typed: Vec::new(),
            lost_at: None,
            memory: memory.region().alias(),
            seen: None,
        })
    }

    /// Runs the guest to its end.
    ///
    /// # Errors
    /// KVM fails in a way that has nothing to do with the guest.
    pub fn run(&mut self) -> Result<End> {
        self.attention.begin();
        let end = loop {
            if self.attention.is_expired() {
                break End::Stuck(self.place());
            }
            self.look_around();
            if let Some(place) = self.lost() {
                break End::Lost(place);
            }
            if let Some(end) = self.turn()? {
                break end;
            }
        };
        self.chipset.flush();
        Ok(end)
    }

    /// What the guest did that no guest should.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.partition.complaints()
    }

    /// What is due between two turns, whatever ended the last one.
    fn look_around(&mut self) {
        // Once more, if somebody wants it meanwhile: its signal did not end a turn.
        while self.attention.take_look() {
            self.chipset.flush();
            self.attention.take_typed(&mut self.typed);
            let taken = self.chipset.type_in(&self.typed);
            self.typed.drain(..taken);
            self.partition.tick();
            self.serve();
        }
        let more = !self.typed.is_empty() || self.chipset.is_behind() || self.partition.waits();
        if more {
            self.attention.wish();
        }
    }

    /// One turn of the processor; how that ends the guest, if it does.
    fn turn(&mut self) -> Result<Option<End>> {
        let then = match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, _)) if port == u16::from(HYPERCALL_PORT) => Then::Hypercall,
            Ok(VcpuExit::IoOut(port, data)) => match self.chipset.write(port, data) {
                Some(end) => Then::End(end),
                None => Then::Nothing,
            },
            Ok(VcpuExit::IoIn(port, data)) => {
                self.chipset.read(port, data);
                Then::Nothing
            }
            Ok(VcpuExit::X86Rdmsr(exit)) => {
                self.partition.tick();
                match self.partition.read_msr(exit.index) {
                    Some(value) => *exit.data = value,
                    None => *exit.error = 1,
                }
                Then::Nothing
            }
            Ok(VcpuExit::X86Wrmsr(exit)) => match partition::is_writable(exit.index) {
                true => Then::WriteMsr(exit.index, exit.data),
                false => {
                    *exit.error = 1;
                    Then::Nothing
                }
            },
            Ok(VcpuExit::MmioRead(_, data)) => {
                data.fill(0xff);
                Then::Nothing
            }
            Ok(VcpuExit::MmioWrite(..) | VcpuExit::Intr | VcpuExit::IoapicEoi(_)) => Then::Nothing,
            Ok(VcpuExit::Shutdown) => Then::Fault,
            Ok(other) => Then::End(End::Broken(format!("{other:?}"))),
            // Somebody wants our attention.
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Then::Nothing,
            Err(error) => return Err(error).context("running the processor"),
        };
        match then {
            Then::Nothing => Ok(None),
            Then::End(End::Broken(what)) => {
                Ok(Some(End::Broken(format!("{what} at {}", self.place()))))
            }
            Then::End(end) => Ok(Some(end)),
            Then::Fault => Ok(Some(self.shut_down())),
            Then::Hypercall => self.hypercall(),
            Then::WriteMsr(index, value) => Ok(self.write_msr(index, value)),
        }
    }

    fn hypercall(&mut self) -> Result<Option<End>> {
        let mut registers = self.vcpu.get_regs()?;
        self.partition.tick();
        registers.rax = self.partition.hypercall(registers.rcx, registers.rdx);
        // What a hypervisor may spoil, this one does.
        for spoiled in [&mut registers.rcx, &mut registers.rdx, &mut registers.r8] {
            *spoiled = !0x5a5a;
        }
        (registers.r9, registers.r10, registers.r11) = (!1, !2, !3);
        self.vcpu.set_regs(&registers)?;
        self.serve();
        Ok(None)
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Option<End> {
        if self.seen.is_none() {
            self.seen = self.vcpu.get_sregs().ok();
        }
        self.partition.tick();
        let vcpu = &self.vcpu;
        let crash = self.partition.write_msr(index, value, || guest_tsc(vcpu));
        self.serve();
        crash.map(End::Crash)
    }

    /// Lets the host work, and interrupts the guest if that is due.
    fn serve(&mut self) {
        if let Some(vector) = self.partition.serve() {
            let message = kvm_msi {
                address_lo: MSI_ADDRESS,
                data: vector.into(),
                ..kvm_msi::default()
            };
            // A local APIC that is off takes no messages: as on hardware.
            let _off = self.vm.signal_msi(message);
        }
    }

    /// How a processor ended that shut down: the guest did something wrong, unless it
    /// would have told of a fault.
    fn shut_down(&self) -> End {
        let place = self.place();
        let rip = trace::shut_down_at().unwrap_or(place.rip);
        let place = Place { rip, ..place };
        match self.has_gates() {
            true => End::Lost(place),
            false => End::TripleFault(place),
        }
    }

    /// Whether the guest's gate for double faults is there, by the tables that it was
    /// seen to use. Takes the processor back to these.
    fn has_gates(&self) -> bool {
        let Some(seen) = self.seen else {
            return false;
        };
        let translate = || {
            let long_enough = u64::from(seen.idt.limit) >= DOUBLE_FAULT + 15;
            self.vcpu.set_sregs(&seen).ok().filter(|()| long_enough)?;
            let gate = seen.idt.base.wrapping_add(DOUBLE_FAULT);
            let at = self.vcpu.translate_gva(gate).ok()?;
            let at = usize::try_from(at.physical_address).ok()?;
            (at < self.memory.len() && at.is_multiple_of(8)).then_some(at)
        };
        translate().is_some_and(|at| self.memory.read::<u64>(at) & PRESENT != 0)
    }

    /// Where the processor is, if that has not been the guest's memory twice in a row.
    fn lost(&mut self) -> Option<Place> {
        if !self.attention.take_inspection() {
            return None;
        }
        let place = self.place();
        let system = self.vcpu.get_sregs().ok()?;
        let code = system.cs.base.wrapping_add(place.rip);
        let nowhere = self.vcpu.translate_gva(code).is_ok_and(|at| at.valid == 0);
        if !nowhere {
            self.seen = Some(system);
        }
        let before = self.lost_at.take();
        self.lost_at = Some(place).filter(|_| nowhere);
        self.lost_at.filter(|_| before == self.lost_at)
    }

    fn place(&self) -> Place {
        let registers = self.vcpu.get_regs().unwrap_or_default();
        let system = self.vcpu.get_sregs().unwrap_or_default();
        Place {
            rip: registers.rip,
            rsp: registers.rsp,
            cr2: system.cr2,
        }
    }
}

/// Finds out whether this machine's KVM does, with a guest of a few instructions:
/// some carry out only a part of them.
///
/// # Errors
/// There is none, it may not be used, or it lacks something.
pub fn probe(options: &Options) -> Result<()> {
    // mov rax, cr4; or ax, OSFXSR; mov cr4, rax; ldmxcsr [memory that is zero];
    // mov dx, 0x404; mov ax, 0x2000; out dx, ax
    let guest = [
        0x0f, 0x20, 0xe0, 0x66, 0x0d, 0, 0x02, 0x0f, 0x22, 0xe0, 0x0f, 0xae, 0x14, 0x25, 0, 0,
        0x11, 0, 0x66, 0xba, 0x04, 0x04, 0x66, 0xb8, 0, 0x20, 0x66, 0xef,
    ];
    let load = |memory: &Memory, options: &Options| boot::load_code(memory, &guest, options);
    let mut machine = Machine::with(options, Arc::default(), load)?;
    match machine.run()? {
        End::PowerOff => Ok(()),
        end => bail!("this KVM cannot run a guest: {end}"),
    }
}

/// A machine with a local APIC (no PIC, no I/O APIC) whose synthetic MSRs are ours.
fn empty() -> Result<(Kvm, VmFd)> {
    let kvm = Kvm::new().context("/dev/kvm")?;
    for cap in [
        Cap::X86UserSpaceMsr,
        Cap::X86MsrFilter,
        Cap::SplitIrqchip,
        Cap::SignalMsi,
    ] {
        ensure!(kvm.check_extension(cap), "this KVM has no {cap:?}");
    }
    let vm = kvm.create_vm().context("creating the machine")?;
    enable(&vm, KVM_CAP_SPLIT_IRQCHIP, NO_PINS)?;
    let reasons = MsrExitReason::Filter.bits();
    enable(&vm, KVM_CAP_X86_USER_SPACE_MSR, reasons.into())?;
    let ours = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: MSRS,
        msr_count: MSR_COUNT,
        bitmap: &NO_MSR,
    };
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[ours])
        .context("filtering MSRs")?;
    Ok((kvm, vm))
}

fn enable(vm: &VmFd, cap: u32, argument: u64) -> Result<()> {
    let mut cap = kvm_enable_cap {
        cap,
        ..kvm_enable_cap::default()
    };
    cap.args[0] = argument;
    vm.enable_cap(&cap)
        .with_context(|| format!("enabling KVM's capability {}", cap.cap))
}

/// Brings the processor to the guest's entry.
fn set_up(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let entries = MTRRS.map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    vcpu.set_msrs(&Msrs::from_entries(&entries)?)
        .context("setting the MTRRs")?;
    let system = boot::system_registers(vcpu.get_sregs()?, entry);
    vcpu.set_sregs(&system)
        .context("entering the guest's mode")?;
    vcpu.set_regs(&boot::registers(entry))?;
    Ok(())
}

/// The guest's time stamp counter; 0 if KVM does not tell.
fn guest_tsc(vcpu: &VcpuFd) -> u64 {
    let wanted = kvm_msr_entry {
        index: IA32_TSC,
        ..kvm_msr_entry::default()
    };
    let Ok(mut msrs) = Msrs::from_entries(&[wanted]) else {
        return 0;
    };
    match vcpu.get_msrs(&mut msrs) {
        Ok(1) => msrs.as_slice()[0].data,
        _ => 0,
    }
}
