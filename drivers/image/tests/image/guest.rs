//! A guest's memory, and the steps of a freeze and a restore in order.

use crate::disk::Host;
use crate::seed::Random;
use firn_block::shm::Region;
use firn_block::{DiskId, PAGE};
use firn_image::{
    Area, BuildId, Commit, Cpu, DiskIdentity, Error, Heap, How, Key, Limits, Loaded, Machine, Meta,
    Plan, Reason, Refusal, SavedDisk, Slots, Source, Store, Table, Target, Verdict, WhyNot,
    Written, check,
};
use firn_peers::memory;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Nothing here ever waits for a waker.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("it never ends");
}

/// Pages that return to the pool.
pub(crate) struct Memory(pub(crate) Region);

impl Memory {
    pub(crate) fn new(pages: usize) -> Self {
        Self(memory::take(pages))
    }

    /// Some pages random, some with one byte, some zero; a seed decides.
    pub(crate) fn random(pages: usize, seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let memory = Self::new(pages);
        // Long runs, short ones, or scattered pages.
        let change = 1 + rng.below(40);
        let mut kind = rng.below(4);
        for page in 0..pages {
            if rng.below(change) == 0 {
                kind = rng.below(4);
            }
            memory.fill(page, kind, &mut rng);
        }
        memory
    }

    fn fill(&self, page: usize, kind: u64, rng: &mut Random) {
        match kind {
            0 => {}
            1 => {
                let at = rng.below(PAGE as u64) as usize;
                self.0.copy_in(page * PAGE + at, &[1]);
            }
            2 => {
                let text: Vec<u8> = b"firn ".iter().copied().cycle().take(PAGE).collect();
                self.0.copy_in(page * PAGE, &text);
            }
            _ => {
                let words = (0..PAGE / 8).flat_map(|_| rng.next().to_le_bytes());
                self.0.copy_in(page * PAGE, &words.collect::<Vec<u8>>());
            }
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len()];
        self.0.copy_out(0, &mut bytes);
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        memory::give_back(self.0.alias());
    }
}

const ADDRESS: u64 = 0x1000_0000_0000;

pub(crate) fn disks() -> Vec<SavedDisk> {
    let disk = |id, identity| SavedDisk {
        id: DiskId(id),
        capacity: 1 << 20,
        logical_block: 512,
        read_only: id == 3,
        identity,
    };
    vec![
        disk(0, DiskIdentity::Print(0x1234_5678_9abc_def0)),
        disk(3, DiskIdentity::Guid([7; 16])),
    ]
}

pub(crate) fn meta(memory: &Region) -> Meta {
    Meta {
        build: BuildId::from_bytes(b"a build of firn"),
        heap: Heap {
            address: ADDRESS,
            bytes: memory.len() as u64,
        },
        cpu: Cpu([1, 2, 4, 8]),
        disks: disks(),
        time: 1_700_000_000_000_000_000,
        reason: Reason::new("a test"),
    }
}

/// A machine that can take the images of [`meta`].
pub(crate) fn machine(memory: &Region) -> Machine {
    let meta = meta(memory);
    Machine {
        build: meta.build,
        heap: meta.heap,
        cpu: meta.cpu,
        has_key: false,
    }
}

pub(crate) fn sealed(secret: u8) -> How {
    How {
        compress: false,
        key: Some(Key {
            secret: [secret; 32],
        }),
        salt: [9; 12],
    }
}

/// How a freeze ended early.
#[derive(Debug)]
pub(crate) enum Failed {
    Asked(WhyNot),
    Before(Error),
    /// From the commit on: the image may be valid.
    Unknown(Error),
}

/// A store whose scratch memory has room for `chunks` chunks.
pub(crate) struct Session<'a> {
    pub(crate) store: Store<&'a Host>,
    _scratch: Memory,
}

impl<'a> Session<'a> {
    pub(crate) fn new(host: &'a Host, chunks: usize) -> Self {
        let pages = Store::<&Host>::LOOK_SCRATCH + chunks * 256;
        let scratch = Memory::new(pages);
        let store = Store::open(host, scratch.0.alias(), Limits::default());
        Self {
            store: store.expect("the queue takes it"),
            _scratch: scratch,
        }
    }

    pub(crate) async fn look(&mut self) -> Result<(Area, Slots), Error> {
        let area = self.store.area().await?.expect("no partition table");
        Ok((area, self.store.look(area).await?))
    }

    pub(crate) fn slots(&mut self) -> Slots {
        run(self.look()).expect("readable").1
    }

    pub(crate) async fn plan(
        &mut self,
        memory: &Region,
        free: &[Range<usize>],
        how: How,
    ) -> Result<Plan, Failed> {
        let (area, slots) = self.look().await.map_err(Failed::Before)?;
        let source = Source { memory, free };
        let plan = self.store.plan(area, &slots, &source, &meta(memory), how);
        plan.map_err(Failed::Asked)
    }

    /// F8 to F10.
    pub(crate) async fn prepare(
        &mut self,
        plan: &mut Plan,
        memory: &Region,
        free: &[Range<usize>],
    ) -> Result<Written, Error> {
        let source = Source { memory, free };
        let written = self.store.write_chunks(plan, &source).await?;
        self.store.write_table(plan).await?;
        self.store.flush().await?;
        Ok(written)
    }

    /// F11 to F13.
    pub(crate) async fn commit(&mut self, plan: &mut Plan) -> Result<(), Failed> {
        match self.store.commit(plan).await {
            Ok(()) => {}
            Err(Commit::Untouched(error)) => return Err(Failed::Before(error)),
            Err(Commit::Unknown(error)) => return Err(Failed::Unknown(error)),
        }
        self.store.flush().await.map_err(Failed::Unknown)?;
        let back = self.store.read_back(plan).await;
        back.map_err(Failed::Unknown)
    }

    /// All of a freeze.
    pub(crate) async fn freeze(
        &mut self,
        memory: &Region,
        free: &[Range<usize>],
        how: How,
    ) -> Result<Written, Failed> {
        let mut plan = self.plan(memory, free, how).await?;
        let written = self.prepare(&mut plan, memory, free).await;
        let written = written.map_err(Failed::Before)?;
        self.commit(&mut plan).await?;
        Ok(written)
    }

    /// R2 to R5.
    pub(crate) async fn load(&mut self, into: &Region, key: Option<&Key>) -> Result<(), Refusal> {
        let damaged = |error| match error {
            Error::Damaged(damage) => Refusal::Damaged(damage),
            other => panic!("the disk is readable: {other}"),
        };
        let (area, slots) = self.look().await.map_err(damaged)?;
        let header = match slots.verdict() {
            Verdict::Valid(header, _) => header,
            Verdict::Damaged(damage) => return Err(Refusal::Damaged(damage)),
            other => panic!("no image: {other:?}"),
        };
        let mut machine = machine(into);
        machine.has_key = key.is_some();
        check(&header, area, &machine)?;
        let table = self.store.read_table(area, &slots, key).await;
        let table = table.map_err(damaged)?;
        assert_eq!(table.disks(), disks());
        let loaded = self.place(&table, into).await.map_err(damaged)?;
        assert_eq!(loaded.pages, header.pages);
        assert_eq!(loaded.bytes, header.stored);
        Ok(())
    }

    /// R5: the memory of a table that was read.
    pub(crate) async fn place(&mut self, table: &Table, into: &Region) -> Result<Loaded, Error> {
        self.store.load(&Target::new(table, into)?).await
    }
}

/// A disk with a whole image of `memory` on it.
pub(crate) fn frozen(memory: &Region, how: How) -> Host {
    let host = Host::new(memory.len() + (1 << 20));
    run(Session::new(&host, 2).freeze(memory, &[], how)).expect("a friendly disk");
    host
}
