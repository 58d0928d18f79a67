//! A host whose bytes go wrong at random: nothing panics, no rule of the machine is
//! broken, and every request ends once.

use firn_block::{Op, Queue, Request};
use firn_hyperv::storvsc::ControllerConfig;
use firn_hyperv::vmbus::VmbusConfig;
use firn_peers::hyperv::HvViolation as V;
use firn_peers::hyperv::{HostConfig, HvWorld, Lun, StorvspConfig};
use firn_peers::{Disk, SECTORS};
use proptest::prelude::*;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(2000);

/// What goes on while it is noisy.
#[derive(Clone, Copy, Debug)]
enum Act {
    Read(u64),
    Write(u64),
    Flush,
    Discard,
    Turn,
    Attention,
    Replug,
    Rescind,
    /// One of the further channels.
    Withdraw(u16),
    Freeze,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..64u64).prop_map(Act::Read),
        4 => (0..64u64).prop_map(Act::Write),
        1 => Just(Act::Flush),
        1 => Just(Act::Discard),
        4 => Just(Act::Turn),
        1 => Just(Act::Attention),
        1 => Just(Act::Replug),
        1 => Just(Act::Rescind),
        1 => (1..4u16).prop_map(Act::Withdraw),
        1 => Just(Act::Freeze),
    ]
}

/// Does one thing; how many requests were accepted.
fn act_out(world: &mut HvWorld, act: Act) -> usize {
    let data = |world: &HvWorld, op, at| {
        let buffer = world.buffer(0, 20);
        Request::data(op, at * 128, buffer, 20 * 4096)
    };
    let request = match act {
        Act::Read(at) => data(world, Op::Read, at),
        Act::Write(at) => data(world, Op::Write, at),
        Act::Flush => Request::flush(),
        Act::Discard => Request::discard(0, 64, false),
        Act::Turn => {
            world.turn();
            return 0;
        }
        Act::Attention => {
            world.storvsps[0].attention(0, 0x2a, 9);
            return 0;
        }
        Act::Replug => {
            world.storvsps[0].unplug(3);
            world.storvsps[0].plug(3, Lun::new(Disk::new(64)).named(77));
            return 0;
        }
        Act::Rescind => {
            world.host.rescind(0);
            world.turn();
            world.host.offer_again(0);
            return 0;
        }
        Act::Withdraw(number) => {
            world.host.rescind_subchannel(0, number);
            return 0;
        }
        Act::Freeze => {
            let (unit, controller) = (world.unit(0), world.guest().scsi.controllers()[0].clone());
            if unit.shut().is_ok() {
                world.guest().executor.spawn(async move {
                    let _ = controller.disconnect().await;
                    let _ = controller.connect().await;
                    let _ = unit.open();
                });
            }
            return 0;
        }
    };
    match world.submit(0, request) {
        Ok(token) => {
            token.abandon();
            1
        }
        Err(_) => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_whatever_the_host_sends(
        seed in 1..u64::MAX,
        early: bool,
        subchannels in 0..4u16,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut world = HvWorld::new(HostConfig::default());
        let storvsp = world.plug(StorvspConfig { subchannels, ..StorvspConfig::default() });
        storvsp.plug(0, Lun::new(Disk::new(SECTORS)));
        if early {
            world.machine.make_noise(seed);
        }
        world.start(VmbusConfig::default(), ControllerConfig::default());
        world.run_for(LONG);
        world.machine.make_noise(seed);
        if !world.is_live(0) {
            return Ok(());
        }
        let unit = world.unit(0);
        let mut accepted: usize = acts.into_iter().map(|act| act_out(&mut world, act)).sum();
        world.run_for(LONG);
        world.run_for(LONG);
        for _ in 0..100 {
            unit.front.borrow_mut().poll(usize::MAX, &mut |_| accepted -= 1);
            world.run_for(Duration::from_secs(100));
        }
        prop_assert_eq!(accepted, 0, "{} in state {}", world.failure(), unit.state());
        // A host that says that it has let go of memory is believed.
        let mut wrong = world.machine.violations();
        wrong.retain(|violation| !matches!(
            violation,
            V::FreedWhileShared(_) | V::WrittenAfterFree(_) | V::BadEvent(_)
        ));
        prop_assert_eq!(wrong, []);
    }
}
