//! Every version of VMBus with every version of storvsc.

use firn_hyperv::wire::{vmbus, vstor};
use firn_peers::hyperv::{HostConfig, HvWorld, StorvspConfig};
use firn_peers::{SECTORS, pattern};

#[test]
fn every_pair_of_versions_moves_every_byte() {
    let mut pairs = 0;
    for bus in vmbus::Version::ALL {
        for storage in vstor::Version::ALL {
            let config = StorvspConfig::only(storage);
            let mut world = HvWorld::with_disk(HostConfig::only(bus), config, SECTORS);
            assert!(world.is_live(0), "{bus} × {storage}: {}", world.failure());
            assert_eq!(world.guest().bus.version(), Some(bus));
            assert_eq!(world.controller(0).version(), Some(storage));
            for (at, bytes) in [(0, 512), (8, 4096), (123, 700 * 512)] {
                let data = pattern(at, bytes);
                assert_eq!(world.write(0, at, &data), Ok(()), "{bus} × {storage}");
                assert_eq!(world.read(0, at, bytes), Ok(data), "{bus} × {storage}");
            }
            assert_eq!(world.flush(0), Ok(Ok(())));
            world.assert_clean();
            pairs += 1;
        }
    }
    assert_eq!(pairs, 45);
}

#[test]
fn a_refusal_falls_back_and_the_newest_common_version_is_used() {
    for newest in vstor::Version::ALL {
        let config = StorvspConfig {
            newest,
            ..StorvspConfig::default()
        };
        let world = HvWorld::with_disk(HostConfig::default(), config, SECTORS);
        assert_eq!(world.storvsps[0].version(), Some(newest));
        world.assert_clean();
    }
}
