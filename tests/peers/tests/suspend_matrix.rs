//! Hundreds of moves from one host to another: what both offer, what is in
//! flight and how far it had come are chosen by a seed, which is printed.
//! `FIRN_SEED` and `FIRN_CASES` choose others.

use firn_block::{Completion, IoError, Op, Request, Token, Why};
use firn_peers::{
    Config, DiscardConfig, Disk, NewDisk, Order, SECTORS, World, completions, live, pattern,
};
use firn_xen::Hal;
use firn_xen::suspend::Suspended;
use firn_xen::wire::DomId;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

const CASES: u64 = 600;
/// Each request has a place of its own, of so many sectors.
const PLACE: u64 = 256;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).expect("a small list")]
    }
}

/// What a backend offers; one in four disks of the new host is worse than
/// features alone can be.
fn offer(random: &mut Random, may_be_worse: bool) -> (Config, u64) {
    let worse = if may_be_worse { random.below(12) } else { 12 };
    let discard = DiscardConfig {
        granularity: 512,
        alignment: 0,
        secure: random.flip(),
    };
    let config = Config {
        domain: DomId(random.pick(&[0, 0, 5])),
        persistent: random.flip(),
        indirect: random.pick(&[0, 16, 256, 600]),
        ring_order: random.pick(&[None, Some(0), Some(1), Some(4)]),
        flush: random.flip(),
        // A barrier is a write, if an empty one.
        barrier: worse != 1 && random.flip(),
        discard: random.flip().then_some(discard),
        sector_size: if worse == 0 { 4096 } else { 512 },
        physical_sector_size: Some(4096),
        read_only: worse == 1,
        order: random.pick(&[Order::Fifo, Order::Reversed, Order::Random]),
        delay: random.below(3),
        max_persistent: random.pick(&[4, 1056]),
        seed: random.below(1 << 20) + 1,
        ..Config::default()
    };
    let sectors = if worse == 2 { SECTORS / 2 } else { SECTORS };
    (config, sectors)
}

/// A request that was accepted, and what is known of its place.
struct Job {
    token: Token,
    op: Op,
    sector: u64,
    sectors: u64,
    seed: u64,
}

impl Job {
    /// What must become of it on the new host, unless it was answered before.
    fn expected(&self, config: &Config, capacity: u64) -> Result<(), IoError> {
        let unit = config.sector_size;
        let whole = |n: u64| n.is_multiple_of(u64::from(unit) / 512);
        let changed = |why| Err(IoError::DiskChanged(why));
        match self.op {
            Op::Flush if !config.flush && !config.barrier => Err(IoError::NotSupported),
            Op::Flush => Ok(()),
            op if op.modifies() && config.read_only => changed(Why::ReadOnly),
            Op::Discard { .. } if config.discard.is_none() => changed(Why::Unsupported(self.op)),
            _ if self.sector + self.sectors > capacity => changed(Why::OutOfRange { capacity }),
            _ if !whole(self.sector) || !whole(self.sectors) => changed(Why::Misaligned { unit }),
            _ => Ok(()),
        }
    }
}

fn submit(world: &World, random: &mut Random, number: u64) -> Option<Job> {
    let info = world.report(0).info;
    let seed = random.below(1 << 40);
    let kind = random.below(10);
    let sectors = random.pick(&[1, 8, 9, 64, 200, 256]);
    let sector = number * PLACE;
    let data = |op| {
        let buffer = world.buffer(0, 32);
        if op == Op::Write {
            buffer.region().copy_in(0, &pattern(seed, 32 * 4096));
        }
        let bytes = usize::try_from(sectors * 512).expect("a small request");
        Request::data(op, sector, buffer, bytes)
    };
    let request = match kind {
        0..=3 => data(Op::Write),
        4..=6 => data(Op::Read),
        7 | 8 => Request::flush(),
        _ if info.discard.is_some() => Request::discard(sector, sectors, false),
        _ => Request::flush(),
    };
    let (op, sectors) = (request.op, request.sectors);
    match world.submit(0, request) {
        Ok(token) => Some(Job {
            token,
            op,
            sector,
            sectors,
            seed,
        }),
        Err(refused) => {
            let legal = matches!(refused.why, Why::Full | Why::Unsupported(Op::Flush));
            assert!(legal, "{}", refused.why);
            None
        }
    }
}

/// What is on the disk at first.
fn fresh() -> &'static [u8] {
    static FRESH: OnceLock<Vec<u8>> = OnceLock::new();
    FRESH.get_or_init(|| pattern(7, usize::try_from(SECTORS * 512).expect("a small disk")))
}

/// Looks at one request's end: its result, and its place on the disk.
fn check(job: Job, done: &Completion, disk: &Disk, expected: Result<(), IoError>) {
    job.token.settle(done).expect("its own completion");
    assert_eq!(done.result, expected, "{} at {}", job.op, job.sector);
    let count = usize::try_from(job.sectors * 512).expect("a small request");
    if done.result.is_err() {
        return;
    }
    match job.op {
        Op::Write => {
            let content = disk.content(job.sector, job.sectors);
            assert_eq!(content, pattern(job.seed, 32 * 4096)[..count]);
        }
        Op::Read => {
            let mut data = vec![0; count];
            let buffer = done.request.buffer.as_ref().expect("a read has a buffer");
            buffer.region().copy_out(0, &mut data);
            let at = usize::try_from(job.sector * 512).expect("a small disk");
            assert_eq!(data, fresh()[at..at + count], "read at {}", job.sector);
        }
        Op::Flush | Op::Discard { .. } => {}
    }
}

/// One guest: from host to host, with requests in flight each time.
fn one_case(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (first, _) = offer(&mut random, false);
    let mut world = live(first);
    let disk = world.backends[0].disk();
    let in_flight = random.pick(&[0, 1, 8, 32, 60]);
    disk.set_content(0, fresh());
    let answers = usize::try_from(random.below(in_flight + 2)).expect("few");
    world.backends[0].allow(Some(answers));
    let mut jobs: Vec<Job> = (0..in_flight)
        .filter_map(|number| submit(&world, &mut random, number))
        .collect();
    for _ in 0..random.below(12) {
        world.turn();
    }
    if random.below(4) == 0 {
        assert_eq!(world.suspend_in_vain(), Ok(Suspended::Cancelled));
        for _ in 0..random.below(6) {
            world.turn();
        }
    }
    let (config, capacity) = offer(&mut random, true);
    let carried_out = usize::try_from(random.below(in_flight + 1)).expect("few");
    disk.set_capacity(SECTORS);
    let new = vec![NewDisk {
        config: config.clone(),
        disk: disk.clone(),
    }];
    assert_eq!(world.migrate(new, carried_out), Ok(Suspended::Resumed));
    disk.set_capacity(capacity);
    let vbd = world.vbd(0);
    let mut done = completions(&mut *vbd.front.borrow_mut());
    let answered: Vec<_> = done.iter().map(|done| done.token).collect();
    // While the new host connects.
    for _ in 0..random.below(6) {
        world.turn();
    }
    if vbd.state() != firn_block::gate::Lifecycle::Live {
        jobs.extend((in_flight..in_flight + 3).filter_map(|n| submit(&world, &mut random, n)));
    }
    done.extend(world.drain(0));
    world.settle();
    assert!(world.is_live(0), "{:?}", world.report(0));
    done.sort_by_key(|completion| completion.token);
    assert_eq!(done.len(), jobs.len(), "each request ends once");
    for (job, done) in jobs.into_iter().zip(&done) {
        let expected = match answered.contains(&done.token) {
            true => Ok(()),
            false => job.expected(&config, capacity),
        };
        check(job, done, &disk, expected);
    }
    assert_eq!(world.machine.violations(), []);
    assert_eq!(world.backends[0].complaints(), [""; 0]);
    end(&mut world);
}

/// Disconnects: whatever is granted or open then has leaked.
fn end(world: &mut World) {
    let until = world.machine.now() + Duration::from_secs(5);
    let disk = world.vbd(0);
    let (ended, _) = world.finish(async move {
        disk.shut()?;
        disk.drain(until).await?;
        disk.disconnect(until).await
    });
    assert_eq!(ended, Ok(()));
    assert_eq!(world.machine.live_grants(), []);
    assert_eq!(world.machine.mapped_grants(), 0);
    assert_eq!(world.machine.open_ports().len(), 2);
}

fn setting<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

#[test]
fn every_mix_in_flight_survives_every_change_of_host() {
    let first = setting("FIRN_SEED", 1);
    for seed in first..first + setting("FIRN_CASES", CASES) {
        let case = std::panic::catch_unwind(|| one_case(seed));
        if let Err(panic) = case {
            eprintln!("run again with FIRN_SEED={seed} FIRN_CASES=1");
            std::panic::resume_unwind(panic);
        }
    }
}
