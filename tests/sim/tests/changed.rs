//! Restore on a machine that is not as it was: refused by name, and nothing is
//! lost by that.

use firn_block::DiskId;
use firn_image::{BindError, Refusal};
use firn_peers::Disk;
use firn_power::{Boot, BootOptions, Choice, Fault, OnRefusal, Step};
use firn_sim::boot;
use firn_sim::fault::{Injected, Kind};
use firn_sim::life::{DATA, IMAGE, Life};
use firn_sim::memory::SimAlloc;
use firn_sim::script::Ask;

#[global_allocator]
static ALLOCATOR: SimAlloc = SimAlloc;

/// A machine that is off, with an image.
fn frozen() -> Life {
    let life = Life::new(false, false);
    let boot = life.switch_on(1).expect("a first boot");
    boot.run_for(500).expect("no power cut");
    life.freeze(&boot, Ask::FULL)
        .expect("no power cut")
        .expect("frozen");
    boot.end();
    life
}

fn boot(life: &Life, options: BootOptions) -> Boot {
    let boot = boot::Boot::start(&life.hardware, 2);
    let booted = life.boot(&boot, options).expect("no power cut");
    boot.end();
    booted
}

/// What is on both disks, and how often something was written to them.
fn every_byte(life: &Life) -> Vec<(Vec<u8>, u64)> {
    let disks = life.hardware.disks.iter();
    let whole = |disk: &Disk| (disk.content(0, disk.capacity()), disk.writes());
    disks.map(|(_, disk)| whole(disk)).collect()
}

/// Why a boot is refused; it must not have changed anything.
fn refusal(life: &Life, options: BootOptions) -> Fault {
    let before = every_byte(life);
    let booted = boot(life, options);
    assert!(every_byte(life) == before, "something was written");
    match booted {
        Boot::Refused(refused) => refused.trouble.fault,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_restored(life: &Life) -> bool {
    matches!(boot(life, BootOptions::default()), Boot::Restored(_))
}

#[test]
fn another_build_is_refused() {
    let life = frozen();
    life.hardware.build.set("another build");
    let fault = refusal(&life, BootOptions::default());
    assert!(matches!(fault, Fault::Refusal(Refusal::Build { .. })));
    life.hardware.build.set("this build");
    assert!(is_restored(&life));
}

#[test]
fn a_disk_that_somebody_wrote_to_is_refused() {
    let life = frozen();
    let data = &life.hardware.disks[0].1;
    let before = data.content(3, 1);
    data.set_content(3, &[0x5a; 512]);
    let fault = refusal(&life, BootOptions::default());
    let missing = Refusal::Disk(BindError::Missing(DATA));
    assert_eq!(fault, Fault::Refusal(missing));
    data.set_content(3, &before);
    assert!(is_restored(&life));
}

#[test]
fn disks_may_change_places() {
    let life = frozen();
    let mut hardware = life.hardware.clone();
    hardware.disks[0].0 = DiskId(1);
    hardware.disks[1].0 = DiskId(0);
    hardware.image = DiskId(0);
    let boot = boot::Boot::start(&hardware, 2);
    let booted = life.boot(&boot, BootOptions::default());
    boot.end();
    let Ok(Boot::Restored(restored)) = booted else {
        panic!("not restored: {booted:?}");
    };
    let found = restored.disks[0];
    assert_eq!((found.saved, found.present), (DATA, DiskId(1)));
}

#[test]
fn a_restore_that_fails_leaves_no_trace() {
    for (step, kind) in [
        (Step::Look, Kind::Error),
        (Step::Compare, Kind::Error),
        (Step::Load, Kind::Error),
        (Step::Load, Kind::Gone),
        (Step::Adopt, Kind::Error),
        (Step::Bind, Kind::NoMemory),
    ] {
        let life = frozen();
        let before = every_byte(&life);
        for _ in 0..3 {
            let boot = boot::Boot::start(&life.hardware, 2);
            boot.inject(Some(Injected {
                step,
                kind,
                always: true,
            }));
            let booted = life.boot(&boot, BootOptions::default());
            boot.end();
            assert!(matches!(booted, Ok(Boot::Refused(_))), "{booted:?}");
            assert!(every_byte(&life) == before, "{step}: something was written");
        }
        assert!(is_restored(&life));
    }
}

#[test]
fn an_image_that_is_not_wanted_is_refused_and_kept() {
    let life = frozen();
    for image in [Choice::None, Choice::On(DATA)] {
        let options = BootOptions {
            image,
            ..BootOptions::default()
        };
        assert_eq!(refusal(&life, options), Fault::NotWanted);
    }
    let named = BootOptions {
        image: Choice::On(IMAGE),
        ..BootOptions::default()
    };
    assert!(matches!(boot(&life, named), Boot::Restored(_)));
}

#[test]
fn going_on_cold_gives_the_image_up_for_good() {
    let life = frozen();
    let options = BootOptions {
        image: Choice::None,
        on_refusal: OnRefusal::Cold,
        ..BootOptions::default()
    };
    let Boot::Cold(cold) = boot(&life, options) else {
        panic!("not cold");
    };
    // Somebody wants to know why.
    let why = cold.refused.map(|trouble| (trouble.disk, trouble.fault));
    assert_eq!(why, Some((Some(IMAGE), Fault::NotWanted)));
    assert_eq!(cold.gone.len(), 1);
    assert!(matches!(boot(&life, BootOptions::default()), Boot::Cold(_)));
}

#[test]
fn why_an_image_was_to_be_given_up_is_not_forgotten_when_that_fails() {
    let life = frozen();
    let boot = boot::Boot::start(&life.hardware, 2);
    boot.inject(Some(Injected {
        step: Step::Abandon,
        kind: Kind::Error,
        always: true,
    }));
    let options = BootOptions {
        image: Choice::None,
        on_refusal: OnRefusal::Cold,
        ..BootOptions::default()
    };
    let booted = life.boot(&boot, options);
    boot.end();
    let Ok(Boot::Refused(refused)) = booted else {
        panic!("not refused: {booted:?}");
    };
    assert_eq!(refused.trouble.step, Step::Abandon);
    let first = refused.first.map(|trouble| trouble.fault);
    assert_eq!(first, Some(Fault::NotWanted));
}

#[test]
fn a_copy_of_the_image_on_a_second_disk_is_refused_until_one_is_named() {
    let life = frozen();
    let mut hardware = life.hardware.clone();
    let copy = hardware.disks[1].1.fork();
    hardware.disks.push((DiskId(2), copy));
    let start = |image| {
        let boot = boot::Boot::start(&hardware, 2);
        let options = BootOptions {
            image,
            ..BootOptions::default()
        };
        let booted = life.boot(&boot, options).expect("no power cut");
        boot.end();
        booted
    };
    let Boot::Refused(refused) = start(Choice::Auto) else {
        panic!("not refused");
    };
    let both = vec![IMAGE, DiskId(2)];
    assert_eq!(refused.trouble.fault, Fault::Several(both.clone()));
    assert_eq!(refused.undecided, both);
    assert!(matches!(start(Choice::On(IMAGE)), Boot::Restored(_)));
    // Neither the one that went on nor its copy ever goes on again.
    assert!(matches!(start(Choice::Auto), Boot::Cold(_)));
}

#[test]
fn going_on_cold_wants_the_image_disk_to_be_there() {
    let life = frozen();
    let boot = boot::Boot::start(&life.hardware, 2);
    let options = BootOptions {
        image: Choice::None,
        ..BootOptions::default()
    };
    let Ok(Boot::Refused(refused)) = life.boot(&boot, options) else {
        panic!("not refused");
    };
    assert_eq!(refused.undecided, [IMAGE]);
    let plug = boot.plugs.iter().find(|plug| plug.id == IMAGE);
    plug.expect("an image disk").back.vanish();
    boot.run_for(100).expect("no power cut");
    let cold = life.cold(&boot, refused.undecided).expect("no power cut");
    assert_eq!(cold.map_err(|trouble| trouble.fault), Err(Fault::Gone));
    boot.end();
    assert!(is_restored(&life));
}

#[test]
fn an_end_that_may_be_forgotten_is_not_believed() {
    let life = frozen();
    let boot = boot::Boot::start(&life.hardware, 2);
    // CONSUMED is written, and its flush fails.
    boot.inject(Some(Injected {
        step: Step::Consume,
        kind: Kind::Effect,
        always: true,
    }));
    let Ok(Boot::Refused(refused)) = life.boot(&boot, BootOptions::default()) else {
        panic!("not refused");
    };
    let cold = life.cold(&boot, refused.undecided).expect("no power cut");
    assert!(cold.is_ok(), "{cold:?}");
    boot.end();
    for (_, disk) in &life.hardware.disks {
        disk.crash();
    }
    let next = self::boot(&life, BootOptions::default());
    assert!(matches!(next, Boot::Cold(_)), "{next:?}");
}
