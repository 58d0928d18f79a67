//! A guest's machine on Hyper-V: CPUID, MSRs, memory, message and event pages.

use super::bytes::u32_at;
use super::noise::Noise;
use crate::frames::Frames;
use firn_block::shm::Region;
use firn_block::{Gfn, PAGE};
use firn_hyperv::Hal;
use firn_hyperv::hypercall::Hypercall;
use firn_hyperv::wire::cpuid::{Leaf, advice, privilege};
use firn_hyperv::wire::hypercall::Status;
use firn_hyperv::wire::msr::Msr;
use firn_task::Instant;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The frame of the hypercall page.
const HYPERCALL_PAGE: u64 = 0xf_2000;
/// Source 2 in both pages.
const SLOT: usize = 512;
const MASKED: u64 = 1 << 16;
/// Bits of the SIMP that are the hypervisor's.
const RESERVED: u64 = 0x0a0;

/// What a guest must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HvViolation {
    /// A page was freed that the host may still reach by a GPADL.
    FreedWhileShared(Gfn),
    /// A page was written after it had been freed.
    WrittenAfterFree(Gfn),
    /// Memory was freed that was not allocated like this, or twice.
    WrongFree,
    /// A hypercall while the hypercall page was off.
    CallWhileOff,
    /// The hypercall page was turned on before the guest said who it is.
    NobodyOn,
    /// Bits of an MSR were changed that are the hypervisor's.
    ReservedBits(Msr),
    /// A message that is none.
    BadMessage,
    /// An event of a connection that nobody has.
    BadEvent(u32),
}

/// The machine's parts; reach them through [`HvMachine`].
pub struct Parts {
    pub(super) frames: RefCell<Frames>,
    msrs: RefCell<BTreeMap<u32, u64>>,
    clock: Cell<u64>,
    /// Messages of the guest: where to, and what.
    pub(super) posted: RefCell<VecDeque<(u32, Vec<u8>)>>,
    /// Connections by which the guest may post.
    pub(super) ports: RefCell<BTreeSet<u32>>,
    /// Connections that may be signalled.
    pub(super) bells: RefCell<BTreeSet<u32>>,
    /// Those that were.
    pub(super) rung: RefCell<Vec<u32>>,
    signals: Cell<u64>,
    calls: Cell<u64>,
    /// Messages for the guest: size as it is said, and bytes.
    outgoing: RefCell<VecDeque<(u8, Vec<u8>)>>,
    interrupt: Cell<bool>,
    /// So many posts are refused for want of room; all of them for `u32::MAX`.
    no_room: Cell<u32>,
    privileges: Cell<u32>,
    /// The hypercall page cannot be turned on.
    withheld: Cell<bool>,
    shared: RefCell<BTreeMap<u64, usize>>,
    violations: RefCell<Vec<HvViolation>>,
    pub(super) noise: Noise,
}

/// A handle to the machine; clones are the same machine.
#[derive(Clone)]
pub struct HvMachine(Rc<Parts>);

impl Deref for HvMachine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl HvMachine {
    /// A machine that has just been started.
    #[must_use]
    pub fn new() -> Self {
        let mut frames = Frames::new();
        frames.place(HYPERCALL_PAGE, 1);
        Self::with(frames)
    }

    /// A machine of somebody else's making, whose memory begins at frame 0. Its
    /// guest's accesses come through [`Hal`]; none of the memory is allocated here.
    #[must_use]
    pub fn over(memory: &Region) -> Self {
        let mut frames = Frames::new();
        frames.lend_at(0, memory);
        Self::with(frames)
    }

    fn with(frames: Frames) -> Self {
        Self(Rc::new(Parts {
            frames: RefCell::new(frames),
            msrs: RefCell::new(BTreeMap::from([
                (Msr::SIMP.0, RESERVED),
                (Msr::SINT2.0, MASKED),
            ])),
            clock: Cell::new(1_000_000_000),
            posted: RefCell::default(),
            ports: RefCell::default(),
            bells: RefCell::default(),
            // Room from the beginning: a signal of the guest costs it no allocation.
            rung: RefCell::new(Vec::with_capacity(64)),
            signals: Cell::new(0),
            calls: Cell::new(0),
            outgoing: RefCell::default(),
            interrupt: Cell::new(false),
            no_room: Cell::new(0),
            privileges: Cell::new(
                privilege::HYPERCALL
                    | privilege::SYNIC
                    | privilege::VP_INDEX
                    | privilege::REFERENCE_COUNTER
                    | privilege::REFERENCE_TSC,
            ),
            withheld: Cell::new(false),
            shared: RefCell::default(),
            violations: RefCell::default(),
            noise: Noise::default(),
        }))
    }

    /// Takes privileges away; bits of `wire::cpuid::privilege`.
    pub fn deprive(&self, bits: u32) {
        self.privileges.set(self.privileges.get() & !bits);
    }

    /// Leaves the hypercall page off from now on, whatever the guest writes, or
    /// does so no more.
    pub fn withhold_hypercalls(&self, withhold: bool) {
        self.withheld.set(withhold);
    }

    /// Refuses so many posts from now on for want of room; `u32::MAX` is for ever.
    pub fn refuse_posts(&self, count: u32) {
        self.no_room.set(count);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.clock.set(self.clock.get().saturating_add(nanos));
    }

    /// Pages that the guest holds.
    #[must_use]
    pub fn pages_in_use(&self) -> usize {
        self.frames.borrow().in_use()
    }

    /// Makes memory that somebody else made, and keeps, memory of the guest.
    pub fn lend_memory(&self, region: &Region) {
        self.frames.borrow_mut().lend(region);
    }

    /// Lets [`Hal::alloc_shared`] fail once so many pages are in use on top of
    /// today's.
    pub fn limit_memory(&self, pages: usize) {
        self.frames.borrow_mut().budget = pages;
    }

    /// How often the guest signalled an event.
    #[must_use]
    pub fn signals(&self) -> u64 {
        self.signals.get()
    }

    /// How many hypercalls the guest made.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Whether an interrupt was due since the last call.
    #[must_use]
    pub fn take_interrupt(&self) -> bool {
        self.interrupt.take()
    }

    /// What the guest wrote to an MSR last.
    #[must_use]
    pub fn msr(&self, msr: Msr) -> u64 {
        self.msrs.borrow().get(&msr.0).copied().unwrap_or(0)
    }

    /// What the guest did wrong so far.
    #[must_use]
    pub fn violations(&self) -> Vec<HvViolation> {
        let mut all = self.violations.borrow().clone();
        let spoiled = self.frames.borrow().spoiled();
        all.extend(spoiled.into_iter().map(HvViolation::WrittenAfterFree));
        all
    }

    fn note(&self, violation: HvViolation) {
        let mut violations = self.violations.borrow_mut();
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }

    /// A page of the guest's.
    #[must_use]
    pub fn page(&self, frame: u64) -> Option<Region> {
        Some(self.frames.borrow().frame(Gfn(frame))?.page)
    }

    /// The host reaches a page, or does so no more.
    pub(super) fn share(&self, frame: u64, on: bool) {
        let mut shared = self.shared.borrow_mut();
        let count = shared.entry(frame).or_default();
        *count = if on {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
    }

    /// Pages that the host reaches.
    #[must_use]
    pub fn shared_pages(&self) -> usize {
        self.shared
            .borrow()
            .values()
            .filter(|count| **count > 0)
            .count()
    }

    /// A page that an MSR names, if it is on and the SynIC is.
    fn synic_page(&self, msr: Msr) -> Option<Region> {
        let value = self.msr(msr);
        let on = self.msr(Msr::SCONTROL) & value & 1 == 1 && self.msr(Msr::SINT2) & MASKED == 0;
        on.then(|| self.page(value >> 12)).flatten()
    }

    /// Sends a message to the guest; `size` is what the slot says of its length.
    pub(super) fn send(&self, size: u8, mut bytes: Vec<u8>) {
        let mut length = [size];
        self.noise.spoil(&mut bytes);
        self.noise.spoil(&mut length);
        let [size] = length;
        self.outgoing.borrow_mut().push_back((size, bytes));
        self.deliver();
    }

    /// Forgets what the guest did not get.
    pub(super) fn drop_messages(&self) {
        self.outgoing.borrow_mut().clear();
    }

    /// Puts the next message into the slot, or notes that one waits.
    fn deliver(&self) {
        let Some(page) = self.synic_page(Msr::SIMP) else {
            return;
        };
        let mut outgoing = self.outgoing.borrow_mut();
        let Some((size, bytes)) = outgoing.front() else {
            return;
        };
        if page.atomic_u32(SLOT).load(SeqCst) != 0 {
            page.atomic_u8(SLOT + 5).store(1, SeqCst);
            return;
        }
        page.atomic_u8(SLOT + 4).store(*size, SeqCst);
        page.atomic_u8(SLOT + 5)
            .store(u8::from(outgoing.len() > 1), SeqCst);
        page.copy_in(SLOT + 16, bytes);
        page.atomic_u32(SLOT).store(1, SeqCst);
        outgoing.pop_front();
        self.interrupt.set(true);
    }

    /// Has bytes go wrong at random from now on, in everything that the host
    /// sends and in the words that it shares; zero ends that.
    pub fn make_noise(&self, seed: u64) {
        self.noise.set(seed);
    }

    /// The same, as a tape says, until it ends.
    pub fn play_noise(&self, tape: &[u8]) {
        self.noise.play(tape);
    }

    /// Sends the guest a message of nobody's, as long as its slot at most.
    pub fn send_message(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(240)];
        self.send(bytes.len() as u8, bytes.to_vec());
    }

    /// Sets a channel's event flag.
    pub(super) fn ring(&self, mut relid: u32) {
        if self.noise.strikes(10) {
            relid = self.noise.below(2048) as u32;
        }
        if let Some(page) = self.synic_page(Msr::SIEFP) {
            let word = page.atomic_u64(SLOT + relid as usize / 64 * 8);
            word.fetch_or(1 << (relid % 64), SeqCst);
            self.interrupt.set(true);
        }
    }

    fn post(&self, frame: Gfn) -> Status {
        let mut input = [0; 256];
        match self.page(frame.0) {
            Some(page) => page.copy_out(0, &mut input),
            None => return Status::INVALID_PARAMETER,
        }
        let size = u32_at(&input, 12) as usize;
        if u32_at(&input, 4) != 0 || u32_at(&input, 8) != 1 || size > 240 {
            self.note(HvViolation::BadMessage);
            return Status::INVALID_PARAMETER;
        }
        let connection = u32_at(&input, 0);
        if !self.ports.borrow().contains(&connection) {
            return Status::INVALID_CONNECTION_ID;
        }
        match self.no_room.get() {
            0 => {}
            u32::MAX => return Status::INSUFFICIENT_BUFFERS,
            left => {
                self.no_room.set(left - 1);
                return Status::INSUFFICIENT_BUFFERS;
            }
        }
        let bytes = input[16..16 + size].to_vec();
        self.posted.borrow_mut().push_back((connection, bytes));
        Status::SUCCESS
    }

    fn signal(&self, connection: u32) -> Status {
        self.signals.set(self.signals.get() + 1);
        if !self.bells.borrow().contains(&connection) {
            self.note(HvViolation::BadEvent(connection));
            return Status::INVALID_CONNECTION_ID;
        }
        let mut rung = self.rung.borrow_mut();
        if !rung.contains(&connection) {
            rung.push(connection);
        }
        Status::SUCCESS
    }
}

impl Default for HvMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl Hal for HvMachine {
    fn cpuid(&self, leaf: u32) -> Leaf {
        match leaf {
            0x4000_0000 => Leaf {
                eax: 0x4000_0005,
                ebx: u32::from_le_bytes(*b"Micr"),
                ecx: u32::from_le_bytes(*b"osof"),
                edx: u32::from_le_bytes(*b"t Hv"),
            },
            0x4000_0001 => Leaf {
                eax: u32::from_le_bytes(*b"Hv#1"),
                ..Leaf::default()
            },
            0x4000_0003 => Leaf {
                eax: self.privileges.get(),
                edx: 1 << 10,
                ..Leaf::default()
            },
            0x4000_0004 => Leaf {
                eax: advice::NO_AUTO_EOI,
                ..Leaf::default()
            },
            _ => Leaf::default(),
        }
    }

    fn read_msr(&self, msr: Msr) -> u64 {
        match msr {
            Msr::TIME_REF_COUNT => self.clock.get() / 100,
            other => self.msr(other),
        }
    }

    fn write_msr(&self, msr: Msr, mut value: u64) {
        if msr == Msr::HYPERCALL && self.withheld.get() {
            value &= !1;
        }
        if msr == Msr::HYPERCALL && value & 1 == 1 && self.msr(Msr::GUEST_OS_ID) == 0 {
            self.note(HvViolation::NobodyOn);
        }
        if msr == Msr::SIMP && value & RESERVED != RESERVED {
            self.note(HvViolation::ReservedBits(msr));
        }
        self.msrs.borrow_mut().insert(msr.0, value);
        self.deliver();
    }

    fn hypercall_page(&self) -> Gfn {
        Gfn(HYPERCALL_PAGE)
    }

    fn hypercall(&self, call: Hypercall) -> Status {
        self.calls.set(self.calls.get() + 1);
        if self.msr(Msr::HYPERCALL) & 1 == 0 {
            self.note(HvViolation::CallWhileOff);
            return Status::INVALID_CODE;
        }
        match call {
            Hypercall::PostMessage(frame) => self.post(frame),
            Hypercall::SignalEvent { connection, .. } => self.signal(connection),
        }
    }

    fn vector(&self) -> u8 {
        0xf3
    }

    fn alloc_shared(&self, pages: usize) -> Option<Region> {
        self.frames.borrow_mut().allocate(pages)
    }

    fn free_shared(&self, region: Region) {
        let Some(frames) = self.frames.borrow_mut().free(&region) else {
            self.note(HvViolation::WrongFree);
            return;
        };
        let shared = self.shared.borrow();
        for frame in frames {
            if shared.get(&frame).is_some_and(|count| *count > 0) {
                self.note(HvViolation::FreedWhileShared(Gfn(frame)));
            }
        }
    }

    fn gfn(&self, region: &Region, page: usize) -> Gfn {
        let gfn = self.frames.borrow().gfn(region.addr() + page * PAGE);
        gfn.unwrap_or_else(|| panic!("a region that this machine did not make"))
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.get())
    }
}
