//! The machine itself.

use super::RamDisk;
use crate::io::ChannelTable;
use crate::machine::*;
use crate::power::*;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use firn_block::shm::Region;
use firn_block::{DiskId, Queue};
use firn_peers::memory;
use firn_task::{Executor, Instant, Time, Timers};
use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

/// Nanoseconds that pass with each look at the clock, if a test does not say.
const TICK: u64 = 50;

#[derive(Clone, Default)]
pub(crate) struct FakeMachine(Rc<Inner>);

type Reaction = Box<dyn Fn(&FakeMachine)>;

#[derive(Default)]
struct Inner {
    now: Cell<u64>,
    tick: Cell<Option<u64>>,
    turns: Cell<usize>,
    timers: Timers,
    channels: ChannelTable,
    era: Cell<Era>,
    refusal: RefCell<Option<PowerRefusal>>,
    frozen: RefCell<Vec<Reaction>>,
    executor: Executor,
    disks: RefCell<BTreeMap<DiskId, RamDisk>>,
    polled: RefCell<Vec<DiskId>>,
    output: RefCell<String>,
    input: RefCell<VecDeque<u8>>,
    typist: RefCell<Option<Waker>>,
    reactions: RefCell<Vec<(&'static str, Reaction)>>,
    power: Cell<Option<Power>>,
    powerless: Cell<bool>,
    pages: Cell<usize>,
    page_limit: Cell<Option<usize>>,
    store: RefCell<BTreeMap<String, String>>,
    allocations: Cell<u64>,
}

impl FakeMachine {
    pub(crate) fn with_disk(disk: RamDisk) -> Self {
        let machine = Self::default();
        machine.attach(disk);
        machine
    }

    pub(crate) fn attach(&self, disk: RamDisk) {
        self.0.disks.borrow_mut().insert(disk.info.id, disk);
    }

    /// Looks at a disk, or changes it.
    pub(crate) fn disk<R>(&self, id: u32, work: impl FnOnce(&mut RamDisk) -> R) -> R {
        let mut disks = self.0.disks.borrow_mut();
        work(disks.get_mut(&DiskId(id)).expect("the disk is there"))
    }

    pub(crate) fn remove(&self, id: u32) {
        self.0.disks.borrow_mut().remove(&DiskId(id));
    }

    pub(crate) fn type_in(&self, text: &str) {
        self.0.input.borrow_mut().extend(text.bytes());
        if let Some(waker) = self.0.typist.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Does something once when `text` has been printed.
    pub(crate) fn when(&self, text: &'static str, reaction: impl Fn(&Self) + 'static) {
        let reaction = (text, Box::new(reaction) as Reaction);
        self.0.reactions.borrow_mut().push(reaction);
    }

    pub(crate) fn output(&self) -> String {
        self.0.output.borrow().clone()
    }

    pub(crate) fn power_used(&self) -> Option<Power> {
        self.0.power.get()
    }

    pub(crate) fn make_powerless(&self) {
        self.0.powerless.set(true);
    }

    /// Makes time pass faster.
    pub(crate) fn set_tick(&self, nanos: u64) {
        self.0.tick.set(Some(nanos));
    }

    pub(crate) fn limit_pages(&self, limit: usize) {
        self.0.page_limit.set(Some(limit));
    }

    /// Pages that jobs hold.
    pub(crate) fn pages(&self) -> usize {
        self.0.pages.get()
    }

    pub(crate) fn store_value(&self, path: &str, value: &str) {
        let mut store = self.0.store.borrow_mut();
        store.insert(path.to_string(), value.to_string());
    }

    /// What an ask of the power code comes to, as if all went well. Between two
    /// polls nothing of a job is anywhere but in its future, so a restore is to
    /// it only that time has passed and that the era is another.
    fn carry_out(&self, ask: &PowerAsk) -> PowerReport {
        let mut era = self.0.era.get();
        let mut report = PowerReport::default();
        report.lines.push("a line about it".into());
        report.fields.push(("generation", Datum::Number(1)));
        report.summary = format!("{ask:?}");
        match ask {
            PowerAsk::Freeze(args) if !args.check => {
                let reactions = self.0.frozen.take();
                reactions.into_iter().for_each(|reaction| reaction(self));
                era.boot += 1;
                era.restores += 1;
            }
            PowerAsk::Suspend => era.resumes += 1,
            _ => {}
        }
        self.0.era.set(era);
        report
    }

    /// What the next ask of the power code is answered with.
    pub(crate) fn refuse(&self, refusal: PowerRefusal) {
        self.0.refusal.replace(Some(refusal));
    }

    /// Does something while the machine is frozen the next time.
    pub(crate) fn when_frozen(&self, reaction: impl Fn(&Self) + 'static) {
        self.0.frozen.borrow_mut().push(Box::new(reaction));
    }

    /// Runs the jobs that jobs started.
    pub(crate) fn executor(&self) -> &Executor {
        &self.0.executor
    }

    /// Lets the disks work and routes what they completed, as a main loop does.
    pub(crate) fn host_turn(&self) -> bool {
        let mut moved = self.react();
        // As a real main loop, this one looks at polled disks as well, but so
        // seldom that the jobs must do it themselves.
        self.0.turns.set(self.0.turns.get() + 1);
        let all = self.0.turns.get().is_multiple_of(16);
        let polled = self.0.polled.borrow();
        for (id, disk) in self.0.disks.borrow_mut().iter_mut() {
            moved |= disk.serve();
            if all || !polled.contains(id) {
                let deliver = &mut |completion| {
                    self.0.channels.deliver(completion).expect("no strays");
                };
                moved |= disk.poll(usize::MAX, deliver) > 0;
            }
        }
        self.0.timers.fire(self.now());
        moved
    }

    /// Lets the disks do everything that they have to do.
    pub(crate) fn settle(&self) {
        let mut quiet = 0;
        while quiet < 16 {
            quiet = if self.host_turn() { 0 } else { quiet + 1 };
        }
    }

    /// Lets time pass until the next timer; `false` if there is none.
    pub(crate) fn skip_to_next_timer(&self) -> bool {
        let Some(next) = self.0.timers.next_deadline() else {
            return false;
        };
        self.0.now.set(self.0.now.get().max(next.as_nanos()));
        self.0.timers.fire(next);
        true
    }

    fn react(&self) -> bool {
        let due = {
            let output = self.0.output.borrow();
            let reactions = self.0.reactions.borrow();
            reactions.iter().position(|(text, _)| output.contains(text))
        };
        let Some(at) = due else {
            return false;
        };
        let (_, reaction) = self.0.reactions.borrow_mut().remove(at);
        reaction(self);
        true
    }
}

impl Time for FakeMachine {
    fn now(&self) -> Instant {
        let tick = self.0.tick.get().unwrap_or(TICK);
        self.0.now.set(self.0.now.get() + tick);
        Instant::from_nanos(self.0.now.get())
    }

    fn timers(&self) -> &Timers {
        &self.0.timers
    }
}

impl Machine for FakeMachine {
    fn print(&self, text: fmt::Arguments<'_>) {
        let _ = self.0.output.borrow_mut().write_fmt(text);
    }

    fn poll_input(&self, context: &mut Context<'_>) -> Poll<u8> {
        match self.0.input.borrow_mut().pop_front() {
            Some(byte) => Poll::Ready(byte),
            None => {
                self.0.typist.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn disks(&self) -> Vec<DiskReport> {
        let disks = self.0.disks.borrow();
        let report = |disk: &RamDisk| DiskReport {
            id: disk.info.id,
            state: disk.state,
            info: Some(disk.info.clone()),
            features: "in memory".into(),
            stats: *disk.stats(),
        };
        disks.values().map(report).collect()
    }

    fn with_queue<T, R>(
        &self,
        disk: DiskId,
        value: T,
        work: impl FnOnce(&mut dyn Queue, T) -> R,
    ) -> Result<R, T> {
        match self.0.disks.borrow_mut().get_mut(&disk) {
            Some(disk) => Ok(work(disk, value)),
            None => Err(value),
        }
    }

    fn channels(&self) -> &ChannelTable {
        &self.0.channels
    }

    fn mode(&self, disk: DiskId) -> Mode {
        match self.0.polled.borrow().contains(&disk) {
            true => Mode::Poll,
            false => Mode::Event,
        }
    }

    fn set_mode(&self, disk: DiskId, mode: Mode) {
        let mut polled = self.0.polled.borrow_mut();
        polled.retain(|other| *other != disk);
        if mode == Mode::Poll {
            polled.push(disk);
        }
    }

    fn alloc_pages(&self, count: usize) -> Option<Region> {
        let pages = self.0.pages.get() + count;
        if self.0.page_limit.get().is_some_and(|limit| pages > limit) {
            return None;
        }
        self.0.pages.set(pages);
        Some(memory::take(count))
    }

    fn free_pages(&self, region: Region) {
        self.0.pages.set(self.0.pages.get() - region.page_count());
        memory::give_back(region);
    }

    fn counters(&self) -> Counters {
        // A progress line allocates here, so that a test sees it excluded.
        let printed = self.0.output.borrow().lines().count() as u64;
        Counters {
            cycles: self.0.now.get() * 3,
            halted: self.0.now.get(),
            hypercalls: 0,
            events: 0,
            allocations: self.0.allocations.get() + printed,
        }
    }

    fn report(&self, report: Report, line: &mut dyn FnMut(fmt::Arguments<'_>)) {
        line(format_args!("one line of {report:?}"));
        line(format_args!("another"));
    }

    fn store(&self, ask: StoreAsk) -> StoreFuture {
        let store = self.0.store.borrow();
        let answer = match ask {
            StoreAsk::Read(path) => match store.get(&path) {
                Some(value) => Ok([value.clone()].into()),
                None => Err("there is no such name (ENOENT)".to_string()),
            },
            StoreAsk::List(path) => {
                let below = std::format!("{path}/");
                let names = store.keys().filter_map(|key| key.strip_prefix(&below));
                Ok(names.map(ToString::to_string).collect())
            }
        };
        Box::pin(core::future::ready(answer))
    }

    fn power(&self, power: Power) -> Result<(), String> {
        if self.0.powerless.get() {
            return Err("no hypervisor".into());
        }
        self.0.power.set(Some(power));
        Ok(())
    }

    fn ask_power(&self, ask: PowerAsk) -> PowerFuture {
        // Refused or done at the next turn, as in a kernel: not at once.
        let (machine, mut turn) = (self.clone(), None);
        Box::pin(poll_fn(move |context| {
            let began = *turn.get_or_insert(machine.0.turns.get());
            if began == machine.0.turns.get() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let refusal = machine.0.refusal.borrow_mut().take();
            Poll::Ready(match refusal {
                Some(refusal) => Err(refusal),
                None => Ok(machine.carry_out(&ask)),
            })
        }))
    }

    fn memory_hash(&self) -> MemoryHash {
        MemoryHash { hash: 1, bytes: 2 }
    }

    fn era(&self) -> Era {
        self.0.era.get()
    }

    fn spawn(&self, job: JobFuture) {
        self.0.executor.spawn(job);
    }
}
