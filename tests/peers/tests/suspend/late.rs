//! A store whose answers are late.

use super::*;
use firn_peers::StoreOffence;

/// A store that answers nothing for `silent` at some step of a resume, and then
/// everything.
fn resume_with_a_late_store(turns: usize, silent: Duration) -> (World, Vec<Token>) {
    let mut world = live(Config::default());
    world.backends[0].allow(Some(0));
    let tokens = load(&world, 16);
    world.settle();
    migrate(&mut world, Config::default());
    for _ in 0..turns {
        world.turn();
    }
    world.store.offend(StoreOffence::Deaf);
    world.run_for(silent);
    world.store.behave();
    (world, tokens)
}

#[test]
fn a_store_that_answers_late_during_a_resume_costs_no_disk() {
    for turns in 0..40 {
        let late = Duration::from_secs(14);
        let (mut world, tokens) = resume_with_a_late_store(turns, late);
        world.run_for(LONG);
        assert!(world.is_live(0), "{turns}: {:?}", world.report(0));
        let done = world.drain(0);
        let results = settle(tokens, done);
        assert!(results.iter().all(Result::is_ok), "{turns}: {results:?}");
        assert_written(&world, 16);
        assert_eq!(world.guest().bus_error.borrow().as_ref(), None);
        // Also those who watch are still there.
        world.backends[0].resize(2 * SECTORS);
        world.plug(Config::default().disk(1), SECTORS);
        world.settle();
        assert_eq!(world.report(0).info.capacity, 2 * SECTORS, "{turns}");
        assert!(world.is_live(1), "{turns}");
        assert_works(&mut world);
    }
}

#[test]
fn a_store_that_never_answers_during_a_resume_ends_everything_by_name() {
    let (mut world, tokens) = resume_with_a_late_store(4, LONG);
    let error = world.report(0).error.expect("given up").to_string();
    assert!(error.contains("no answer in time"), "{error}");
    let done = world.drain(0);
    let results = settle(tokens, done);
    assert!(results.iter().all(|result| *result == Err(IoError::Gone)));
    assert_eq!(world.machine.violations(), []);
}

#[test]
fn a_store_that_answers_late_does_not_end_a_live_disk() {
    let mut world = live(Config::default());
    world.store.offend(StoreOffence::Deaf);
    world.backends[0].resize(2 * SECTORS);
    world.run_for(LONG);
    assert_works(&mut world);
    world.store.behave();
    world.run_for(LONG);
    assert_eq!(world.report(0).info.capacity, 2 * SECTORS);
    assert_works(&mut world);
}

#[test]
fn a_disk_that_came_while_the_store_was_silent_is_found_when_it_answers() {
    for turns in 0..30 {
        let mut world = live(Config::default());
        world.plug(Config::default().disk(1), SECTORS);
        for _ in 0..turns {
            world.turn();
        }
        world.store.offend(StoreOffence::Deaf);
        world.run_for(LONG);
        world.store.behave();
        world.run_for(LONG);
        assert_eq!(world.guest().bus.trouble(), None, "{turns}");
        assert!(world.is_live(0), "{turns}");
        assert_eq!(world.guest().bus.vbds().len(), 2, "{turns}");
        world.backends[0].unplug();
        world.run_for(LONG);
        assert_eq!(world.guest().bus.vbds().len(), 1, "{turns}");
    }
}
