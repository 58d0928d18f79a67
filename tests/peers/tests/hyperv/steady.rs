//! What a request costs the guest once everything is set up: no allocation, no
//! hypercall but the signal that the ring asks for, no interrupt that nobody
//! waits for.

use crate::subchannels::live_with;
use firn_block::{Armed, Buffer, Op, Queue, Request};
use firn_peers::Peer;
use firn_peers::hyperv::HvWorld;

const DEPTH: usize = 32;
const PAGES: usize = 8;

/// A queue's user that reuses its buffers, as every job does.
struct User {
    world: HvWorld,
    events: bool,
    idle: Vec<Buffer>,
    next: u64,
    allocations: u64,
}

impl User {
    fn new(events: bool, subchannels: u16) -> Self {
        let world = live_with(subchannels);
        let idle = (0..DEPTH).map(|_| world.buffer(0, PAGES)).collect();
        Self {
            world,
            events,
            idle,
            next: 0,
            allocations: 0,
        }
    }

    /// Submits all idle buffers, lets the host work, reaps.
    fn batch(&mut self) {
        let unit = self.world.unit(0);
        let (idle, next) = (&mut self.idle, &mut self.next);
        let submit = allocation_counter::measure(|| {
            let mut front = unit.front.borrow_mut();
            while let Some(buffer) = idle.pop() {
                let op = if *next % 2 == 0 { Op::Read } else { Op::Write };
                let request = Request::data(op, *next * 64 % 8192, buffer, PAGES * 4096);
                front.submit(request).expect("room in the queue").abandon();
                *next += 1;
            }
            front.kick();
            if self.events {
                assert_eq!(front.arm(), Armed::Sleep);
            }
        });
        self.world.host.step();
        let guest = self.world.guest();
        let reap = allocation_counter::measure(|| {
            if self.events {
                guest.hv.poll();
                guest.scsi.for_each(|unit| {
                    unit.front.borrow_mut().take_event();
                });
            }
            let mut front = unit.front.borrow_mut();
            front.poll(usize::MAX, &mut |completion| {
                assert_eq!(completion.result, Ok(()));
                idle.extend(completion.request.buffer);
            });
        });
        assert_eq!(idle.len(), DEPTH, "all ended");
        self.allocations += submit.count_total + reap.count_total;
    }
}

/// Allocations, hypercalls, signals and interrupts of so many batches.
fn cost(events: bool, subchannels: u16, batches: u64) -> (u64, u64, u64, u64) {
    let mut user = User::new(events, subchannels);
    // Lists get their final capacity.
    (0..100).for_each(|_| user.batch());
    user.allocations = 0;
    let machine = user.world.machine.clone();
    let (calls, signals) = (machine.calls(), machine.signals());
    let mut interrupts = 0;
    while machine.take_interrupt() {}
    for _ in 0..batches {
        user.batch();
        interrupts += u64::from(machine.take_interrupt());
    }
    user.world.assert_clean();
    let calls = machine.calls() - calls;
    (
        user.allocations,
        calls,
        machine.signals() - signals,
        interrupts,
    )
}

#[test]
fn polling_costs_one_signal_a_batch_and_nothing_else() {
    assert_eq!(cost(false, 0, 200), (0, 200, 200, 0));
}

#[test]
fn events_cost_an_interrupt_a_batch_on_top() {
    assert_eq!(cost(true, 0, 200), (0, 200, 200, 200));
}

#[test]
fn further_channels_cost_a_signal_each_and_nothing_else() {
    assert_eq!(cost(false, 3, 200), (0, 800, 800, 0));
    assert_eq!(cost(true, 3, 200), (0, 800, 800, 200));
}
