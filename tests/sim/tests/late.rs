//! A backend that is late: the disk comes back all the same, and a boot does not
//! go on without having seen it.

use firn_block::DiskId;
use firn_peers::StoreOffence;
use firn_peers::hyperv::HvOffence;
use firn_power::{Boot as Booted, BootOptions, Fault, Frozen, OnRefusal, Standing, Step};
use firn_sim::boot::Boot;
use firn_sim::fault::{Injected, Kind};
use firn_sim::life::{DATA, IMAGE, Life};
use firn_sim::memory::SimAlloc;
use firn_sim::script::Ask;
use firn_sim::side::{Hypervisor, Side};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

/// Longer than a freeze waits for anything, and than a few tries take.
const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_disk_whose_backend_hangs_longer_than_the_freeze_comes_back() {
    let life = Life::new(false, false);
    let boot = life.switch_on(1).expect("a first boot");
    boot.run_for(500).expect("no power cut");
    boot.inject(Some(Injected {
        step: Step::WriteChunks,
        kind: Kind::Hangs,
        always: true,
    }));
    let frozen = life.freeze(&boot, Ask::FULL).expect("no power cut");
    let failure = frozen.expect_err("the image disk hangs");
    assert_eq!(failure.standing, Standing::Live);
    let plug = boot.side.xen().plugs.iter().find(|plug| plug.id == IMAGE);
    let plug = plug.expect("an image disk");
    plug.afflict(Kind::Hangs, Step::Reconnect);
    boot.wait(LONG).expect("no power cut");
    assert!(boot.is_live(DATA) && !boot.is_live(IMAGE));
    plug.recover();
    boot.wait(LONG).expect("no power cut");
    assert!(
        boot.is_live(IMAGE),
        "{:?}",
        boot.side.xen().bus.find(IMAGE).map(|vbd| vbd.to_report())
    );
    let frozen = life.freeze(&boot, Ask::FULL).expect("no power cut");
    assert!(matches!(frozen, Ok(Frozen::Off(_))), "{frozen:?}");
    boot.end();
}

/// A machine that is off, with an image.
fn frozen() -> Life {
    let life = Life::new(false, false);
    let boot = life.switch_on(1).expect("a first boot");
    boot.run_for(500).expect("no power cut");
    let frozen = life.freeze(&boot, Ask::FULL).expect("no power cut");
    assert!(matches!(frozen, Ok(Frozen::Off(_))), "{frozen:?}");
    boot.end();
    life
}

/// A boot that does not get to see every disk changes nothing, whatever it was
/// told; the next one that does restores.
fn waits(on: Hypervisor, unseen: Option<DiskId>, hinder: impl Fn(&Side)) {
    let life = frozen();
    life.hardware.hypervisor.set(on);
    let writes = || {
        let disks = life.hardware.disks.iter();
        disks.map(|(_, disk)| disk.writes()).collect::<Vec<_>>()
    };
    let before = writes();
    for on_refusal in [OnRefusal::Shell, OnRefusal::Cold] {
        let boot = Boot::start_with(&life.hardware, 2, &hinder);
        let options = BootOptions {
            on_refusal,
            ..BootOptions::default()
        };
        let Ok(Booted::Refused(refused)) = life.boot(&boot, options) else {
            panic!("not refused");
        };
        let first = refused.first.unwrap_or(refused.trouble);
        let disk = unseen.map(|disk| boot.side.present(disk));
        assert_eq!((first.step, first.disk), (Step::Look, disk), "{first}");
        assert!(matches!(first.fault, Fault::Unseen(_)), "{first}");
        let cold = life.cold(&boot, refused.undecided).expect("no power cut");
        let why = cold.expect_err("what the disk holds is not known");
        assert!(matches!(why.fault, Fault::Unseen(_)), "{why}");
        boot.end();
    }
    assert_eq!(writes(), before);
    let boot = Boot::start(&life.hardware, 3);
    let booted = life.boot(&boot, BootOptions::default());
    assert!(matches!(booted, Ok(Booted::Restored(_))), "{booted:?}");
    boot.end();
}

#[test]
fn a_boot_waits_for_a_decision_while_a_backend_does_not_connect() {
    for late in [DATA, IMAGE] {
        waits(Hypervisor::Xen, Some(late), |side| {
            side.afflict(late, Kind::Hangs, Step::Look);
        });
    }
}

#[test]
fn a_boot_waits_for_a_decision_while_xenstore_is_silent() {
    waits(Hypervisor::Xen, None, |side| {
        side.xen().store.offend(StoreOffence::Silence)
    });
}

#[test]
fn a_boot_waits_for_a_decision_while_vmbus_or_a_controller_is_silent() {
    for offence in [HvOffence::NeverDeliversOffers, HvOffence::NeverOpens] {
        waits(Hypervisor::HyperV, None, |side| match side {
            Side::Xen(_) => {}
            Side::HyperV(side) => side.host.offend(offence),
        });
    }
}
