//! Data through the block frontend: whatever the features, the order of answers
//! and the mix of requests, each request ends once and every byte is right.

use firn_block::{Armed, Completion, IoError, Op, Queue, Request, Token, Why, lost_tokens};
use firn_peers::{
    BlkOffence, Config, DiscardConfig, Order, Peer, Publish, SECTORS, World, live, pattern,
};
use firn_xen::blkfront::VbdConfig;
use proptest::prelude::*;

/// Requests that are in flight at once each have a part of the disk.
const PARTS: u64 = 8;
const PART: u64 = SECTORS / PARTS;
const PAGES: usize = 64;

#[derive(Clone, Debug)]
struct Io {
    write: bool,
    part: u64,
    /// In sectors, cut to the disk's blocks and the buffer.
    sector: u64,
    sectors: u64,
    offset: usize,
    seed: u64,
}

fn io() -> impl Strategy<Value = Io> {
    let short = 1..40u64;
    let long = 40..400u64;
    let sectors = prop_oneof![4 => short, 1 => long];
    (
        any::<bool>(),
        0..PARTS,
        0..PART,
        sectors,
        0..64usize,
        any::<u64>(),
    )
        .prop_map(|(write, part, sector, sectors, offset, seed)| Io {
            write,
            part,
            sector,
            sectors,
            offset,
            seed,
        })
}

fn config() -> impl Strategy<Value = Config> {
    let ring = prop_oneof![Just(None), (0..5u32).prop_map(Some)];
    let indirect = prop::sample::select(vec![0, 1, 11, 12, 32, 256, 600]);
    let order = prop::sample::select(vec![Order::Fifo, Order::Reversed, Order::Random]);
    let block = prop::sample::select(vec![512, 1024, 2048, 4096]);
    let kept = prop::sample::select(vec![1, 7, 1056]);
    (
        any::<[bool; 4]>(),
        ring,
        indirect,
        order,
        block,
        0..3u64,
        kept,
        any::<u64>(),
    )
        .prop_map(
            |(
                [persistent, flush, barrier, early],
                ring_order,
                indirect,
                order,
                block,
                delay,
                kept,
                seed,
            )| {
                Config {
                    persistent,
                    flush,
                    barrier,
                    ring_order,
                    indirect,
                    order,
                    sector_size: block,
                    physical_sector_size: None,
                    delay,
                    max_persistent: kept,
                    seed,
                    publish: if early { Publish::Early } else { Publish::Late },
                    ..Config::default()
                }
            },
        )
}

fn guest() -> impl Strategy<Value = VbdConfig> {
    let segments = prop::sample::select(vec![11, 20, 64, usize::MAX]);
    (0..5u32, segments, any::<bool>()).prop_map(|(max_ring_order, max_segments, persistent)| {
        VbdConfig {
            max_ring_order,
            max_segments,
            persistent,
            ..VbdConfig::default()
        }
    })
}

/// Fits an I/O to the blocks of the disk and to the buffer.
fn request(world: &World, io: &Io, model: &mut [u8]) -> Request {
    let block = u64::from(world.report(0).info.logical_block) / 512;
    let down = |value: u64| value / block * block;
    let sector = down(io.part * PART + io.sector);
    let left = (io.part + 1) * PART - sector;
    let offset = down(io.offset as u64);
    let room = PAGES as u64 * 8 - offset;
    let sectors = down(io.sectors).max(block).min(left).min(room);
    let buffer = world.buffer(0, PAGES);
    let bytes = sectors as usize * 512;
    if io.write {
        let data = pattern(io.seed, bytes);
        buffer.region().copy_in(offset as usize * 512, &data);
        let at = sector as usize * 512;
        model[at..at + bytes].copy_from_slice(&data);
    }
    let op = if io.write { Op::Write } else { Op::Read };
    Request {
        offset: offset as usize * 512,
        ..Request::data(op, sector, buffer, bytes)
    }
}

/// Every token gets its completion, and no completion is left.
fn settle(tokens: Vec<Token>, mut done: Vec<Completion>) -> Vec<Completion> {
    assert_eq!(tokens.len(), done.len());
    done.sort_by_key(|completion| completion.token);
    for (token, completion) in tokens.into_iter().zip(&done) {
        token.settle(completion).expect("its own completion");
    }
    done
}

fn check_reads(done: &[Completion], model: &[u8]) {
    for completion in done {
        assert_eq!(completion.result, Ok(()));
        let request = &completion.request;
        let buffer = request.buffer.as_ref().expect("the buffer comes back");
        let (at, bytes) = (request.sector as usize * 512, request.bytes() as usize);
        let mut data = vec![0; bytes];
        buffer.region().copy_out(request.offset, &mut data);
        assert_eq!(data, model[at..at + bytes], "{:?}", request.op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_and_every_request_ends_once(
        config in config(),
        guest in guest(),
        rounds in prop::collection::vec(prop::collection::vec(io(), 1..12), 1..6),
    ) {
        let mut world = World::new();
        let back = world.plug(config, SECTORS);
        world.start(guest);
        world.settle();
        prop_assert!(world.is_live(0), "{:?}", world.report(0));
        let mut model = vec![0; SECTORS as usize * 512];
        for round in rounds {
            let mut used = [false; PARTS as usize];
            let mut tokens = Vec::new();
            for io in round {
                if std::mem::replace(&mut used[io.part as usize], true) {
                    continue;
                }
                let request = request(&world, &io, &mut model);
                tokens.push(world.submit(0, request).expect("room and a good request"));
            }
            check_reads(&settle(tokens, world.drain(0)), &model);
        }
        prop_assert!(back.disk().content(0, SECTORS) == model, "the disk itself");
        world.assert_clean();
    }
}

#[test]
fn a_full_queue_says_so_and_goes_on() {
    let mut world = live(Config {
        ring_order: None,
        ..Config::default()
    });
    let mut tokens = Vec::new();
    let refused = loop {
        let buffer = world.buffer(0, 1);
        let sector = tokens.len() as u64 * 8;
        match world.submit(0, Request::data(Op::Read, sector, buffer, 4096)) {
            Ok(token) => tokens.push(token),
            Err(refused) => break refused,
        }
        assert!(tokens.len() < 1000, "a ring of 32");
    };
    assert_eq!((refused.why, tokens.len()), (Why::Full, 32));
    assert_eq!(
        world.backends[0].outstanding(),
        0,
        "nothing was stepped yet"
    );
    settle(tokens, world.drain(0));
    let token = world.submit(0, refused.request).expect("there is room now");
    settle(vec![token], world.drain(0));
    world.assert_clean();
}

#[test]
fn an_answer_between_the_last_poll_and_the_wish_for_an_event_is_not_slept_through() {
    let mut world = live(Config::default());
    let buffer = world.buffer(0, 1);
    let request = Request::data(Op::Read, 0, buffer, 512);
    let vbd = world.vbd(0);
    // `rsp_event` lies behind, as it does after polling: no event is asked for.
    world.backends[0].poke(3, 0);
    world.settle();
    let token = world.submit(0, request).expect("accepted");
    let mut none = |_| panic!("nothing was answered yet");
    assert_eq!(vbd.front.borrow_mut().poll(32, &mut none), 0);
    let sent = world.backends[0].counters().events_sent;
    world.backends[0].step();
    assert_eq!(world.backends[0].counters().events_sent, sent, "no event");
    assert_eq!(vbd.front.borrow_mut().arm(), Armed::Poll);
    settle(vec![token], world.drain(0));
    world.assert_clean();
}

#[test]
fn large_requests_share_a_small_ring() {
    let mut world = live(Config {
        order: Order::Random,
        ..Config::plain()
    });
    let mut tokens = Vec::new();
    for i in 0..32 {
        let buffer = world.buffer(0, PAGES);
        let request = Request::data(Op::Write, i * 512, buffer, PAGES * 4096);
        tokens.push(world.submit(0, request).expect("32 requests fit"));
    }
    let done = settle(tokens, world.drain(0));
    assert!(done.iter().all(|completion| completion.result.is_ok()));
    assert_eq!(
        world.backends[0].counters().requests,
        32 * 6,
        "64 pages by 11"
    );
    world.assert_clean();
}

#[test]
fn what_is_wrong_is_refused_before_the_ring() {
    let world = live(Config::default());
    let refusal = |sector, bytes, offset, pages| {
        let buffer = world.buffer(0, pages);
        let request = Request::data(Op::Read, sector, buffer, bytes);
        world.refusal(0, Request { offset, ..request })
    };
    let capacity = SECTORS;
    let beyond = Why::OutOfRange { capacity };
    assert_eq!(refusal(SECTORS, 512, 0, 1), beyond);
    assert_eq!(refusal(SECTORS - 1, 1024, 0, 1), beyond);
    assert_eq!(refusal(u64::MAX, 512, 0, 1), beyond);
    assert_eq!(refusal(0, 0, 0, 1), beyond);
    assert_eq!(refusal(0, 4096, 100, 2), Why::Misaligned { unit: 512 });
    assert_eq!(refusal(0, 4097, 0, 1), Why::NoRoomInBuffer);
    assert_eq!(refusal(0, 4096, 512, 1), Why::NoRoomInBuffer);
    assert_eq!(refusal(0, 512, 1 << 40, 1), Why::NoRoomInBuffer);
    let without = Request {
        sectors: 1,
        op: Op::Write,
        ..Request::flush()
    };
    assert_eq!(world.refusal(0, without), Why::NoRoomInBuffer);
    let huge = Request::discard(8, u64::MAX, false);
    assert_ne!(world.refusal(0, huge), Why::Full);
    assert_eq!(world.backends[0].counters().requests, 0);
}

#[test]
fn a_buffer_of_another_disk_is_refused() {
    let mut world = World::new();
    world.plug(Config::default(), SECTORS);
    world.plug(Config::default().disk(1), SECTORS);
    world.start(VbdConfig::default());
    world.settle();
    let buffer = world.buffer(0, 1);
    let refused = world.refusal(1, Request::data(Op::Read, 0, buffer, 512));
    assert_eq!(refused, Why::ForeignBuffer);
}

#[test]
fn an_error_of_the_disk_ends_the_request_and_nothing_else() {
    for persistent in [false, true] {
        let mut world = live(Config {
            persistent,
            ..Config::default()
        });
        world.backends[0].disk().break_sector(100);
        let failed = Err(IoError::Failed { status: -1 });
        assert_eq!(world.read(0, 96, 4096), failed);
        assert_eq!(
            world.write(0, 100, &pattern(1, 512)).map(|()| vec![]),
            failed
        );
        assert_eq!(world.read(0, 104, 512), Ok(vec![0; 512]));
        // One bad piece of a split request fails the whole of it, once.
        world.backends[0].reconfigure(|config| config.order = Order::Reversed);
        assert_eq!(world.read(0, 0, 2 << 20), failed);
        let stats = world.report(0).stats;
        assert_eq!((stats.completed, stats.errors), (4, 3));
        world.assert_clean();
    }
}

#[test]
fn an_unsupported_flush_is_an_error_and_is_not_tried_again() {
    for barrier in [false, true] {
        let mut world = live(Config {
            flush: !barrier,
            barrier,
            ..Config::default()
        });
        assert_eq!(world.flush(0), Ok(Ok(())));
        assert_eq!(world.write(0, 0, &pattern(1, 4096)), Ok(()));
        world.backends[0].offend(BlkOffence::FlushUnsupported);
        assert_eq!(world.flush(0), Ok(Err(IoError::NotSupported)));
        assert_eq!(world.flush(0), Err(Why::Unsupported(Op::Flush)));
        assert_eq!(world.read(0, 0, 4096), Ok(pattern(1, 4096)));
    }
}

#[test]
fn an_unsupported_discard_is_an_error_and_is_not_tried_again() {
    let discard = DiscardConfig {
        granularity: 512,
        alignment: 0,
        secure: false,
    };
    let mut world = live(Config {
        discard: Some(discard),
        ..Config::default()
    });
    world.backends[0].offend(BlkOffence::DiscardUnsupported);
    let request = || Request::discard(0, 8, false);
    let done = world.io(0, request()).expect("offered");
    assert_eq!(done.result, Err(IoError::NotSupported));
    let plain = Op::Discard { secure: false };
    assert_eq!(world.refusal(0, request()), Why::Unsupported(plain));
    assert_eq!(world.flush(0), Ok(Ok(())));
}

#[test]
fn no_token_is_lost_by_the_driver() {
    let before = lost_tokens();
    let mut world = live(Config::default());
    assert_eq!(world.write(0, 0, &pattern(1, 1 << 20)), Ok(()));
    assert_eq!(lost_tokens(), before);
}
