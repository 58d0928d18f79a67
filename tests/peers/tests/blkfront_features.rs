//! What a backend says about itself, and what the frontend makes of it.

use firn_block::gate::Lifecycle;
use firn_block::{Discard, Durability, Op, Request, Why};
use firn_peers::{Config, DiscardConfig, DiskOp, Publish, SECTORS, World, live, pattern};
use firn_xen::blkfront::ConnectError;

/// Connects, moves 100 KiB both ways and flushes, and looks at the disk.
fn round_trip(config: Config) -> World {
    let what = format!("{config:?}");
    let mut world = live(config);
    let data = pattern(3, 100 << 10);
    assert_eq!(world.write(0, 24, &data), Ok(()), "{what}");
    let disk = world.backends[0].disk();
    assert_eq!(disk.content(24, 200), data, "{what}");
    match world.report(0).info.durability {
        Durability::None => assert_eq!(world.flush(0), Err(Why::Unsupported(Op::Flush)), "{what}"),
        Durability::Flush | Durability::Barrier => {
            assert!(disk.unflushed() > 0);
            assert_eq!(world.flush(0), Ok(Ok(())), "{what}");
            assert_eq!(disk.unflushed(), 0, "{what}");
        }
    }
    assert_eq!(world.read(0, 24, data.len()), Ok(data), "{what}");
    world.assert_clean();
    world
}

#[test]
fn every_mix_of_features_works() {
    let mut mixes = 0;
    for persistent in [false, true] {
        for indirect in [0, 8, 11, 12, 32, 256] {
            for ring_order in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(9)] {
                for (flush, barrier) in [(true, true), (true, false), (false, true), (false, false)]
                {
                    mixes += 1;
                    let early = mixes % 2 == 0;
                    round_trip(Config {
                        persistent,
                        indirect,
                        ring_order,
                        flush,
                        barrier,
                        publish: if early { Publish::Early } else { Publish::Late },
                        ..Config::default()
                    });
                }
            }
        }
    }
}

#[test]
fn the_ring_has_as_many_pages_as_both_ends_can() {
    for (order, entries) in [(0, 32), (1, 64), (2, 128), (3, 256), (4, 512), (5, 512)] {
        let world = live(Config {
            ring_order: Some(order),
            ..Config::default()
        });
        assert_eq!(world.backends[0].ring_size(), Some(entries));
        assert_eq!(world.report(0).info.queue_depth, entries);
    }
    let old_dialect = live(Config::plain().key("max-ring-pages", "1"));
    assert_eq!(old_dialect.backends[0].ring_size(), Some(32));
}

#[test]
fn persistent_grants_are_used_when_both_ends_want_them() {
    let world = round_trip(Config::default());
    assert!(world.backends[0].persistent_grants() > Some(0));
    let stats = world.report(0).stats;
    assert_eq!(stats.grant_operations, 0, "buffers are granted once");
    let world = round_trip(Config {
        persistent: false,
        ..Config::default()
    });
    assert_eq!(world.backends[0].persistent_grants(), None);
    assert!(world.report(0).stats.grant_operations > 0);
}

#[test]
fn a_backend_that_forgets_persistent_grants_now_and_then_is_served() {
    round_trip(Config {
        max_persistent: 3,
        ..Config::default()
    });
}

#[test]
fn a_request_is_split_by_what_the_backend_takes_at_once() {
    for (indirect, pieces) in [(0, 3), (11, 3), (12, 3), (25, 1), (256, 1)] {
        let mut world = live(Config {
            indirect,
            ..Config::default()
        });
        let before = world.backends[0].counters().requests;
        let data = pattern(5, 25 * 4096);
        assert_eq!(world.write(0, 0, &data), Ok(()));
        let taken = world.backends[0].counters().requests - before;
        assert_eq!(taken, pieces, "25 pages, {indirect} indirect segments");
    }
}

#[test]
fn a_disk_of_4096_byte_sectors_takes_whole_blocks_only() {
    let mut world = round_trip(Config {
        sector_size: 4096,
        physical_sector_size: Some(16384),
        ..Config::default()
    });
    let info = world.report(0).info;
    assert_eq!((info.logical_block, info.physical_block), (4096, 16384));
    assert_eq!(info.capacity, SECTORS, "still counted by 512 bytes");
    for (sector, bytes) in [(1, 4096), (8, 512), (8, 4096 + 512)] {
        let buffer = world.buffer(0, 2);
        let request = Request::data(Op::Read, sector, buffer, bytes);
        assert_eq!(world.refusal(0, request), Why::Misaligned { unit: 4096 });
    }
    let last = SECTORS - 8;
    let data = pattern(9, 4096);
    assert_eq!(world.write(0, last, &data), Ok(()));
    assert_eq!(world.read(0, last, 4096), Ok(data));
    world.assert_clean();
}

#[test]
fn a_disk_beyond_two_tebibytes_is_addressed_right() {
    let sectors = 5 << 32;
    let mut world = World::with_disk(Config::default(), sectors);
    let data = pattern(1, 4096);
    for sector in [(1 << 32) - 4, 1 << 32, sectors - 8] {
        assert_eq!(world.write(0, sector, &data), Ok(()));
        assert_eq!(world.backends[0].disk().content(sector, 8), data);
        assert_eq!(world.read(0, sector, 4096), Ok(data.clone()));
    }
    assert_eq!(world.backends[0].disk().content(0, 8), vec![0; 4096]);
    world.assert_clean();
}

#[test]
fn a_read_only_disk_is_read_and_never_written() {
    let mut world = live(Config {
        read_only: true,
        discard: Some(DiscardConfig {
            granularity: 4096,
            alignment: 0,
            secure: false,
        }),
        ..Config::default()
    });
    let data = pattern(2, 8192);
    world.backends[0].disk().set_content(16, &data);
    assert_eq!(world.read(0, 16, 8192), Ok(data));
    let buffer = world.buffer(0, 1);
    assert_eq!(
        world.refusal(0, Request::data(Op::Write, 0, buffer, 512)),
        Why::ReadOnly
    );
    assert_eq!(
        world.refusal(0, Request::discard(0, 8, false)),
        Why::ReadOnly
    );
    let log = world.backends[0].disk().log();
    assert!(log.iter().all(|op| matches!(op, DiskOp::Read { .. })));
    world.assert_clean();
}

#[test]
fn discard_says_what_was_offered() {
    let offer = |secure| Config {
        discard: Some(DiscardConfig {
            granularity: 8192,
            alignment: 512,
            secure,
        }),
        ..Config::default()
    };
    let mut world = live(offer(true));
    let expected = Discard {
        granularity: 8192,
        alignment: 512,
        secure: true,
    };
    assert_eq!(world.report(0).info.discard, Some(expected));
    assert_eq!(world.write(0, 0, &pattern(1, 65536)), Ok(()));
    world.backends[0].disk().clear_log();
    for secure in [false, true] {
        let sector = if secure { 64 } else { 16 };
        let done = world.io(0, Request::discard(sector, 32, secure));
        assert_eq!(done.expect("offered").result, Ok(()));
        let sectors = 32;
        let expected = DiskOp::Discard {
            sector,
            sectors,
            secure,
        };
        assert_eq!(world.backends[0].disk().log().pop(), Some(expected));
    }
    assert_eq!(world.read(0, 16, 32 * 512), Ok(vec![0; 32 * 512]));
    world.assert_clean();

    let world = live(offer(false));
    let secure = Op::Discard { secure: true };
    assert_eq!(
        world.refusal(0, Request::discard(0, 8, true)),
        Why::Unsupported(secure)
    );
    let world = live(Config::default());
    let plain = Op::Discard { secure: false };
    let refused = world.refusal(0, Request::discard(0, 8, false));
    assert_eq!(refused, Why::Unsupported(plain));
}

#[test]
fn keys_that_cannot_be_are_named() {
    let defaults = || Config {
        discard: Some(DiscardConfig {
            granularity: 4096,
            alignment: 0,
            secure: false,
        }),
        ..Config::default()
    };
    let bad = [
        ("sectors", "0"),
        ("sectors", ""),
        ("sectors", "-1"),
        ("sectors", "many"),
        ("sectors", "18446744073709551615"),
        ("sectors", "18446744073709551616"),
        ("sector-size", "0"),
        ("sector-size", "256"),
        ("sector-size", "513"),
        ("sector-size", "8192"),
        ("sector-size", "1073741824"),
        ("sector-size", "big"),
        ("physical-sector-size", "0"),
        ("physical-sector-size", "700"),
        ("physical-sector-size", "4294967296"),
        ("feature-max-indirect-segments", "4294967296"),
        ("feature-max-indirect-segments", "-5"),
        ("feature-persistent", "2"),
        ("feature-persistent", "yes"),
        ("feature-flush-cache", "x"),
        ("feature-barrier", "-1"),
        ("feature-discard", "9"),
        ("discard-granularity", "4 KiB"),
        ("discard-alignment", "-1"),
        ("discard-secure", "true"),
        ("info", "1"),
        ("info", "ro"),
        ("max-ring-page-order", "four"),
        ("max-ring-page-order", "-1"),
    ];
    for (name, value) in bad {
        let mut world = World::with_disk(defaults().key(name, value), SECTORS);
        match world.report(0).error {
            Some(ConnectError::BadValue { key, value: v, .. }) => {
                assert_eq!((key, v.as_str()), (name, value));
            }
            other => panic!("{name} = {value:?}: {other:?}"),
        }
        assert_eq!(world.report(0).state, Lifecycle::Failed);
        world.run_for(std::time::Duration::from_secs(20));
        assert_eq!(world.machine.mapped_grants(), 0, "{name} = {value}");
        world.assert_clean();
    }
    let missing = World::with_disk(Config::default().without("sectors"), SECTORS);
    let error = missing.report(0).error;
    let Some(ConnectError::BadValue { key: "sectors", .. }) = error else {
        panic!("without sectors: {error:?}");
    };
}

#[test]
fn odd_values_that_can_be_lived_with_are() {
    let fine = [
        ("feature-max-indirect-segments", "4294967295"),
        ("feature-max-indirect-segments", "1"),
        ("max-ring-page-order", "4294967295"),
        ("physical-sector-size", "1048576"),
        ("sectors", " 16384\n"),
        ("info", "2"),
        ("feature-we-never-heard-of", "\u{1f9ca}"),
    ];
    for (name, value) in fine {
        let mut world = World::new();
        world.plug(Config::default().key(name, value), SECTORS);
        // Tables for 4096 segments in each of 512 entries would be large.
        world.start(firn_xen::blkfront::VbdConfig {
            max_ring_order: 1,
            ..Default::default()
        });
        world.settle();
        assert!(world.is_live(0), "{name} = {value}: {:?}", world.report(0));
        assert_eq!(world.read(0, 0, 4096), Ok(vec![0; 4096]));
    }
    for name in [
        "sector-size",
        "physical-sector-size",
        "info",
        "feature-persistent",
        "feature-flush-cache",
        "feature-barrier",
        "feature-max-indirect-segments",
        "max-ring-page-order",
    ] {
        round_trip(Config {
            persistent: name != "feature-persistent",
            indirect: 0,
            flush: false,
            barrier: false,
            ring_order: Some(0),
            ..Config::default().without(name)
        });
    }
}

#[test]
fn a_size_that_is_no_multiple_of_the_block_is_rounded_down() {
    let world = World::with_disk(
        Config {
            sector_size: 4096,
            physical_sector_size: None,
            ..Config::default()
        },
        SECTORS + 7,
    );
    assert_eq!(world.report(0).info.capacity, SECTORS);
}
