use super::*;
use firn_xen::hal::HalExt;
use firn_xen::wire::event_channel::{AllocUnbound, BindVirq, Close, VIRQ_TIMER};
use firn_xen::wire::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
use firn_xen::wire::misc::SetSingleshotTimer;
use std::sync::atomic::Ordering::SeqCst;

const PENDING: usize = 2048;
const MASK: usize = 2560;

fn port_for(machine: &FakeMachine, remote: DomId) -> Port {
    let mut arg = AllocUnbound::new(remote);
    let result = machine.hypercall(Hypercall::AllocUnbound(&mut arg));
    result.expect("a port");
    Port(arg.port)
}

fn bits(machine: &FakeMachine, at: usize) -> u64 {
    machine.shared_info.atomic_u64(at).load(SeqCst)
}

fn grant(machine: &FakeMachine, gref: u32, flags: u16, gfn: Gfn) -> usize {
    let window = machine.fixed(Fixed::GrantTable);
    let table = machine.map_frames(window.first, 1).expect("the table");
    let at = gref as usize * 8;
    let frame = u32::try_from(gfn.0).expect("a low frame");
    table.atomic_u32(at + 4).store(frame, SeqCst);
    table.atomic_u16(at + 2).store(HOST.0, SeqCst);
    table.atomic_u16(at).store(flags, SeqCst);
    at
}

fn flags(machine: &FakeMachine, at: usize) -> u16 {
    let window = machine.fixed(Fixed::GrantTable);
    let table = machine.map_frames(window.first, 1).expect("the table");
    table.atomic_u16(at).load(SeqCst)
}

#[test]
fn an_event_sets_the_three_bits_and_raises_one_upcall() {
    let machine = FakeMachine::new();
    let port = port_for(&machine, HOST);
    machine
        .bind_channel(DomId(7), port)
        .err()
        .expect("the port waits for domain 0");
    let channel = machine.bind_channel(HOST, port).expect("our port");
    assert!(channel.take_pending(), "an event before the binding counts");
    channel.notify();
    channel.notify();
    assert_eq!(bits(&machine, PENDING), 1 << port.0);
    assert_eq!(bits(&machine, 8), 1);
    assert_eq!(bits(&machine, 0) & 0xff, 1);
    assert_eq!(machine.upcalls(), 1);
    assert!(machine.take_upcall());
    assert!(!machine.take_upcall());
}

#[test]
fn a_masked_event_stays_pending_without_an_upcall() {
    let machine = FakeMachine::new();
    let port = port_for(&machine, HOST);
    let channel = machine.bind_channel(HOST, port).expect("our port");
    machine.shared_info.atomic_u64(MASK).store(u64::MAX, SeqCst);
    channel.notify();
    assert_eq!(bits(&machine, PENDING), 1 << port.0);
    assert_eq!((bits(&machine, 8), machine.upcalls()), (0, 0));
    // Xen does not raise a pending port again: the guest has to look.
    machine.shared_info.atomic_u64(MASK).store(0, SeqCst);
    channel.notify();
    assert_eq!(machine.upcalls(), 0);
}

#[test]
fn ports_are_sent_to_closed_and_reused() {
    let machine = FakeMachine::new();
    let port = port_for(&machine, HOST);
    let channel = machine.bind_channel(HOST, port).expect("our port");
    channel.take_pending();
    machine.send_event(port).expect("an open port");
    assert!(channel.take_pending());
    assert_eq!(
        (channel.received(), machine.calls(CallKind::SendEvent)),
        (1, 1)
    );
    channel.notify();
    let close = Close { port: port.0 };
    machine
        .hypercall(Hypercall::ClosePort(&close))
        .expect("open");
    assert_eq!(bits(&machine, PENDING), 0, "closing clears what is pending");
    assert_eq!(machine.send_event(port), Err(Errno::EINVAL));
    assert!(!channel.is_bound());
    channel.notify();
    assert_eq!(bits(&machine, PENDING), 0);
    assert_eq!(port_for(&machine, HOST), port);
    drop(machine.bind_channel(HOST, port).expect("the new port"));
    let again = machine.bind_channel(HOST, port);
    again.expect("a dropped end leaves the port unbound");
}

#[test]
fn the_timer_fires_when_its_time_has_come() {
    let machine = FakeMachine::new();
    let mut bind = BindVirq {
        virq: VIRQ_TIMER,
        vcpu: 0,
        port: 0,
    };
    machine
        .hypercall(Hypercall::BindVirq(&mut bind))
        .expect("the timer");
    let twice = machine.hypercall(Hypercall::BindVirq(&mut bind));
    assert_eq!(twice, Err(Errno::EEXIST));
    let set = SetSingleshotTimer {
        timeout_abs_ns: machine.now().as_nanos() + 1000,
        flags: 0,
        pad: 0,
    };
    machine
        .hypercall(Hypercall::SetTimer(0, &set))
        .expect("set");
    machine.advance(Duration::from_nanos(999));
    assert_eq!(machine.upcalls(), 0);
    machine.advance(Duration::from_nanos(1));
    assert_eq!(bits(&machine, PENDING), 1 << bind.port);
    assert_eq!(machine.timer(), None);
}

#[test]
fn a_mapping_pins_the_entry_for_as_long_as_it_lives() {
    let machine = FakeMachine::new();
    let page = machine.alloc_shared(1).expect("memory");
    let at = grant(&machine, 9, GTF_PERMIT_ACCESS, machine.gfn(&page, 0));
    let map = |write| {
        machine
            .map_grant(HOST, GrantRef(9), write)
            .expect("granted")
    };
    let (reader, writer) = (map(false), map(true));
    assert_eq!(
        flags(&machine, at),
        GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING
    );
    writer.page().write(16, &0x1234_u32);
    assert_eq!(page.read::<u32>(16), 0x1234);
    drop(writer);
    assert_eq!(flags(&machine, at), GTF_PERMIT_ACCESS | GTF_READING);
    drop(reader);
    assert_eq!(flags(&machine, at), GTF_PERMIT_ACCESS);
    assert_eq!(machine.violations(), []);
}

#[test]
fn what_is_not_granted_cannot_be_mapped() {
    let machine = FakeMachine::new();
    let page = machine.alloc_shared(1).expect("memory");
    let gfn = machine.gfn(&page, 0);
    grant(&machine, 9, GTF_PERMIT_ACCESS | GTF_READONLY, gfn);
    grant(&machine, 10, GTF_PERMIT_ACCESS, Gfn(5));
    grant(&machine, 11, 0, gfn);
    let refused = |domid, gref, write| {
        let mapped = machine.map_grant(DomId(domid), GrantRef(gref), write);
        mapped.err().expect("no grant")
    };
    assert_eq!(refused(0, 9, true), GrantError::ReadOnly(GrantRef(9)));
    assert_eq!(refused(2, 9, false), GrantError::NotGranted(GrantRef(9)));
    assert_eq!(
        refused(0, 10, false),
        GrantError::BadFrame(GrantRef(10), Gfn(5))
    );
    assert_eq!(refused(0, 11, false), GrantError::NotGranted(GrantRef(11)));
    assert_eq!(refused(0, 512, false), GrantError::BadRef(GrantRef(512)));
    assert_eq!(machine.mapped_grants(), 0);
}

#[test]
fn the_guest_s_sins_are_noted() {
    let machine = FakeMachine::new();
    let alloc = || machine.alloc_shared(1).expect("memory");
    let (mapped, granted, freed) = (alloc(), alloc(), alloc());
    grant(&machine, 9, GTF_PERMIT_ACCESS, machine.gfn(&mapped, 0));
    grant(&machine, 10, GTF_PERMIT_ACCESS, machine.gfn(&granted, 0));
    let mapping = machine.map_grant(HOST, GrantRef(9), true).expect("granted");
    machine.free_shared(mapped);
    machine.free_shared(granted);
    let gfn = machine.gfn(&freed, 0);
    let alias = freed.alias();
    machine.free_shared(freed);
    alias.write(100, &7_u8);
    machine.free_shared(alias);
    grant(&machine, 9, 0, Gfn(0));
    drop(mapping);
    assert_eq!(
        machine.violations(),
        [
            Violation::FreedWhileMapped(GrantRef(9)),
            Violation::FreedWhileGranted(GrantRef(10)),
            Violation::WrongFree,
            Violation::RevokedUnderMapping(GrantRef(9)),
            Violation::WrittenAfterFree(gfn),
        ]
    );
}

#[test]
fn hypercalls_and_memory_run_out_on_demand() {
    let machine = FakeMachine::new();
    machine.fail_next(CallKind::AllocUnbound, Errno::ENOSPC);
    let mut arg = AllocUnbound::new(HOST);
    let result = machine.hypercall(Hypercall::AllocUnbound(&mut arg));
    assert_eq!(result, Err(Errno::ENOSPC));
    port_for(&machine, HOST);
    assert_eq!(machine.calls(CallKind::AllocUnbound), 2);
    machine.limit_memory(3);
    let two = machine.alloc_shared(2).expect("within the limit");
    assert!(machine.alloc_shared(2).is_none());
    machine.free_shared(two);
    assert!(machine.alloc_shared(3).is_some());
}

#[test]
fn a_world_that_ends_leaves_nothing() {
    let mut world = crate::live(crate::Config::default());
    assert_eq!(world.write(0, 0, &[7; 4096]), Ok(()));
    let machine = Rc::downgrade(&world.machine.0);
    drop(world);
    assert!(machine.upgrade().is_none(), "somebody still holds it");
}
