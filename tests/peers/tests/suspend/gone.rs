//! Disks that go while hosts change.

use super::*;

/// Found by the fuzzer: the resume that a second suspend finds under way is of
/// a disk that was about to close, and then goes altogether.
#[test]
fn a_disk_that_goes_in_the_middle_of_all_ends_everything_once() {
    for turns in 0..12 {
        let mut world = live(Config::default());
        world.backends[0].allow(Some(0));
        let tokens = load(&world, 16);
        world.backends[0].close();
        for _ in 0..5 {
            world.turn();
        }
        migrate(&mut world, Config::default());
        for _ in 0..turns {
            world.turn();
        }
        let vbd = world.vbd(0);
        let _ = world.suspend_in_vain();
        world.backends[0].unplug();
        world.run_for(LONG);
        world.backends[0].vanish();
        world.run_for(LONG);
        let done = completions(&mut *vbd.front.borrow_mut());
        settle(tokens, done);
        assert_eq!(world.machine.violations(), [], "{turns}");
    }
}

/// Found by the fuzzer: a handshake that asks the store again after a reset, and
/// gets its answer from another host than the one that it began on.
#[test]
fn a_handshake_does_not_go_on_across_hosts() {
    for (before, after) in (0..40).flat_map(|before| [(before, 2), (before, 9)]) {
        let mut world = live(Config::default());
        migrate(&mut world, Config::default());
        for _ in 0..before {
            world.turn();
        }
        world.store.reset();
        for _ in 0..after {
            world.turn();
        }
        migrate(&mut world, Config::default());
        world.run_for(LONG);
        assert!(world.is_live(0), "{before} {after}");
        assert_eq!(world.machine.violations(), [], "{before} {after}");
    }
}

/// Found by the fuzzer: a suspend that is called off before the disk has taken up
/// its part on the host of the one before. There is no way back from there.
#[test]
fn a_suspend_called_off_right_after_a_resume_takes_nothing_back() {
    for turns in 0..12 {
        let mut world = live(Config::default());
        world.backends[0].allow(Some(2));
        let tokens = load(&world, 16);
        world.backends[0].close();
        for _ in 0..turns {
            world.turn();
        }
        migrate(&mut world, Config::default());
        assert_eq!(world.suspend_in_vain(), Ok(Suspended::Cancelled));
        world.settle();
        let done = world.drain(0);
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{turns}: {results:?}");
        assert_written(&world, 16);
        assert_works(&mut world);
    }
}
