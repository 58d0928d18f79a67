//! ACPI tables: how to switch the machine off, and that there is one processor.

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Name, Package, ResourceTemplate, Scope};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use crate::pm;

/// Where the RSDP lies, in its own page; the tables follow.
pub const BASE: u64 = 0xe_0000;
const TABLES: u64 = BASE + 0x1000;
/// The RSDP's size, as ACPI has it since version 2.
pub const RSDP_BYTES: usize = 36;

const OEM: [u8; 6] = *b"FIRN  ";
const TABLE: [u8; 8] = *b"FIRNHOST";
const LOCAL_APIC: u32 = 0xfee0_0000;
/// In the FADT's `iapc_boot_arch`: there is no clock chip.
const NO_CLOCK: u16 = 1 << 5;

/// All tables as they lie in memory from [`BASE`] on.
#[must_use]
pub fn tables() -> Vec<u8> {
    let mut all = vec![0; (TABLES - BASE) as usize];
    let dsdt = add(&mut all, &dsdt());
    let fadt = add(&mut all, &bytes(&fadt(dsdt)));
    let madt = add(&mut all, &bytes(&madt()));
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = add(&mut all, &bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    all[..rsdp.len()].copy_from_slice(&rsdp);
    all
}

/// Appends a table; gives its address.
fn add(all: &mut Vec<u8>, table: &[u8]) -> u64 {
    all.resize(all.len().next_multiple_of(16), 0);
    let address = BASE + all.len() as u64;
    all.extend_from_slice(table);
    address
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// S5 is sleep type 0; COM1; the device by which Linux finds VMBus.
fn dsdt() -> Vec<u8> {
    let off = Package::new(vec![&pm::SLEEP_OFF, &pm::SLEEP_OFF]);
    let off = Name::new("_S5_".into(), &off);
    let com1 = EISAName::new("PNP0501");
    let com1 = Name::new("_HID".into(), &com1);
    let ports = IO::new(0x3f8, 0x3f8, 0, 8);
    let ports = ResourceTemplate::new(vec![&ports]);
    let ports = Name::new("_CRS".into(), &ports);
    let com1 = Device::new("COM1".into(), vec![&com1, &ports]);
    let vmbus = Name::new("_HID".into(), &"VMBUS");
    let vmbus = Device::new("VMBS".into(), vec![&vmbus]);
    let system = Scope::new("_SB_".into(), vec![&com1, &vmbus]);
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, TABLE, 1);
    dsdt.append_slice(&bytes(&off));
    dsdt.append_slice(&bytes(&system));
    dsdt.as_slice().to_vec()
}

fn fadt(dsdt: u64) -> impl Aml {
    let io = |port: u16, bits: u8, access| {
        GAS::new(AddressSpace::SystemIo, bits, 0, access, port.into())
    };
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    // Old readers know the short fields only.
    fadt.dsdt = (dsdt as u32).into();
    fadt.pm1a_evt_blk = u32::from(pm::EVENT).into();
    fadt.pm1a_cnt_blk = u32::from(pm::CONTROL).into();
    fadt.pm_tmr_blk = u32::from(pm::TIMER).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    fadt.x_pm1a_evt_blk = io(pm::EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(pm::CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(pm::TIMER, 32, AccessSize::DwordAccess);
    fadt.iapc_boot_arch = NO_CLOCK.into();
    fadt.reset_reg = io(pm::RESET, 8, AccessSize::ByteAccess);
    fadt.reset_value = pm::RESET_NOW;
    fadt.finalize()
}

fn madt() -> MADT {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(LOCAL_APIC));
    madt.add_structure(ProcessorLocalApic::new(0, 0, EnabledStatus::Enabled));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> usize {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at an address, its checksum tried.
    fn table(all: &[u8], address: usize) -> &[u8] {
        let at = address - BASE as usize;
        let table = &all[at..at + u32_at(all, at + 4) as usize];
        assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
        table
    }

    #[test]
    fn the_way_from_the_rsdp_to_power_off() {
        let all = tables();
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!((sum(&all[..20]), sum(&all[..36])), (0, 0));
        let xsdt = table(&all, u64_at(&all, 24));
        let entries: Vec<usize> = (36..xsdt.len())
            .step_by(8)
            .map(|at| u64_at(xsdt, at))
            .collect();
        let [fadt, madt] = entries[..] else {
            panic!("{entries:x?}");
        };
        assert_eq!(&table(&all, madt)[..4], b"APIC");
        let fadt = table(&all, fadt);
        assert_eq!(u32_at(fadt, 64), u32::from(pm::CONTROL));
        assert_eq!(u64_at(fadt, 172 + 4), usize::from(pm::CONTROL));
        let dsdt = table(&all, u64_at(fadt, 140));
        assert_eq!(u32_at(fadt, 40) as usize, u64_at(fadt, 140));
        // Name (_S5_, Package (2) {Zero, Zero}) or with words in place of Zero.
        let off = dsdt.windows(5).position(|w| w == b"\x08_S5_");
        assert!(off.is_some_and(|at| dsdt[at + 5] == 0x12));
    }
}
