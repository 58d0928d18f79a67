//! What one request costs the guest once everything is set up: no allocation,
//! no hypercall but the notification that the ring asks for, no event that
//! nobody waits for. (Locks there are none: the drivers have no type of that
//! kind.)

use firn_block::{Armed, Buffer, Op, Queue, Request, SECTOR};
use firn_peers::{CallKind, Config, Counters, Peer, World, live};

/// Requests of one measurement; each ring size divides it.
const REQUESTS: u64 = 1024;

/// What a measurement found, per measurement.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    allocations: u64,
    notifications: u64,
    other_hypercalls: u64,
    events: u64,
}

/// How completions are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Poll,
    Event,
}

/// A queue's user that reuses its buffers, as every job does.
struct User {
    world: World,
    mode: Mode,
    idle: Vec<Buffer>,
    bytes: usize,
    next: u64,
    done: u64,
    allocations: u64,
}

impl User {
    fn new(config: Config, mode: Mode, depth: usize, pages: usize) -> Self {
        let world = live(config);
        let idle = (0..depth).map(|_| world.buffer(0, pages)).collect();
        Self {
            world,
            mode,
            idle,
            bytes: pages * firn_block::PAGE,
            next: 0,
            done: 0,
            allocations: 0,
        }
    }

    /// Submits all idle buffers, lets the host work, reaps: one batch.
    fn batch(&mut self) {
        let vbd = self.world.vbd(0);
        let Self {
            idle, next, bytes, ..
        } = self;
        let submit = allocation_counter::measure(|| {
            let mut front = vbd.front.borrow_mut();
            while let Some(buffer) = idle.pop() {
                let op = if *next % 2 == 0 { Op::Read } else { Op::Write };
                let sector = (*next * 64) % 8192 / SECTOR * SECTOR;
                let request = Request::data(op, sector, buffer, *bytes);
                front.submit(request).expect("room in the queue").abandon();
                *next += 1;
            }
            front.kick();
        });
        self.allocations += submit.count_total;
        for _ in 0..3 {
            self.world.backends[0].step();
        }
        let (world, mode, done) = (&self.world, self.mode, &mut self.done);
        let reap = allocation_counter::measure(|| {
            if mode == Mode::Event {
                world.guest().xen.poll();
                world.guest().bus.for_each(|vbd| {
                    vbd.front.borrow_mut().take_event();
                });
            }
            let mut front = vbd.front.borrow_mut();
            front.poll(usize::MAX, &mut |completion| {
                assert_eq!(completion.result, Ok(()));
                *done += 1;
                idle.extend(completion.request.buffer);
            });
            if mode == Mode::Event {
                assert_eq!(front.arm(), Armed::Sleep);
            }
        });
        self.allocations += reap.count_total;
    }

    fn counters(&self) -> (u64, u64, Counters) {
        let machine = &self.world.machine;
        let sent = machine.calls(CallKind::SendEvent);
        let counters = self.world.backends[0].counters();
        (sent, machine.all_calls() - sent, counters)
    }

    fn measure(&mut self) -> Cost {
        // Twice around the ring first: lists get their final capacity.
        while self.done < 2 * REQUESTS {
            self.batch();
        }
        let before = self.counters();
        (self.done, self.allocations) = (0, 0);
        while self.done < REQUESTS {
            self.batch();
        }
        assert_eq!(self.done, REQUESTS);
        let after = self.counters();
        assert_eq!(self.world.machine.violations(), []);
        Cost {
            allocations: self.allocations,
            notifications: after.0 - before.0,
            other_hypercalls: after.1 - before.1,
            events: after.2.events_sent - before.2.events_sent,
        }
    }
}

fn cost(config: Config, mode: Mode, depth: usize, pages: usize) -> Cost {
    let persistent = config.persistent;
    let cost = User::new(config, mode, depth, pages).measure();
    println!(
        "{mode:?} qd={depth} bs={}k persistent={persistent}: per request {} allocations, \
         {:.3} notifications, {:.3} other hypercalls, {:.3} events",
        pages * 4,
        cost.allocations as f64 / REQUESTS as f64,
        cost.notifications as f64 / REQUESTS as f64,
        cost.other_hypercalls as f64 / REQUESTS as f64,
        cost.events as f64 / REQUESTS as f64,
    );
    cost
}

fn plain() -> Config {
    Config {
        persistent: false,
        ..Config::default()
    }
}

#[test]
fn polling_one_at_a_time_costs_one_notification_and_no_event() {
    for config in [Config::default(), plain()] {
        let expected = Cost {
            allocations: 0,
            notifications: REQUESTS,
            other_hypercalls: 0,
            events: 0,
        };
        assert_eq!(cost(config, Mode::Poll, 1, 1), expected);
    }
}

#[test]
fn polling_batches_of_32_costs_one_notification_per_batch() {
    for config in [Config::default(), plain()] {
        let expected = Cost {
            allocations: 0,
            notifications: REQUESTS / 32,
            other_hypercalls: 0,
            events: 0,
        };
        assert_eq!(cost(config, Mode::Poll, 32, 1), expected);
    }
}

#[test]
fn waiting_for_events_costs_one_event_per_batch() {
    for depth in [1, 32] {
        for config in [Config::default(), plain()] {
            let batches = REQUESTS / depth as u64;
            let expected = Cost {
                allocations: 0,
                notifications: batches,
                other_hypercalls: 0,
                events: batches,
            };
            assert_eq!(cost(config, Mode::Event, depth, 1), expected);
        }
    }
}

#[test]
fn large_requests_cost_no_allocation_either() {
    // Indirect where the backend takes it, split where it does not.
    for indirect in [256, 0] {
        for persistent in [true, false] {
            let config = Config {
                indirect,
                persistent,
                ..Config::default()
            };
            let expected = Cost {
                allocations: 0,
                notifications: REQUESTS / 8,
                other_hypercalls: 0,
                events: 0,
            };
            assert_eq!(cost(config, Mode::Poll, 8, 32), expected);
        }
    }
}
