//! The reference time, and a guest's last words.

use firn_hyperv::clock::ReferenceTime;
use firn_hyperv::wire::cpuid::privilege;
use firn_hyperv::wire::msr::Msr;
use firn_hyperv::{Hal, crash};
use firn_peers::hyperv::HvMachine;
use std::cell::Cell;
use std::time::Duration;

/// The page that the guest has given to the hypervisor.
fn page(machine: &HvMachine) -> firn_block::shm::Region {
    let msr = machine.msr(Msr::REFERENCE_TSC);
    assert_eq!(msr & 1, 1, "it is on");
    machine.page(msr >> 12).expect("memory")
}

#[test]
fn the_page_tells_the_time_by_a_product_of_128_bits() {
    let machine = HvMachine::new();
    let time = ReferenceTime::new(&machine).expect("offered");
    let page = page(&machine);
    // A TSC of 2.5 GHz: 100 ns are 250 ticks.
    let scale = ((1u128 << 64) / 250) as u64;
    page.write(8, &scale);
    page.write(16, &(-1000i64));
    page.write(0, &7u32);
    let ticks = 250 * 3_000_000_000_000;
    let now = time.now(&machine, || ticks);
    let error = now
        .as_nanos()
        .abs_diff(u128::from(ticks / 250 - 1000) * 100);
    assert!(error <= 200_000, "{now:?}");
    // Not valid: the counter is asked.
    page.write(0, &0u32);
    assert_eq!(time.now(&machine, || 1), Duration::from_secs(1));
    page.write(0, &7u32);
    time.turn_off(&machine);
    assert_eq!(machine.msr(Msr::REFERENCE_TSC) & 1, 0);
    let now = time.now(&machine, || ticks);
    assert_eq!(now, Duration::from_secs(1), "nobody keeps the page");
    time.turn_on(&machine);
    assert_eq!(machine.msr(Msr::REFERENCE_TSC) & 1, 1);
    assert!(time.now(&machine, || ticks) > Duration::from_secs(1));
    assert_eq!(machine.violations(), []);
}

#[test]
fn a_page_that_changes_is_read_again_and_not_for_ever() {
    let machine = HvMachine::new();
    let time = ReferenceTime::new(&machine).expect("offered");
    let page = page(&machine);
    page.write(8, &(1u64 << 63));
    page.write(0, &1u32);
    let looks = Cell::new(0u32);
    let now = time.now(&machine, || {
        looks.set(looks.get() + 1);
        if looks.get() < 3 {
            page.write(0, &(looks.get() + 1));
        }
        2000
    });
    assert_eq!((now, looks.get()), (Duration::from_micros(100), 3));
    let now = time.now(&machine, || {
        looks.set(looks.get() + 1);
        page.write(0, &looks.get());
        2000
    });
    assert_eq!(now, Duration::from_secs(1), "the counter, in the end");
}

#[test]
fn a_partition_without_them_has_neither() {
    let machine = HvMachine::new();
    machine.deprive(privilege::REFERENCE_TSC);
    let time = ReferenceTime::new(&machine).expect("the counter");
    assert_eq!(machine.msr(Msr::REFERENCE_TSC), 0);
    assert_eq!(time.now(&machine, || 0), Duration::from_secs(1));
    machine.deprive(privilege::REFERENCE_COUNTER);
    assert!(ReferenceTime::new(&machine).is_none());
}

#[test]
fn the_host_hears_why_a_guest_crashed() {
    let machine = HvMachine::new();
    let page = machine.alloc_shared(1).expect("memory");
    assert!(crash::report(&machine, &page, "out of snow"));
    assert_eq!(machine.msr(Msr::CRASH_CTL), 3 << 62);
    let said = machine.page(machine.msr(Msr::CRASH_P3) >> 12);
    let mut text = [0; 11];
    said.expect("memory").copy_out(0, &mut text);
    assert_eq!(&text, b"out of snow");
    assert_eq!(machine.msr(Msr::CRASH_P4), 11);
    // No more than a page.
    assert!(crash::report(&machine, &page, &"x".repeat(5000)));
    assert_eq!(machine.msr(Msr::CRASH_P4), 4096);
}
