//! The guest's event channels against a hypervisor that keeps Xen's rules.

use firn_peers::{CallKind, Channel, FakeMachine, HOST};
use firn_xen::Xen;
use firn_xen::event::EventError;
use firn_xen::wire::errno::Errno;
use firn_xen::wire::event_channel::Port;
use firn_xen::wire::misc::SchedPoll;
use proptest::prelude::*;
use std::rc::Rc;

type Guest = Rc<Xen<FakeMachine>>;

fn guest() -> (FakeMachine, Guest) {
    let machine = FakeMachine::new();
    let xen = Xen::new(machine.clone()).expect("a working machine");
    (machine, xen)
}

fn channel(machine: &FakeMachine, xen: &Guest) -> (Port, Channel) {
    let port = xen.events.alloc_unbound(&xen.hal, HOST).expect("a port");
    let channel = machine.bind_channel(HOST, port).expect("our port");
    // Binding leaves an event behind, as Xen does; start without.
    xen.events.unmask(port);
    xen.events.scan();
    xen.events.take(port);
    (port, channel)
}

#[test]
fn an_event_is_noted_once_and_wakes_who_waits() {
    let (machine, xen) = guest();
    let (port, peer) = channel(&machine, &xen);
    let signal = xen.events.signal(port);
    let seen = signal.seen();
    assert!(!xen.events.scan());
    peer.notify();
    assert!(xen.events.upcall_pending());
    assert!(xen.events.scan());
    assert!(!xen.events.upcall_pending());
    assert_ne!(signal.seen(), seen);
    assert!(xen.events.take(port));
    assert!(!xen.events.take(port), "noted once");
}

#[test]
fn an_event_while_masked_is_reported_by_unmask() {
    let (machine, xen) = guest();
    let (port, peer) = channel(&machine, &xen);
    xen.events.mask(port);
    peer.notify();
    assert!(!xen.events.upcall_pending(), "a masked port is quiet");
    assert!(!xen.events.scan());
    assert!(!xen.events.take(port));
    assert!(xen.events.unmask(port), "Xen will not raise it again");
    assert!(xen.events.take(port));
    peer.notify();
    assert!(xen.events.scan(), "and later events come as ever");
}

#[test]
fn the_wait_is_for_ports_that_are_not_masked() {
    let (machine, xen) = guest();
    let ports: Vec<_> = (0..100).map(|_| channel(&machine, &xen).0).collect();
    xen.events.mask(ports[40]);
    xen.events.close(&xen.hal, ports[70]).expect("our port");
    xen.events.wait(&xen.hal);
    let open = ports.iter().filter(|p| ![ports[40], ports[70]].contains(p));
    assert_eq!(machine.polled(), open.map(|p| p.0).collect::<Vec<_>>());
    assert_eq!(machine.calls(CallKind::Yield), 0);
}

#[test]
fn a_wait_that_xen_refuses_is_a_short_one() {
    let (machine, xen) = guest();
    let _channels: Vec<_> = (0..SchedPoll::MAX_PORTS)
        .map(|_| channel(&machine, &xen))
        .collect();
    xen.events.wait(&xen.hal);
    assert_eq!(machine.calls(CallKind::Yield), 0);
    let _one_too_many = channel(&machine, &xen);
    xen.events.wait(&xen.hal);
    assert_eq!(machine.calls(CallKind::Yield), 1);
    assert_eq!(machine.calls(CallKind::Poll), 1, "it would be refused");
    let (machine, xen) = guest();
    machine.fail_next(CallKind::Poll, Errno::ENOSYS);
    xen.events.wait(&xen.hal);
    assert_eq!(machine.calls(CallKind::Yield), 1);
}

#[test]
fn ports_in_every_word_are_found() {
    let (machine, xen) = guest();
    let channels: Vec<_> = (0..200).map(|_| channel(&machine, &xen)).collect();
    for (_, peer) in &channels {
        peer.notify();
    }
    assert!(xen.events.scan());
    for (port, _) in &channels {
        assert!(xen.events.take(*port), "{port}");
    }
}

#[test]
fn a_closed_port_is_forgotten() {
    let (machine, xen) = guest();
    let before = machine.open_ports();
    let (port, peer) = channel(&machine, &xen);
    peer.notify();
    xen.events.close(&xen.hal, port).expect("our port");
    assert!(!xen.events.scan() || !xen.events.take(port));
    assert_eq!(machine.open_ports(), before);
    assert_eq!(xen.events.close(&xen.hal, port), Err(Errno::EINVAL));
}

#[test]
fn a_port_beyond_the_abi_is_refused() {
    let (_machine, xen) = guest();
    let adopted = xen.events.adopt(Port(4096));
    assert_eq!(adopted, Err(EventError::PortOutOfRange(4096)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Notify(usize),
    Mask(usize),
    Unmask(usize),
    Scan,
    Take(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let port = 0..3usize;
    let step = prop_oneof![
        port.clone().prop_map(Step::Notify),
        port.clone().prop_map(Step::Mask),
        port.clone().prop_map(Step::Unmask),
        Just(Step::Scan),
        port.prop_map(Step::Take),
    ];
    prop::collection::vec(step, 0..64)
}

/// What a port's owner may expect.
#[derive(Clone, Copy, Default)]
struct Model {
    masked: bool,
    pending: bool,
    noted: bool,
}

impl Model {
    fn look(&mut self) {
        if !self.masked {
            self.noted |= std::mem::take(&mut self.pending);
        }
    }
}

proptest! {
    /// Whatever the interleaving, an event is noted exactly when the model says.
    #[test]
    fn no_interleaving_loses_an_event(steps in steps()) {
        let (machine, xen) = guest();
        let channels: Vec<_> = (0..3).map(|_| channel(&machine, &xen)).collect();
        let mut models = [Model::default(); 3];
        for step in steps {
            match step {
                Step::Notify(i) => {
                    channels[i].1.notify();
                    models[i].pending = true;
                }
                Step::Mask(i) => {
                    xen.events.mask(channels[i].0);
                    models[i].masked = true;
                }
                Step::Unmask(i) => {
                    xen.events.unmask(channels[i].0);
                    models[i].masked = false;
                    models[i].look();
                }
                Step::Scan => {
                    xen.events.scan();
                    models.iter_mut().for_each(Model::look);
                }
                Step::Take(i) => {
                    let noted = std::mem::take(&mut models[i].noted);
                    prop_assert_eq!(xen.events.take(channels[i].0), noted);
                }
            }
        }
    }
}
