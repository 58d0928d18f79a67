//! The host's end of VMBus.

mod contact;
mod memory;
mod offers;
mod slots;

use super::bytes::u32_at;
use super::config::HostConfig;
use super::device::{Device, HostChannel, Link, Offences};
use super::ic::IcHost;
use super::machine::HvMachine;
use super::offence::HvOffence::{self, self as O};
use super::ring::{HostRing, Pages};
use super::storvsp::Storvsp;
use crate::Peer;
use firn_hyperv::wire::vmbus::Version;
use firn_task::Instant;
use memory::Gpadl;
use slots::Slots;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// What is to be said of the guest's interrupts: none.
const NO_INTERRUPTS: u32 = u32::MAX;

struct State {
    machine: HvMachine,
    config: HostConfig,
    offences: Offences,
    /// The version, while there is a connection.
    version: Option<Version>,
    /// A connection that could not be ended.
    spent: bool,
    /// Connections so far: each has its own numbers.
    generation: u32,
    slots: Slots,
    gpadls: BTreeMap<u32, Gpadl>,
    /// Those that went with their offers.
    dropped: BTreeSet<u32>,
    unloading: Option<Instant>,
    /// The frame of the page where the guest sets bits instead of signalling.
    monitor: u64,
    /// It does nothing at all.
    hangs: bool,
    complaints: Vec<String>,
    /// The kinds of all messages of the guest.
    log: Vec<u32>,
}

/// A VMBus host; clones are the same host.
#[derive(Clone)]
pub struct VmbusHost(Rc<RefCell<State>>);

impl VmbusHost {
    /// A host without devices.
    #[must_use]
    pub fn new(machine: &HvMachine, config: HostConfig) -> Self {
        machine.ports.borrow_mut().insert(1);
        if !config.no_new_connection {
            machine.ports.borrow_mut().insert(4);
        }
        let offences = Offences::default();
        for offence in &config.offences {
            offences.add(*offence);
        }
        Self(Rc::new(RefCell::new(State {
            machine: machine.clone(),
            config,
            offences,
            version: None,
            spent: false,
            generation: 0,
            slots: Slots::default(),
            gpadls: BTreeMap::new(),
            dropped: BTreeSet::new(),
            unloading: None,
            monitor: 0,
            hangs: false,
            complaints: Vec::new(),
            log: Vec::new(),
        })))
    }

    /// Plugs a controller; it is offered at once if the guest is connected.
    pub fn plug(&self, device: &Storvsp) {
        self.plug_device(Device::Storvsp(device.clone()));
    }

    /// Plugs an integration service, in the same way.
    pub fn plug_service(&self, service: &IcHost) {
        self.plug_device(Device::Service(service.clone()));
    }

    fn plug_device(&self, device: Device) {
        let mut state = self.0.borrow_mut();
        let index = state.slots.plug(device);
        if state.version.is_some() {
            state.offer(index);
        }
    }

    /// Takes a device's offer back.
    pub fn rescind(&self, index: usize) {
        self.0.borrow_mut().rescind(index);
    }

    /// Takes the offer of one of a device's further channels back.
    pub fn rescind_subchannel(&self, index: usize, number: u16) {
        let mut state = self.0.borrow_mut();
        let slots = &state.slots;
        let mut its = slots.of(index).into_iter();
        if let Some(further) = its.find(|further| slots[*further].number == number) {
            state.rescind(further);
        }
    }

    /// Offers a device again that was taken back.
    pub fn offer_again(&self, index: usize) {
        let mut state = self.0.borrow_mut();
        state.slots[index].hidden = false;
        state.offer(index);
    }

    /// Misbehaves from now on.
    pub fn offend(&self, offence: HvOffence) {
        self.0.borrow().offences.add(offence);
    }

    /// Behaves from now on.
    pub fn behave(&self) {
        self.0.borrow().offences.clear();
    }

    /// Does nothing at all from now on, or goes on where it stood still.
    pub fn hang(&self, hang: bool) {
        self.0.borrow_mut().hangs = hang;
    }

    /// Speaks one version from the next contact on.
    pub fn speaks_only(&self, version: Version) {
        let mut state = self.0.borrow_mut();
        (state.config.newest, state.config.oldest) = (version, version);
    }

    /// Does not misbehave in that way any more.
    pub fn forgive(&self, offence: HvOffence) {
        self.0.borrow().offences.remove(offence);
    }

    /// How long an unload takes from now on.
    pub fn unload_takes(&self, time: Duration) {
        self.0.borrow_mut().config.unload = time;
    }

    /// When the host has something to do by itself.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        let state = self.0.borrow();
        state.unloading.filter(|_| !state.hangs)
    }

    /// What the guest did that no guest should.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.0.borrow().complaints.clone()
    }

    /// Kinds of the guest's messages, in their order.
    #[must_use]
    pub fn log(&self) -> Vec<u32> {
        self.0.borrow().log.clone()
    }

    /// How many channels are open.
    #[must_use]
    pub fn open_channels(&self) -> usize {
        let state = self.0.borrow();
        state.slots.iter().filter(|s| s.channel.is_some()).count()
    }

    /// The version of the present connection.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.0.borrow().version
    }
}

impl Peer for VmbusHost {
    fn step(&mut self) -> bool {
        self.0.borrow_mut().step()
    }
}

impl State {
    fn step(&mut self) -> bool {
        if self.hangs {
            return false;
        }
        let mut any = false;
        loop {
            let next = self.machine.posted.borrow_mut().pop_front();
            let Some((connection, message)) = next else {
                break;
            };
            any = true;
            self.take(connection, &message);
        }
        any |= self.unload_step();
        any |= self.serve();
        any
    }

    /// Gives each device its turn.
    fn serve(&mut self) -> bool {
        let mut rung: Vec<u32> = self.machine.rung.borrow_mut().drain(..).collect();
        rung.extend(self.monitored());
        let mut any = !rung.is_empty();
        let mut made = Vec::new();
        for slot in self.slots.iter_mut() {
            let Some(channel) = &mut slot.channel else {
                continue;
            };
            channel.awake |= rung.contains(&slot.connection);
            let mut link = Link {
                machine: &self.machine,
                channel,
                number: slot.number,
                relid: slot.relid,
                offences: &self.offences,
                complaints: &mut self.complaints,
            };
            any |= slot.device.serve(&mut link);
            let numbers = slot.device.take_made(&self.offences);
            if !numbers.is_empty() {
                made.push((slot.owner, numbers));
            }
        }
        any |= !made.is_empty();
        for (owner, numbers) in made {
            self.offer_further(owner, numbers);
        }
        any
    }

    /// Connections that are signalled by the monitor page.
    fn monitored(&self) -> Vec<u32> {
        let watched = self.config.monitors && self.version.is_some();
        let Some(page) = self.machine.page(self.monitor).filter(|_| watched) else {
            return Vec::new();
        };
        let pending = [0, 1, 2, 3].map(|group| page.atomic_u32(8 + 8 * group).swap(0, SeqCst));
        let is_set = |slot: &&slots::Slot| {
            let bit = 127 - slot.relid as usize % 128;
            slot.relid != 0 && pending[bit / 32] >> (bit % 32) & 1 == 1
        };
        let set = self.slots.iter().filter(is_set);
        set.map(|slot| slot.connection).collect()
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// Sends a message, as long as it is.
    fn send(&self, message: Vec<u8>) {
        self.machine.send(message.len() as u8, message);
    }

    /// Sends an answer once, or twice.
    fn answer(&self, message: Vec<u8>, twice: HvOffence) {
        if self.offences.take(twice) {
            self.send(message.clone());
        }
        self.send(message);
    }

    /// Sends only the first bytes of an answer, if that is due.
    fn cut(&self, mut message: Vec<u8>, offence: HvOffence, bytes: usize) -> Vec<u8> {
        if self.offences.take(offence) {
            message.truncate(bytes);
        }
        message
    }

    fn take(&mut self, connection: u32, message: &[u8]) {
        let kind = u32_at(message, 0);
        self.log.push(kind);
        let least = match kind {
            3 | 16 => 8,
            7 | 13 => 12,
            11 | 22 => 16,
            5 => 148,
            8 => 36,
            9 => 24,
            14 => 40,
            _ => return self.complain(format!("message of kind {kind}")),
        };
        if message.len() < least {
            return self.complain(format!("message {kind} of {} bytes", message.len()));
        }
        if kind == 14 {
            return self.contact(connection, message);
        }
        let Some(version) = self.version else {
            return self.complain(format!("message {kind} without contact"));
        };
        let expected = match version >= Version::V5_0 {
            true => self.config.message_connection,
            false => 1,
        };
        if connection != expected {
            self.complain(format!("message {kind} by connection {connection:#x}"));
        }
        match kind {
            3 => self.all_offers(),
            5 => self.open(message),
            7 => self.close(u32_at(message, 8)),
            8 => self.gpadl_header(message),
            9 => self.gpadl_body(message),
            11 => self.gpadl_teardown(message),
            13 => self.released(u32_at(message, 8)),
            16 => self.unload(version),
            _ => self.modify(version, message),
        }
    }

    fn slot_of(&mut self, relid: u32) -> Option<usize> {
        let found = self.slots.find(relid);
        if relid == 0 || found.is_none() {
            self.complain(format!("relid {relid} is not offered"));
            return None;
        }
        found
    }

    fn open(&mut self, message: &[u8]) {
        let [relid, open_id, gpadl, target, page] =
            [8, 12, 16, 20, 24].map(|at| u32_at(message, at));
        let Some(index) = self.slot_of(relid) else {
            return;
        };
        self.slots[index].asked = true;
        let further = self.slots[index].number > 0;
        let due = |one, other| self.offences.take(one) || further && self.offences.take(other);
        if due(O::RescindsAtOpen, O::RescindsSubchannelAtOpen) {
            return self.rescind(index);
        }
        let silent = further && self.offences.has(O::NeverOpensSubchannel);
        if silent || self.offences.has(O::NeverOpens) {
            return;
        }
        let mut status = 0;
        if due(O::RefusesOpen, O::RefusesSubchannelOpen) {
            status = 0xc000_0001;
        } else if let Err(why) = self.open_ring(index, gpadl, page, target) {
            self.complain(why);
            status = 0xc000_000d;
        }
        let other = u32::from(self.offences.take(HvOffence::OpenResultOfOther));
        let foreign = u32::from(self.offences.take(HvOffence::OpenIdForeign));
        let words = [relid + other, open_id + other + foreign, status];
        let answer = super::bytes::message(6, &words);
        let answer = self.cut(answer, HvOffence::OpenResultTooShort, 16);
        self.answer(answer, HvOffence::OpenResultTwice);
    }

    fn open_ring(
        &mut self,
        index: usize,
        gpadl: u32,
        page: u32,
        target: u32,
    ) -> Result<(), String> {
        if self.slots[index].channel.is_some() {
            return Err("opened twice".to_owned());
        }
        let memory = self.gpadls.get(&gpadl).filter(|gpadl| gpadl.is_complete());
        let memory = memory.ok_or("opened without memory")?;
        let pages = memory.pages(&self.machine)?;
        let split = page as usize;
        if split < 2 || split + 2 > pages.len() {
            return Err(format!("rings of {split} of {} pages", pages.len()));
        }
        if target != 0 && target != NO_INTERRUPTS {
            return Err(format!("no processor {target}"));
        }
        let mut incoming = pages;
        let outgoing = incoming.split_off(split);
        self.slots[index].channel = Some(HostChannel {
            gpadl,
            ring: HostRing::new(Pages(incoming), Pages(outgoing)),
            interrupts: target != NO_INTERRUPTS,
            awake: false,
        });
        let slot = &self.slots[index];
        slot.device.opened(slot.number);
        if slot.number > 0 && self.slots[slot.owner].channel.is_none() {
            return Err("a subchannel opened before its first channel".to_owned());
        }
        Ok(())
    }

    fn close(&mut self, relid: u32) {
        let Some(index) = self.slot_of(relid) else {
            return;
        };
        let asked = std::mem::take(&mut self.slots[index].asked);
        match self.slots[index].channel.take() {
            Some(_) => self.slots[index].device.closed(self.slots[index].number),
            // Who was not answered does not know.
            None if asked => {}
            None => self.complain(format!("relid {relid} was not open")),
        }
        if self.slots[index].number == 0 {
            let open = |index: &usize| self.slots[*index].channel.is_some();
            if self.slots.of(index).iter().any(open) {
                self.complain("closed before its subchannels");
            }
            self.rescind_further(index);
        }
    }

    fn modify(&mut self, version: Version, message: &[u8]) {
        let (relid, target) = (u32_at(message, 8), u32_at(message, 12));
        if self.slot_of(relid).is_none() {
            return;
        }
        let status = if target == 0 { 0 } else { 0xc000_000d };
        if version >= Version::V5_3 {
            self.send(super::bytes::message(24, &[relid, status]));
        }
    }
}
