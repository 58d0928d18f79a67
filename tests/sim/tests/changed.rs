//! Restore on a machine that is not as it was: refused by name, and nothing is
//! lost by that.

use firn_block::DiskId;
use firn_image::{BindError, Refusal};
use firn_peers::{BlkOffence, Disk};
use firn_power::{Boot, BootOptions, Choice, Fault, OnRefusal, Refused, Step};
use firn_sim::boot::{self, Hardware};
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

/// A copy of the image disk.
const COPY: DiskId = DiskId(2);

/// A machine that is off, with an image, and a copy of that.
struct Copied {
    life: Life,
    hardware: Hardware,
}

impl Copied {
    fn new() -> Self {
        let life = frozen();
        let mut hardware = life.hardware.clone();
        let copy = hardware.disks[1].1.fork();
        hardware.disks.push((COPY, copy));
        Self { life, hardware }
    }

    /// Boots after `prepare`.
    fn start(&self, image: Choice, prepare: impl FnOnce(&boot::Boot)) -> Boot {
        let boot = boot::Boot::start(&self.hardware, 2);
        prepare(&boot);
        let options = BootOptions {
            image,
            ..BootOptions::default()
        };
        let booted = self.life.boot(&boot, options).expect("no power cut");
        boot.end();
        booted
    }

    /// The same with a step that fails every time, and why that is refused.
    fn fails_at(&self, step: Step, kind: Kind) -> Refused {
        let always = true;
        let fault = Injected { step, kind, always };
        match self.start(Choice::On(IMAGE), |boot| boot.inject(Some(fault))) {
            Boot::Refused(refused) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn every_byte(&self) -> [Vec<u8>; 3] {
        let disk = |at: usize| &self.hardware.disks[at].1;
        [0, 1, 2].map(|at| disk(at).content(0, disk(at).capacity()))
    }
}

#[test]
fn a_copy_of_the_image_on_a_second_disk_is_refused_until_one_is_named() {
    let copied = Copied::new();
    let Boot::Refused(refused) = copied.start(Choice::Auto, |_| {}) else {
        panic!("not refused");
    };
    let both = vec![IMAGE, COPY];
    assert_eq!(refused.trouble.fault, Fault::Several(both.clone()));
    assert_eq!(refused.undecided, both);
    let Boot::Restored(restored) = copied.start(Choice::On(IMAGE), |_| {}) else {
        panic!("not restored");
    };
    assert_eq!(restored.gone, [(COPY, restored.generation)]);
    // Neither the one that went on nor its copy ever goes on again.
    assert!(matches!(copied.start(Choice::Auto, |_| {}), Boot::Cold(_)));
}

#[test]
fn no_image_is_given_up_for_one_that_is_not_consumed() {
    for kind in [Kind::Error, Kind::Effect, Kind::Gone] {
        let copied = Copied::new();
        let [_, _, before] = copied.every_byte();
        let refused = copied.fails_at(Step::Consume, kind);
        assert_eq!(refused.trouble.step, Step::Consume, "{kind}");
        let [_, _, after] = copied.every_byte();
        assert!(before == after, "{kind}: the copy was touched");
    }
}

#[test]
fn an_image_goes_on_only_once_every_other_is_given_up() {
    let copied = Copied::new();
    let refused = copied.fails_at(Step::Abandon, Kind::Error);
    assert_eq!(refused.trouble.disk, Some(COPY));
    assert_eq!(refused.undecided, [IMAGE, COPY]);
    // What was consumed never went on: the copy may.
    let Boot::Restored(restored) = copied.start(Choice::Auto, |_| {}) else {
        panic!("not restored");
    };
    assert_eq!((restored.image, restored.gone), (COPY, vec![]));
}

#[test]
fn an_image_that_cannot_be_given_up_is_noticed_before_another_is_consumed() {
    let copied = Copied::new();
    let before = copied.every_byte();
    let no_flush = |boot: &boot::Boot| {
        boot.side.xen().plugs[2]
            .back
            .offend(BlkOffence::FlushUnsupported)
    };
    let booted = copied.start(Choice::On(IMAGE), no_flush);
    let Boot::Refused(refused) = booted else {
        panic!("not refused: {booted:?}");
    };
    let at = (refused.trouble.step, refused.trouble.disk);
    assert_eq!(at, (Step::Compare, Some(COPY)));
    assert!(copied.every_byte() == before, "something was written");
    let booted = copied.start(Choice::On(IMAGE), |_| {});
    assert!(matches!(booted, Boot::Restored(_)), "{booted:?}");
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
    let plug = boot.side.xen().plugs.iter().find(|plug| plug.id == IMAGE);
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
