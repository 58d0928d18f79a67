//! The connection that an image goes over, and buffers that come back with one.

use crate::common::*;
use firn_block::gate::Lifecycle;
use firn_block::{AdoptError, Adopted, Completion, DataPath, Op, PAGE, Queue, Request, Why};
use firn_peers::{Config, FakeMachine, SECTORS, World, live, pattern};
use firn_xen::Hal;
use firn_xen::blkfront::{DiskStep, Terms, Vbd, VbdConfig};
use std::rc::Rc;

#[test]
fn an_image_is_written_over_plain_grants_from_parts_of_one_region() {
    let mut world = live(Config {
        persistent: false,
        ..Config::default()
    });
    let vbd = connect_for_an_image(&mut world);
    assert!(!vbd.front.borrow_mut().private().keeps_mapped());
    assert_eq!(vbd.front.borrow().info().max_transfer, 256 * 4096);
    let grants = world.machine.live_grants().len();
    let memory = world.machine.alloc_shared(1024).expect("memory");
    memory.copy_in(0, &pattern(5, 1024 * 4096));
    let whole = vbd.front.borrow_mut().private().register(memory);
    let whole = whole.expect("registered");
    assert_eq!(world.machine.live_grants().len(), grants, "no grant for it");
    for i in 0..8 {
        let part = whole.part(i * 128, 128);
        let request = Request::data(Op::Write, i as u64 * 1024, part, 128 * 4096);
        let mut front = vbd.front.borrow_mut();
        front.private().submit(request).expect("room").abandon();
        front.private().kick();
    }
    assert_eq!(vbd.front.borrow_mut().private().in_flight(), 8);
    assert_eq!(vbd.front.borrow().in_flight(), 0, "no job has anything");
    world.settle();
    let mut ended = 0;
    let mut poll = |completion: Completion| {
        assert_eq!(completion.result, Ok(()));
        ended += 1;
    };
    vbd.front.borrow_mut().private().poll(usize::MAX, &mut poll);
    assert_eq!(ended, 8);
    let content = world.backends[0].disk().content(0, 8192);
    assert_eq!(content, pattern(5, 1024 * 4096));
    assert_eq!(world.backends[0].persistent_grants(), None);
    let freed = vbd.front.borrow_mut().private().unregister(whole);
    assert!(matches!(freed, firn_block::Unregistered::Free(_)));
    let refused = vbd.open().map_err(|error| error.step);
    assert_eq!(refused, Err(DiskStep::Open), "not on these terms");
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    assert_works(&mut world, 0);
}

#[test]
fn what_an_image_goes_through_is_granted_once_where_the_backend_keeps_it() {
    let mut world = live(Config::default());
    let vbd = connect_for_an_image(&mut world);
    assert!(vbd.front.borrow_mut().private().keeps_mapped());
    let memory = world.machine.alloc_shared(256).expect("memory");
    let mut lane = vbd.front.borrow_mut().private().register(memory).ok();
    let grants = world.machine.live_grants().len();
    for i in 0..4 {
        let buffer = lane.take().expect("it came back");
        buffer.region().copy_in(0, &pattern(i, 256 * 4096));
        let request = Request::data(Op::Write, i * 2048, buffer, 256 * 4096);
        let token = vbd.front.borrow_mut().private().submit(request);
        token.expect("room").abandon();
        vbd.front.borrow_mut().private().kick();
        world.settle();
        let mut take = |completion: Completion| {
            assert_eq!(completion.result, Ok(()));
            lane = completion.request.buffer;
        };
        vbd.front.borrow_mut().private().poll(1, &mut take);
        let content = world.backends[0].disk().content(i * 2048, 2048);
        assert_eq!(content, pattern(i, 256 * 4096));
    }
    assert_eq!(world.machine.live_grants().len(), grants, "none by request");
    let lane = lane.expect("it came back");
    let kept = vbd.front.borrow_mut().private().unregister(lane);
    assert!(matches!(kept, firn_block::Unregistered::StillMapped));
    let refused = vbd.open().map_err(|error| error.step);
    assert_eq!(refused, Err(DiskStep::Open), "not on these terms");
    assert_eq!(thaw_now(&mut world, 0), Ok(()));
    assert_works(&mut world, 0);
}

/// Freezes the disk, and connects it for an image.
fn connect_for_an_image(world: &mut World) -> Rc<Vbd<FakeMachine>> {
    assert_eq!(freeze_now(world, 0).0, Ok(()));
    let (disk, until) = (world.vbd(0), in_seconds(world, 5));
    let (connected, _) = world.finish(async move { disk.connect(Terms::Image, until).await });
    assert_eq!(connected, Ok(()));
    let vbd = world.vbd(0);
    assert_eq!(vbd.state(), Lifecycle::Freezing);
    vbd
}

#[test]
fn an_image_of_a_small_guest_takes_few_grants() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    world.start(VbdConfig {
        frugal: true,
        ..VbdConfig::default()
    });
    world.settle();
    assert_eq!(freeze_now(&mut world, 0).0, Ok(()));
    let (disk, until) = (world.vbd(0), in_seconds(&world, 5));
    let (connected, _) = world.finish(async move { disk.connect(Terms::Image, until).await });
    assert_eq!(connected, Ok(()));
    let info = world.report(0).info;
    let pages = info.max_transfer as usize / PAGE;
    let most = pages * info.queue_depth as usize + world.machine.live_grants().len();
    assert!(most <= 16 * 512 - 8, "{most} grants: more than 16 frames");
    assert!(
        pages * info.queue_depth as usize * PAGE > 16 << 20,
        "deep enough"
    );
}

#[test]
fn a_part_that_leaves_its_buffer_is_refused() {
    let world = live(Config::default());
    let buffer = world.buffer(0, 4);
    let beside = world.machine.alloc_shared(4).expect("memory");
    let forged = firn_block::Buffer::new(beside, buffer.queue(), buffer.index());
    let why = world.refusal(0, Request::data(Op::Write, 0, forged, 4096));
    assert_eq!(why, Why::ForeignBuffer);
}

#[test]
fn an_earlier_boots_buffers_are_good_under_their_numbers_and_its_tokens_are_not_used_again() {
    for config in [Config::default(), Config::plain()] {
        let world = live(Config::default());
        let buffers: Vec<_> = (0..3).map(|_| world.buffer(0, 4)).collect();
        let (queue, next) = {
            let vbd = world.vbd(0);
            let front = vbd.front.borrow();
            (front.queue() + 16, front.next_token() + 1000)
        };
        // What an image has of them, and of one that nobody had.
        let saved: Vec<_> = buffers
            .iter()
            .map(|buffer| (buffer.index() + 5, buffer.region().alias()))
            .collect();
        drop(world);

        let mut world = live(config);
        let memory: Vec<_> = saved
            .iter()
            .map(|_| world.machine.alloc_shared(4).expect("memory"))
            .collect();
        let adopted = |indices: &[u32]| {
            let adopt = |(index, region): (&u32, &firn_block::shm::Region)| Adopted {
                index: *index,
                region: region.alias(),
                parked: *index == 7,
            };
            indices.iter().zip(&memory).map(adopt).collect::<Vec<_>>()
        };
        let vbd = world.vbd(0);
        let adopt = |indices: &[u32]| {
            let mut front = vbd.front.borrow_mut();
            front.adopt(queue, next, adopted(indices))
        };
        assert_eq!(adopt(&[5, 5]), Err(AdoptError::Index(5)));
        assert_eq!(adopt(&[5, u32::MAX]), Err(AdoptError::Index(u32::MAX)));
        assert_eq!(adopt(&[5, 6, 7]), Ok(()));
        for (index, region) in [5, 6].into_iter().zip(&memory) {
            region.copy_in(0, &pattern(index.into(), 4 * 4096));
            let buffer = firn_block::Buffer::new(region.alias(), queue, index);
            let sector = u64::from(index) * 32;
            let request = Request::data(Op::Write, sector, buffer, 4 * 4096);
            let token = world.submit(0, request).expect("a registered buffer");
            assert!(token.id().0 >= next);
            let done = world.drain(0).pop().expect("it ends");
            token.settle(&done).expect("its own");
            assert_eq!(done.result, Ok(()));
            let content = world.backends[0].disk().content(sector, 32);
            assert_eq!(content, pattern(index.into(), 4 * 4096));
        }
        let parked = vbd.front.borrow_mut().reuse(4).expect("one was parked");
        assert_eq!((parked.queue(), parked.index()), (queue, 7));
        assert_eq!(adopt(&[1]), Err(AdoptError::Lent));
        world.assert_clean();
    }
}
