//! Whole freezes in one call.

use firn_block::{Completion, Op, Queue, Request, Token};
use firn_peers::{FakeMachine, World, pattern};
use firn_task::Instant;
use firn_xen::Hal;
use firn_xen::blkfront::{DiskStep, StepError, Vbd, WhyNot};
use std::rc::Rc;
use std::time::Duration;

pub(crate) type Disk = Rc<Vbd<FakeMachine>>;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn in_seconds(world: &World, seconds: u32) -> Instant {
    world.machine.now() + SECOND * seconds
}

/// Submits writes of four pages each, of patterns 1, 2, …
pub(crate) fn load(world: &World, index: u32, requests: u64) -> Vec<Token> {
    let submit = |i| {
        let buffer = world.buffer(index, 4);
        buffer.region().copy_in(0, &pattern(i, 4 * 4096));
        let request = Request::data(Op::Write, i * 32, buffer, 4 * 4096);
        world.submit(index, request).expect("room in the queue")
    };
    (1..=requests).map(submit).collect()
}

/// Matches tokens with completions, each exactly once, and gives buffers back.
pub(crate) fn settle(world: &World, index: u32, tokens: Vec<Token>, mut done: Vec<Completion>) {
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), tokens.len(), "each request ends once");
    let vbd = world.vbd(index);
    for (token, completion) in tokens.into_iter().zip(done) {
        token.settle(&completion).expect("its own completion");
        assert_eq!(completion.result, Ok(()));
        if let Some(buffer) = completion.request.buffer {
            let _ = vbd.front.borrow_mut().unregister(buffer);
        }
    }
}

/// Everything up to the disconnect.
pub(crate) async fn quiet(disk: Disk, until: Instant) -> Result<(), StepError> {
    disk.ask()?;
    disk.shut()?;
    disk.drain(until).await?;
    disk.flush(until).await?;
    disk.check_idle()
}

pub(crate) async fn freeze(disk: Disk, until: Instant) -> Result<(), StepError> {
    quiet(disk.clone(), until).await?;
    disk.disconnect(until).await
}

pub(crate) fn freeze_now(
    world: &mut World,
    index: u32,
) -> (Result<(), StepError>, Vec<Completion>) {
    let until = in_seconds(world, 5);
    world.finish(freeze(world.vbd(index), until))
}

pub(crate) fn thaw_now(world: &mut World, index: u32) -> Result<(), StepError> {
    let (disk, until) = (world.vbd(index), in_seconds(world, 30));
    world.finish(async move { disk.thaw(until).await }).0
}

/// Nothing of a disk is granted, mapped or open; the store's and the console's
/// channels are.
pub(crate) fn assert_nothing_left(world: &World) {
    assert_eq!(world.machine.live_grants(), []);
    assert_eq!(world.machine.mapped_grants(), 0);
    assert_eq!(world.machine.open_ports().len(), 2);
    world.assert_clean();
}

/// The state, and that the ring works.
pub(crate) fn assert_works(world: &mut World, index: u32) {
    assert!(world.is_live(index), "{:?}", world.report(index));
    let data = pattern(99, 1 << 17);
    assert_eq!(world.write(index, 0, &data), Ok(()));
    assert_eq!(world.read(index, 0, 1 << 17), Ok(data));
    assert_eq!(world.machine.violations(), []);
}

pub(crate) fn why(result: Result<(), StepError>) -> (DiskStep, WhyNot) {
    let error = result.expect_err("a step that cannot be done");
    (error.step, error.why)
}
