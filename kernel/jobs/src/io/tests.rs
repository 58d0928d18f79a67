use super::*;
use crate::testing::{FakeMachine, Order, RamDisk, turn};
use core::cell::{Cell, RefCell};
use firn_block::{Op, Queue, SECTOR, lost_tokens};
use firn_task::{Executor, Time};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const DISK: DiskId = DiskId(0);
const MIB: usize = 1 << 20;

fn machine() -> FakeMachine {
    FakeMachine::with_disk(RamDisk::new(0, MIB))
}

/// Runs a future to its end, or until nothing moves any more.
fn run<F: Future<Output = ()> + 'static>(machine: &FakeMachine, job: F) {
    let executor = Executor::new();
    executor.spawn(job);
    turn(machine, &executor);
}

fn soon(machine: &FakeMachine) -> Instant {
    machine.now() + Duration::from_secs(1)
}

/// Reads `count` single sectors at full depth; every one must end exactly once.
async fn read_all(machine: FakeMachine, depth: usize, count: u64) -> Vec<u64> {
    let mut channel = Channel::open(&machine, DISK, depth, 512).expect("room");
    let mut ended = Vec::with_capacity(count as usize);
    let mut next = 0;
    while (ended.len() as u64) < count {
        while next < count
            && let Some(buffer) = channel.take_buffer()
        {
            let request = Request::data(Op::Read, next % 64, buffer, 512).with_cookie(next);
            match channel.submit(request) {
                Ok(()) => next += 1,
                Err(refused) => {
                    assert_eq!(refused.why, Why::Full);
                    channel.put_buffer(refused.request.buffer.expect("given back"));
                    break;
                }
            }
        }
        let completion = channel.next(soon(&machine)).await.expect("in time");
        assert_eq!(completion.request.sector, completion.request.cookie % 64);
        ended.push(completion.request.cookie);
        channel.recycle(completion);
    }
    assert_eq!(channel.outstanding(), 0);
    ended
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_request_ends_once_in_whatever_order(
        depth in 1usize..40,
        count in 1u64..200,
        pace in 1usize..9,
        queue in 1u32..64,
        poll: bool,
        order in prop::sample::select(&[Order::First, Order::Last, Order::Random][..]),
    ) {
        let machine = machine();
        machine.disk(0, |disk| {
            disk.moods.order = order;
            disk.moods.pace = pace;
            disk.info.queue_depth = queue;
        });
        machine.set_mode(DISK, if poll { Mode::Poll } else { Mode::Event });
        let ended = Rc::new(RefCell::new(None));
        let (out, handle) = (ended.clone(), machine.clone());
        run(&machine, async move {
            out.replace(Some(read_all(handle, depth, count).await));
        });
        let ended = ended.take().expect("the job ended");
        let set: BTreeSet<u64> = ended.iter().copied().collect();
        prop_assert_eq!(ended.len() as u64, count);
        prop_assert_eq!(set, (0..count).collect());
        prop_assert_eq!(machine.pages(), 0);
        prop_assert!(machine.channels().is_empty());
    }
}

#[test]
fn a_wait_without_completions_ends_at_its_deadline() {
    let machine = machine();
    machine.disk(0, |disk| disk.moods.stuck = true);
    for mode in [Mode::Event, Mode::Poll] {
        machine.set_mode(DISK, mode);
        let handle = machine.clone();
        let done = Rc::new(Cell::new(false));
        let mark = done.clone();
        run(&machine, async move {
            let mut channel = Channel::open(&handle, DISK, 1, 512).expect("room");
            let buffer = channel.take_buffer().expect("one");
            channel
                .submit(Request::data(Op::Read, 0, buffer, 512))
                .expect("room");
            let at = handle.now() + Duration::from_micros(50);
            assert!(channel.next(at).await.is_err());
            assert!(handle.now() >= at);
            assert_eq!(channel.outstanding(), 1);
            mark.set(true);
        });
        assert!(done.get(), "{mode}");
        machine.disk(0, RamDisk::detach);
        machine.settle();
        machine.disk(0, |disk| disk.state = Lifecycle::Live);
    }
}

/// The host answered, but its event is late: the deadline looks once itself.
#[test]
fn what_is_there_at_the_deadline_is_not_late() {
    let machine = machine();
    let handle = machine.clone();
    run(&machine, async move {
        let mut channel = Channel::open(&handle, DISK, 1, 512).expect("room");
        let buffer = channel.take_buffer().expect("one");
        let request = Request::data(Op::Read, 0, buffer, 512);
        channel.submit(request).expect("room");
        channel.kick();
        handle.disk(0, RamDisk::serve);
        let past = handle.now();
        assert!(channel.next(past).await.is_ok());
    });
    assert!(machine.channels().is_empty());
}

#[test]
fn a_refusal_gives_everything_back_and_keeps_the_cookie() {
    let machine = machine();
    let mut channel = Channel::open(&machine, DISK, 1, 512).expect("room");
    let buffer = channel.take_buffer().expect("one");
    let beyond = MIB as u64 / SECTOR;
    let request = Request::data(Op::Read, beyond, buffer, 512).with_cookie(77);
    let refused = channel.submit(request).expect_err("beyond the end");
    assert!(matches!(refused.why, Why::OutOfRange { .. }));
    assert_eq!(refused.request.cookie, 77);
    assert_eq!(channel.outstanding(), 0);
    machine.remove(0);
    let refused = channel.submit(refused.request).expect_err("no disk");
    assert_eq!(refused.why, Why::NotLive(Lifecycle::Closed));
    assert!(refused.request.buffer.is_some());
}

#[test]
fn a_channel_dropped_with_requests_in_flight_loses_nothing() {
    let machine = machine();
    let before = lost_tokens();
    let mut channel = Channel::open(&machine, DISK, 4, 512).expect("room");
    for sector in 0..3 {
        let buffer = channel.take_buffer().expect("four");
        let request = Request::data(Op::Read, sector, buffer, 512);
        channel.submit(request).expect("room");
    }
    drop(channel);
    // The idle buffer is back, the others are with the host.
    assert_eq!(machine.pages(), 3);
    assert_eq!(machine.channels().len(), 1);
    machine.settle();
    reclaim(&machine);
    assert_eq!(machine.pages(), 0);
    assert!(machine.channels().is_empty());
    assert_eq!(lost_tokens(), before);
}

#[test]
fn buffers_of_a_disk_that_vanished_are_not_reused() {
    let machine = machine();
    let channel = Channel::open(&machine, DISK, 2, 512).expect("room");
    machine.remove(0);
    drop(channel);
    assert_eq!(machine.pages(), 2, "nobody knows whether the host let go");
}

#[test]
fn buffers_that_the_host_keeps_are_used_again() {
    let machine = machine();
    machine.disk(0, |disk| disk.moods.keeps_pages = true);
    for _ in 0..3 {
        drop(Channel::open(&machine, DISK, 2, 8192).expect("room"));
        assert_eq!(machine.pages(), 4, "the same pages each time");
    }
}

#[test]
fn a_completion_of_nobody_is_handed_back() {
    let table = ChannelTable::new();
    let completion = Completion {
        token: firn_block::TokenId(1),
        request: Request::flush().with_cookie(1 << 32),
        result: Ok(()),
    };
    let Stray(completion) = table.deliver(completion).expect_err("nobody waits");
    assert_eq!(completion.request.cookie, 1 << 32);
}

#[test]
fn a_second_completion_of_a_request_is_a_stray() {
    let machine = machine();
    let mut channel = Channel::open(&machine, DISK, 2, 0).expect("room");
    channel.submit(Request::flush()).expect("room");
    channel.kick();
    machine.disk(0, RamDisk::serve);
    let mut token = None;
    machine.disk(0, |disk| {
        disk.poll(1, &mut |completion| {
            token = Some((completion.token, completion.request.cookie));
            machine.channels().deliver(completion).expect("the first");
        })
    });
    let (token, cookie) = token.expect("it was served");
    let again = |token| Completion {
        token,
        request: Request::flush().with_cookie(cookie),
        result: Ok(()),
    };
    assert!(machine.channels().deliver(again(token)).is_err());
    // A slot that is in use again does not take the old request's completion.
    assert!(channel.try_next().is_some());
    channel.submit(Request::flush()).expect("room");
    assert!(machine.channels().deliver(again(token)).is_err());
    assert_eq!(channel.outstanding(), 1);
    drop(channel);
    machine.settle();
}

#[test]
fn no_memory_is_an_error_and_leaves_nothing() {
    let machine = machine();
    machine.limit_pages(3);
    let error = Channel::open(&machine, DISK, 4, 512).err();
    assert_eq!(error, Some(JobError::NoMemory { bytes: 512 }));
    assert_eq!(machine.pages(), 0);
    assert!(machine.channels().is_empty());
}

/// A thousand requests more cost not one allocation more.
#[test]
fn the_steady_path_does_not_allocate() {
    let allocations = |mode, count| {
        let machine = machine();
        machine.set_mode(DISK, mode);
        let handle = machine.clone();
        let info = allocation_counter::measure(|| {
            run(&machine, async move {
                read_all(handle, 8, count).await;
            });
        });
        info.count_total
    };
    // The pages come from a pool, which tests beside this one fill and empty.
    let least = |mode, count| (0..9).map(|_| allocations(mode, count)).min();
    for mode in [Mode::Event, Mode::Poll] {
        assert_eq!(least(mode, 100), least(mode, 1100), "{mode}");
    }
}
