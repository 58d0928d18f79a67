//! The ring under any chunking: what goes in comes out.

use crate::puppet::{Puppet, REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, Request};
use crate::world::World;
use proptest::prelude::*;

/// A daemon that echoes what is written, moving `paces` bytes at a time from
/// indices `start` on.
fn echo(start: u32, paces: Vec<usize>) -> World<Puppet> {
    World::new(|machine| {
        let mut puppet = Puppet::new(machine, |request: &Request| {
            let path = request.payload.split(|byte| *byte == 0).next();
            request.reply(path.expect("split gives at least one"))
        });
        for at in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD] {
            puppet.set(at, start);
        }
        let mut paces = paces.into_iter().cycle();
        puppet.pace = Box::new(move || paces.next().expect("an endless list"));
        puppet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_gets_its_reply(
        start in prop_oneof![Just(0), (u32::MAX - 3000)..=u32::MAX, any::<u32>()],
        paces in prop::collection::vec(1_usize..700, 1..20),
        lengths in prop::collection::vec(1_usize..2048, 1..20),
    ) {
        let world = echo(start, paces);
        let readers: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(i, len)| {
                let path: String = format!("{i}-").chars().cycle().take(*len).collect();
                let store = world.store.clone();
                world.spawn(async move { store.read(&path).await == Ok(path) })
            })
            .collect();
        world.settle();
        prop_assert!(readers.iter().all(|reader| *reader.borrow() == Some(true)));
        prop_assert_eq!(world.store.is_failed(), None);
    }

    /// Whatever the host puts into the page, at any time: an error perhaps, but
    /// no panic and no wait without end.
    #[test]
    fn rubbish_in_the_page_does_no_harm(
        words in prop::collection::vec((0_usize..1040, any::<u32>()), 1..60),
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let world = echo(0, vec![usize::MAX]);
        let store = world.store.clone();
        world.spawn(async move {
            let _watch = store.watch("device").await;
            let _names = store.directory("device").await;
            let _transaction = store.transaction().await;
        });
        world.peer.borrow_mut().say(&bytes);
        for (at, value) in words {
            world.peer.borrow().set(at * 4 % 4096, value);
            world.store.poll();
            world.xen.poll();
            world.executor.poll_ready();
        }
    }
}
