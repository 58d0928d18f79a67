//! One disk that leaves its channel and comes back, and steps that are given up
//! half-way: a freeze gives each of them some seconds.

use crate::io::live;
use firn_block::gate::Lifecycle;
use firn_hyperv::Hal;
use firn_hyperv::storvsc::WhyNot;
use firn_peers::hyperv::{HvOffence, HvWorld, Lun};
use firn_peers::{Disk, SECTORS, pattern};
use std::time::Duration;

/// Takes the first disk off, or brings it back, with a second for it.
fn in_a_second(world: &mut HvWorld, attach: bool) -> Result<(), WhyNot> {
    let (controller, unit) = (world.controller(0), world.unit(0));
    let until = world.machine.now() + Duration::from_secs(1);
    let (done, _) = world.finish(async move {
        match attach {
            true => controller.attach(&unit, until).await,
            false => controller.detach(&unit, until).await,
        }
    });
    done.map_err(|error| error.why)
}

#[test]
fn a_step_that_is_given_up_half_way_leaves_the_channel_to_the_next() {
    let late = Err(WhyNot::Deadline { in_flight: 0 });
    for given_up in [
        HvOffence::NeverCreatesGpadl,
        HvOffence::NeverOpens,
        HvOffence::NeverBegins,
        HvOffence::NeverTearsDown,
    ] {
        let mut world = live();
        world.unit(0).shut().expect("live");
        let at_once = given_up == HvOffence::NeverTearsDown;
        if at_once {
            world.host.offend(given_up);
            assert_eq!(in_a_second(&mut world, false), late);
            assert_eq!(world.unit(0).state(), Lifecycle::Closed);
        } else {
            assert_eq!(in_a_second(&mut world, false), Ok(()));
            world.host.offend(given_up);
            assert_eq!(in_a_second(&mut world, true), late, "{given_up:?}");
        }
        world.host.behave();
        assert_eq!(in_a_second(&mut world, true), Ok(()), "{given_up:?}");
        assert_eq!(world.unit(0).state(), Lifecycle::Freezing, "shut");
        world.unit(0).open().expect("connected");
        assert_eq!(world.write(0, 0, &pattern(4, 4096)), Ok(()));
        world.assert_clean();
    }
}

#[test]
fn a_disk_that_was_not_found_is_not_put_on_a_channel() {
    let mut world = live();
    let lun = Lun::new(Disk::new(SECTORS)).named(5);
    world.storvsps[0].plug(3, lun);
    world.settle();
    world.unit(0).shut().expect("live");
    assert_eq!(in_a_second(&mut world, false), Ok(()));
    world.storvsps[0].unplug(0);
    world.settle();
    let refused = Err(WhyNot::State(Lifecycle::Frozen));
    assert_eq!(in_a_second(&mut world, true), refused);
    world.storvsps[0].plug(0, Lun::new(Disk::new(SECTORS)));
    world.settle();
    assert_eq!(in_a_second(&mut world, true), Ok(()));
    world.assert_clean();
}
