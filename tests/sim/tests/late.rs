//! A backend that is late: the disk comes back all the same.

use firn_power::{Frozen, Standing, Step};
use firn_sim::fault::{Injected, Kind};
use firn_sim::life::{DATA, IMAGE, Life};
use firn_sim::memory::SimAlloc;
use firn_sim::script::Ask;
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
