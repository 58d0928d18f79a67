//! The guest's grant table against a hypervisor that keeps Xen's rules.

use core::time::Duration;
use firn_peers::CallKind;
use firn_peers::{FakeMachine, HOST};
use firn_task::Time;
use firn_xen::grant::{Access, GrantError, Reuse, StillMapped};
use firn_xen::wire::errno::Errno;
use firn_xen::wire::grant_table::{ENTRIES_PER_FRAME, GrantRef, RESERVED_ENTRIES};
use firn_xen::{Hal, Xen};
use std::rc::Rc;

type Guest = Rc<Xen<FakeMachine>>;

fn guest(machine: &FakeMachine) -> Guest {
    Xen::new(machine.clone()).expect("a working machine")
}

fn grant(xen: &Guest, access: Access) -> (firn_block::shm::Region, GrantRef) {
    let page = xen.hal.alloc_shared(1).expect("a page");
    let grant = xen
        .grant_page(HOST, &page, 0, access, "test")
        .expect("a reference");
    (page, grant)
}

#[test]
fn a_granted_page_is_shared_until_the_grant_ends() {
    let machine = FakeMachine::new();
    let xen = guest(&machine);
    let (page, grant) = grant(&xen, Access::ReadWrite);
    assert!(
        grant.0 >= RESERVED_ENTRIES,
        "the first ones are the toolstack's"
    );
    page.write(8, &0x1234_u32);
    {
        let mapping = machine.map_grant(HOST, grant, true).expect("it may");
        assert_eq!(mapping.page().read::<u32>(8), 0x1234);
        mapping.page().write(8, &0x5678_u32);
        assert_eq!(xen.grants.end(grant), Err(StillMapped(grant)));
        assert!(xen.grants.live()[0].mapped);
    }
    assert_eq!(page.read::<u32>(8), 0x5678);
    assert_eq!(xen.grants.end(grant), Ok(()));
    assert!(machine.map_grant(HOST, grant, true).is_err());
    assert_eq!(xen.grants.live(), []);
}

#[test]
fn a_read_only_grant_cannot_be_mapped_for_writing() {
    let machine = FakeMachine::new();
    let xen = guest(&machine);
    let (_page, grant) = grant(&xen, Access::Read);
    assert!(machine.map_grant(HOST, grant, true).is_err());
    assert!(machine.map_grant(HOST, grant, false).is_ok());
}

#[test]
fn the_table_grows_until_xen_says_no_and_never_gives_a_reference_twice() {
    let machine = FakeMachine::new();
    machine.limit_grant_frames(4);
    let xen = guest(&machine);
    let page = xen.hal.alloc_shared(1).expect("a page");
    let mut seen = std::collections::BTreeSet::new();
    let error = loop {
        match xen.grant_page(HOST, &page, 0, Access::Read, "test") {
            Ok(grant) => assert!(seen.insert(grant), "{grant} twice"),
            Err(error) => break error,
        }
    };
    let entries = 4 * ENTRIES_PER_FRAME;
    assert_eq!(error, GrantError::Exhausted { entries });
    assert_eq!(seen.len() as u32, entries - RESERVED_ENTRIES);
    let one = *seen.first().expect("many");
    xen.grants.end(one).expect("not mapped");
    let again = xen.grant_page(HOST, &page, 0, Access::Read, "test");
    assert_eq!(again, Ok(one), "what was ended can be had again");
}

#[test]
fn a_table_that_cannot_grow_says_why_and_keeps_working() {
    let machine = FakeMachine::new();
    let xen = guest(&machine);
    let page = xen.hal.alloc_shared(1).expect("a page");
    while xen.grants.free() > 0 {
        xen.grant_page(HOST, &page, 0, Access::Read, "test")
            .expect("a free one");
    }
    machine.fail_next(CallKind::AddToPhysmap, Errno::ENOMEM);
    let refused = xen.grant_page(HOST, &page, 0, Access::Read, "test");
    assert_eq!(refused, Err(GrantError::Grow(Errno::ENOMEM)));
    xen.grant_page(HOST, &page, 0, Access::Read, "test")
        .expect("the next try grows");
}

#[test]
fn a_page_that_stays_mapped_is_given_up_and_its_reference_comes_back() {
    let machine = FakeMachine::new();
    let xen = guest(&machine);
    let (page, grant) = grant(&xen, Access::ReadWrite);
    let pages = machine.pages_in_use();
    let mapping = machine.map_grant(HOST, grant, true).expect("it may");
    xen.reclaim(page, &[grant], Reuse::Now);
    assert_eq!(machine.pages_in_use(), pages, "the page is not reused");
    assert_eq!(xen.grants.deferred(), 1);
    assert!(xen.grants.live()[0].deferred);
    let retry = xen.next_deadline().expect("somebody has to look again");

    machine.advance(retry - xen.now());
    xen.poll();
    assert_eq!(xen.grants.deferred(), 1, "still mapped");

    drop(mapping);
    machine.advance(Duration::from_secs(1));
    xen.poll();
    assert_eq!(xen.grants.deferred(), 0);
    assert_eq!(xen.grants.live(), []);
    assert_eq!(xen.next_deadline(), None);
    assert_eq!(machine.pages_in_use(), pages, "the page is gone for good");
}

#[test]
fn a_region_is_freed_when_nobody_maps_it() {
    let machine = FakeMachine::new();
    let xen = guest(&machine);
    let before = machine.pages_in_use();
    let (page, grant) = grant(&xen, Access::ReadWrite);
    assert_eq!(machine.pages_in_use(), before + 1);
    xen.reclaim(page, &[grant], Reuse::Now);
    assert_eq!(machine.pages_in_use(), before);
    assert_eq!(machine.violations(), []);
}
