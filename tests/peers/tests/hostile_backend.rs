//! Backends that break the rules. Each offence is a test of its own, named
//! after it, that ends in the error which the table gives; in all of them the
//! guest goes on, another disk works, and no page is reused that the backend
//! can still reach.

use firn_block::gate::Lifecycle;
use firn_block::{Completion, IoError, Op, Queue, Request, Token, Why};
use firn_peers::{BlkOffence, Config, SECTORS, World, pattern};
use firn_xen::blkfront::VbdConfig;
use std::time::Duration;

/// More than all deadlines of a device on its way down.
const LONG: Duration = Duration::from_secs(60);

/// A guest with a disk of a backend that will misbehave, and another one.
fn two_disks(config: Config) -> World {
    let mut world = World::new();
    world.plug(config, SECTORS);
    world.plug(Config::default().disk(1), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    world
}

fn load(world: &World, requests: u64) -> Vec<Token> {
    let submit = |i: u64| {
        let buffer = world.buffer(0, 4);
        let request = Request::data(Op::Read, i * 32, buffer, 4 * 4096);
        world.submit(0, request).expect("room in the queue")
    };
    (0..requests).map(submit).collect()
}

/// Each token has its one completion.
fn settle(tokens: Vec<Token>, mut done: Vec<Completion>) -> Vec<Completion> {
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), tokens.len(), "each request ends once");
    for (token, completion) in tokens.into_iter().zip(&done) {
        token.settle(completion).expect("its own completion");
    }
    done
}

/// The other disk works, and the machine saw no sin.
fn assert_others_live(world: &mut World) {
    let data = pattern(7, 64 << 10);
    assert_eq!(world.write(1, 8, &data), Ok(()));
    assert_eq!(world.read(1, 8, data.len()), Ok(data));
    assert_eq!(world.machine.violations(), []);
    assert_eq!(world.guest().bus_error.borrow().as_ref(), None);
}

/// An offence on the ring while requests are on the way: the device fails.
fn on_the_ring(config: Config, offence: BlkOffence) -> String {
    let mut world = two_disks(config);
    // Something to be stale.
    assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
    world.backends[0].reconfigure(|config| config.delay = 2);
    let tokens = load(&world, 8);
    world.backends[0].offend(offence);
    let done = settle(tokens, world.drain(0));
    world.settle();
    let report = world.report(0);
    assert_eq!(report.state, Lifecycle::Failed);
    let rule = report.offence.expect("an offence").rule();
    for completion in &done {
        let failed = Err(IoError::DeviceFailed(rule));
        assert!(completion.result.is_ok() || completion.result == failed);
    }
    assert!(done.iter().any(|completion| completion.result.is_err()));
    let late = world.refusal(0, Request::flush());
    assert_eq!(late, Why::NotLive(Lifecycle::Failed));
    world.run_for(LONG);
    world.backends[0].release();
    world.run_for(LONG);
    assert_eq!(world.guest().xen.grants.deferred(), 0, "all came back");
    assert_others_live(&mut world);
    report.offence.expect("an offence").to_string()
}

/// An offence in the handshake: the device fails to connect.
fn in_the_handshake(offence: BlkOffence) -> String {
    let mut world = two_disks(Config::default().offending(offence));
    world.run_for(LONG);
    let report = world.report(0);
    assert_eq!(report.state, Lifecycle::Failed);
    assert_others_live(&mut world);
    report.error.expect("an error").to_string()
}

/// A state that makes no sense while the disk is live and busy.
fn while_live(state: &str) -> String {
    let mut world = two_disks(Config::default());
    world.backends[0].offend(BlkOffence::NeverAnswers);
    let tokens = load(&world, 8);
    world.settle();
    world.backends[0].pretend(state);
    world.run_for(LONG);
    let done = settle(tokens, world.drain(0));
    assert!(done.iter().all(|done| done.result == Err(IoError::Gone)));
    assert_others_live(&mut world);
    let report = world.report(0);
    let error = report.error.map(|error| error.to_string());
    error.unwrap_or_else(|| format!("{} ({})", done[0].result.unwrap_err(), report.state))
}

/// A new size that cannot be, while the disk is live.
fn resized_to(sectors: &str) -> String {
    let mut world = two_disks(Config::default());
    let path = world.backends[0].path();
    world.store.write(&format!("{path}/sectors"), sectors);
    world.backends[0].pretend("4");
    world.run_for(LONG);
    let report = world.report(0);
    assert_eq!(report.state, Lifecycle::Failed);
    assert_others_live(&mut world);
    report.error.expect("an error").to_string()
}

/// The answer to a request of a kind is an error, and the disk goes on.
fn answered(offence: BlkOffence, op: Op) -> String {
    let mut world = two_disks(Config::default());
    world.backends[0].offend(offence);
    let request = match op {
        Op::Flush => Request::flush(),
        _ => Request::data(op, 0, world.buffer(0, 1), 4096),
    };
    let done = world.io(0, request).expect("accepted");
    assert!(world.is_live(0));
    assert_eq!(world.read(0, 0, 512), Ok(vec![0; 512]));
    assert_others_live(&mut world);
    done.result.expect_err("an error").to_string()
}

/// What a frontend need not notice: everything works, other than the backend.
fn harmless(offence: BlkOffence) -> String {
    for config in [Config::default(), Config::plain()] {
        let mut world = two_disks(config);
        for i in 0..40 {
            world.backends[0].offend(offence);
            let data = pattern(i, 128 << 10);
            assert_eq!(world.write(0, 16, &data), Ok(()), "{offence:?}");
            assert_eq!(world.read(0, 16, data.len()), Ok(data), "{offence:?}");
        }
        assert!(world.is_live(0));
        assert_others_live(&mut world);
    }
    "none".to_owned()
}

/// A backend that closes, with requests on the way, and does not play along.
fn while_closing(offence: BlkOffence) -> String {
    let mut world = two_disks(Config::default());
    world.backends[0].offend(offence);
    let tokens = load(&world, 8);
    world.backends[0].close();
    world.run_for(LONG);
    let done = settle(tokens, world.drain(0));
    assert!(done.iter().all(|done| done.result.is_err()));
    assert_others_live(&mut world);
    world.report(0).offence.expect("an offence").to_string()
}

/// A storm of events from a backend that does not even close.
fn storm() -> String {
    let config = Config::default()
        .offending(BlkOffence::EventStorm)
        .offending(BlkOffence::NeverCloses);
    let mut world = World::new();
    world.plug(config, SECTORS);
    world.plug(Config::default().disk(1), SECTORS);
    world.start(VbdConfig::default());
    let turns = (0..20_000).take_while(|_| world.turn()).count();
    assert!(turns < 20_000, "the port is not masked");
    let offence = world.report(0).offence.expect("an offence");
    assert_others_live(&mut world);
    offence.to_string()
}

/// Features that differ at every look: whatever was believed, it is one set of
/// them, and data is safe.
fn flipping() -> String {
    for turns in 0..40 {
        let mut world = World::new();
        world.plug(Config::default(), SECTORS);
        world.plug(Config::default().disk(1), SECTORS);
        world.start(VbdConfig::default());
        for _ in 0..turns {
            world.turn();
        }
        world.backends[0].offend(BlkOffence::FeaturesFlip);
        world.run_for(LONG);
        if world.is_live(0) {
            let block = world.report(0).info.logical_block as usize;
            let data = pattern(turns, 8 * block);
            assert_eq!(world.write(0, 0, &data), Ok(()));
            assert_eq!(world.read(0, 0, data.len()), Ok(data));
        } else {
            assert!(world.report(0).error.is_some());
        }
        assert_others_live(&mut world);
    }
    "none".to_owned()
}

/// A backend that keeps everything mapped after a close, until `release`.
fn keeps_grants() -> String {
    let mut world = two_disks(Config::default());
    let buffer = world.buffer(0, 4);
    let request = Request::data(Op::Write, 0, buffer, 4 * 4096);
    let buffer = world.io(0, request).expect("live").request.buffer;
    world.backends[0].offend(BlkOffence::KeepsGrants);
    world.backends[0].close();
    world.run_for(LONG);
    assert_eq!(world.report(0).state, Lifecycle::Closed);
    let kept = world.machine.mapped_grants();
    let grants = &world.guest().xen.grants;
    assert!(grants.deferred() > 16, "the ring's 16 pages and more");
    let named = grants.live().into_iter().find(|grant| grant.deferred);
    let named = named.expect("a deferred grant").to_owned();
    // It offers itself again: the buffer must not be used with it.
    let front = world.backends[0].front_path();
    world.store.write(&format!("{front}/state"), "1");
    world.run_for(LONG);
    assert!(world.is_live(0));
    let buffer = buffer.expect("the buffer came back");
    let reuse = world.refusal(0, Request::data(Op::Read, 0, buffer, 4096));
    assert_eq!(reuse, Why::ForeignBuffer);
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    assert!(world.machine.mapped_grants() >= kept);
    assert_others_live(&mut world);
    world.backends[0].behave();
    world.backends[0].release();
    world.run_for(LONG);
    let deferred = world.guest().xen.grants.live();
    let gone = deferred
        .iter()
        .all(|grant| grant.reference != named.reference);
    assert!(gone, "the reference is given back when the backend lets go");
    assert_eq!(world.machine.violations(), []);
    format!("{} {} is deferred", named.purpose, named.reference)
}

/// Answers on a ring that was taken apart.
fn haunts() -> String {
    let mut world = two_disks(Config::default());
    assert_eq!(world.write(0, 0, &pattern(1, 8192)), Ok(()));
    world.backends[0].offend(BlkOffence::AnswersAfterClosed);
    world.backends[0].close();
    world.run_for(LONG);
    assert_eq!(world.report(0).state, Lifecycle::Closed);
    let front = world.backends[0].front_path();
    world.store.write(&format!("{front}/state"), "1");
    world.run_for(LONG);
    assert!(world.is_live(0));
    assert_eq!(world.read(0, 0, 8192), Ok(pattern(1, 8192)));
    assert_others_live(&mut world);
    "none".to_owned()
}

/// Answers without events: whoever polls does not need them.
fn never_notifies() -> String {
    let mut world = two_disks(Config::default().offending(BlkOffence::NeverNotifies));
    let tokens = load(&world, 32);
    let vbd = world.vbd(0);
    let mut done = Vec::new();
    for _ in 0..100 {
        world.turn();
        let mut push = |completion| done.push(completion);
        vbd.front.borrow_mut().poll(32, &mut push);
    }
    let done = settle(tokens, done);
    assert!(done.iter().all(|done| done.result.is_ok()));
    assert_others_live(&mut world);
    "none".to_owned()
}

/// Gets no answer, ever, and is asked nothing: the other disk does not care.
fn never_answers() -> String {
    let mut world = two_disks(Config::default().offending(BlkOffence::NeverAnswers));
    let tokens = load(&world, 32);
    assert!(world.drain(0).is_empty());
    assert_others_live(&mut world);
    // Only the guest's owner can give up; then everything ends.
    world.backends[0].close();
    world.run_for(LONG);
    let done = settle(tokens, world.drain(0));
    assert!(done.iter().all(|done| done.result.is_err()));
    world.report(0).offence.expect("an offence").to_string()
}

fn persistent() -> Config {
    Config::default()
}

fn plain() -> Config {
    Config::plain()
}

macro_rules! offences {
    ($($name:ident: $expected:literal = $run:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let error = $run;
                assert!(error.contains($expected), "{error}");
            }
        )*

        /// Prints what each offence ends in.
        #[test]
        fn the_table() {
            let mut rows: Vec<(&str, &str)> = vec![$((stringify!($name), $expected)),*];
            rows.sort_unstable();
            for (name, expected) in &rows {
                println!("{:<60} {expected}", name.replace('_', " "));
            }
            assert!(rows.len() >= 30, "{} offences", rows.len());
        }
    };
}

offences! {
    response_index_runs_away: "rsp_prod beyond the requests in flight"
        = on_the_ring(persistent(), BlkOffence::ResponseIndexRunsAway);
    response_index_runs_away_on_plain_grants: "rsp_prod beyond the requests in flight"
        = on_the_ring(plain(), BlkOffence::ResponseIndexRunsAway);
    response_index_goes_back: "rsp_prod beyond the requests in flight"
        = on_the_ring(persistent(), BlkOffence::ResponseIndexGoesBack);
    response_index_goes_back_on_plain_grants: "rsp_prod beyond the requests in flight"
        = on_the_ring(plain(), BlkOffence::ResponseIndexGoesBack);
    response_with_an_id_that_was_never_used: "response with an unknown id"
        = on_the_ring(persistent(), BlkOffence::UnknownId);
    response_with_an_id_that_was_never_used_on_plain_grants: "response with an unknown id"
        = on_the_ring(plain(), BlkOffence::UnknownId);
    response_with_the_id_of_an_idle_slot: "response to a request that is not in flight"
        = on_the_ring(persistent(), BlkOffence::IdleId);
    response_with_the_id_of_an_idle_slot_on_plain_grants:
        "response to a request that is not in flight"
        = on_the_ring(plain(), BlkOffence::IdleId);
    doubled_completion: "response to a request that is not in flight"
        = on_the_ring(persistent(), BlkOffence::DoubledCompletion);
    doubled_completion_on_plain_grants: "response to a request that is not in flight"
        = on_the_ring(plain(), BlkOffence::DoubledCompletion);
    response_with_another_operation: "asked READ, answered WRITE"
        = on_the_ring(persistent(), BlkOffence::WrongOperation);
    response_with_an_operation_that_does_not_exist: "answered unknown (127)"
        = on_the_ring(persistent(), BlkOffence::UnknownOperation);
    response_with_a_status_that_does_not_exist: "response with an unknown status"
        = on_the_ring(persistent(), BlkOffence::UnknownStatus);
    page_still_mapped_after_its_response: "page still mapped after its response"
        = on_the_ring(plain(), BlkOffence::KeepsRequestPages);
    storm_of_events_without_work: "events without work" = storm();
    never_init_wait: "deadline: backend is Initialising"
        = in_the_handshake(BlkOffence::NeverInitWait);
    never_connected: "deadline: backend is InitWait"
        = in_the_handshake(BlkOffence::NeverConnects);
    connected_before_there_is_a_ring: "backend is Connected, waited for offer its features"
        = in_the_handshake(BlkOffence::ConnectedTooEarly);
    closed_instead_of_connected: "Closed" = in_the_handshake(BlkOffence::ClosedInsteadOfConnected);
    state_that_does_not_exist: "backend went to unknown (99)"
        = in_the_handshake(BlkOffence::UnknownState);
    state_that_is_no_number: "backend is Unknown" = in_the_handshake(BlkOffence::GarbledState);
    back_to_initialising_while_live: "the disk is gone" = while_live("1");
    back_to_init_wait_while_live: "the disk is gone" = while_live("2");
    back_to_initialised_while_live: "backend went to Initialised" = while_live("3");
    closed_without_closing_while_live: "the disk is gone" = while_live("6");
    unknown_state_while_live: "backend went to unknown (99)" = while_live("99");
    garbled_state_while_live: "the disk is gone" = while_live("?\u{0}\u{ff}");
    shrinks_to_nothing_while_live: "the disk has no blocks" = resized_to("0");
    grows_beyond_all_bytes_while_live: "beyond 2^64 bytes" = resized_to("36028797018963968");
    garbled_size_while_live: "backend key `sectors`" = resized_to("lots");
    features_differ_at_every_look: "none" = flipping();
    never_answers_while_closing: "requests without an answer at the deadline (8 requests)"
        = while_closing(BlkOffence::NeverAnswers);
    never_takes_requests_while_closing:
        "requests without an answer at the deadline (8 requests)"
        = while_closing(BlkOffence::NeverTakes);
    never_answers_at_all: "requests without an answer at the deadline (32 requests)"
        = never_answers();
    keeps_grants_mapped_after_closing: "is deferred" = keeps_grants();
    answers_after_closed: "none" = haunts();
    flush_is_withdrawn: "the host does not support the operation"
        = answered(BlkOffence::FlushUnsupported, Op::Flush);
    reads_are_withdrawn: "the host does not support the operation"
        = answered(BlkOffence::Unsupported, Op::Read);
    writes_fail: "the host reports an error" = answered(BlkOffence::Fails, Op::Write);
    scribbles_over_request_slots: "none" = harmless(BlkOffence::ScribblesOverRequests);
    overwrites_the_request_index: "none" = harmless(BlkOffence::OverwritesRequestIndex);
    never_wants_events: "none" = harmless(BlkOffence::NeverWantsEvents);
    never_sends_events: "none" = never_notifies();
}
