//! GPADLs: memory that the guest lets the host reach.

use super::State;
use crate::hyperv::bytes::{message, u16_at, u32_at, u64_at};
use crate::hyperv::machine::HvMachine;
use crate::hyperv::offence::HvOffence;
use firn_block::shm::Region;

pub(super) struct Gpadl {
    relid: u32,
    wanted: usize,
    frames: Vec<u64>,
    bodies: u32,
}

impl Gpadl {
    pub(super) fn is_complete(&self) -> bool {
        self.frames.len() == self.wanted
    }

    pub(super) fn pages(&self, machine: &HvMachine) -> Result<Vec<Region>, String> {
        let page = |frame: &u64| machine.page(*frame);
        let pages: Option<Vec<Region>> = self.frames.iter().map(page).collect();
        pages.ok_or_else(|| "a frame that is no memory".to_owned())
    }

    pub(super) fn share(&self, machine: &HvMachine, on: bool) {
        for frame in &self.frames {
            machine.share(*frame, on);
        }
    }
}

/// The frames in a message, from an offset on.
fn frames(message: &[u8], at: usize) -> Vec<u64> {
    let all = message[at..].chunks_exact(8);
    all.map(|frame| u64_at(frame, 0)).collect()
}

impl State {
    pub(super) fn gpadl_header(&mut self, header: &[u8]) {
        let (relid, gpadl) = (u32_at(header, 8), u32_at(header, 12));
        let (listed, ranges) = (u16_at(header, 16), u16_at(header, 18));
        let (bytes, offset) = (u32_at(header, 20), u32_at(header, 24));
        let Some(index) = self.slot_of(relid) else {
            return;
        };
        if self.offences.take(HvOffence::RescindsAtGpadl) {
            return self.rescind(index);
        }
        let wanted = (usize::from(listed) - 8) / 8;
        let whole = bytes as usize == wanted * 4096;
        if ranges != 1 || offset != 0 || !whole || self.gpadls.contains_key(&gpadl) {
            self.complain(format!("GPADL {gpadl}: {ranges} ranges, {bytes} bytes"));
        }
        let frames = frames(header, 28);
        self.gpadls.insert(
            gpadl,
            Gpadl {
                relid,
                wanted,
                frames,
                bodies: 0,
            },
        );
        self.gpadl_created(gpadl);
    }

    pub(super) fn gpadl_body(&mut self, body: &[u8]) {
        let (number, gpadl) = (u32_at(body, 8), u32_at(body, 12));
        let Some(state) = self.gpadls.get_mut(&gpadl) else {
            return self.complain(format!("a body of no GPADL {gpadl}"));
        };
        let expected = state.bodies;
        state.bodies += 1;
        state.frames.extend(frames(body, 16));
        let fits = state.frames.len() <= state.wanted;
        if number != expected || !fits {
            self.complain(format!("body {number} of GPADL {gpadl}"));
        }
        self.gpadl_created(gpadl);
    }

    fn gpadl_created(&mut self, gpadl: u32) {
        let state = &self.gpadls[&gpadl];
        if !state.is_complete() || self.offences.has(HvOffence::NeverCreatesGpadl) {
            return;
        }
        let relid = state.relid;
        let refused = self.offences.take(HvOffence::RefusesGpadl);
        match refused {
            true => {
                self.gpadls.remove(&gpadl);
            }
            false => state.share(&self.machine, true),
        }
        let foreign = u32::from(self.offences.take(HvOffence::GpadlCreatedForeign));
        let status = if refused { 0xc000_009a } else { 0 };
        let answer = message(10, &[relid, gpadl + foreign, status]);
        let answer = self.cut(answer, HvOffence::GpadlCreatedTooShort, 16);
        self.answer(answer, HvOffence::GpadlCreatedTwice);
    }

    pub(super) fn gpadl_teardown(&mut self, request: &[u8]) {
        let gpadl = u32_at(request, 12);
        let open = |channel: &super::HostChannel| channel.gpadl == gpadl;
        if self
            .slots
            .iter()
            .any(|slot| slot.channel.as_ref().is_some_and(open))
        {
            self.complain(format!("GPADL {gpadl} is in use"));
        }
        if self.offences.has(HvOffence::NeverTearsDown) {
            return;
        }
        let Some(state) = self.gpadls.remove(&gpadl) else {
            if self.dropped.remove(&gpadl) {
                // The offer was taken back while this was on its way.
                return;
            }
            return self.complain(format!("no GPADL {gpadl}"));
        };
        state.share(&self.machine, false);
        let foreign = u32::from(self.offences.take(HvOffence::TorndownForeign));
        self.send(message(12, &[gpadl + foreign]));
    }

    /// A channel that is taken back has no memory any more.
    pub(super) fn drop_memory_of(&mut self, relid: u32) {
        let (machine, dropped) = (&self.machine, &mut self.dropped);
        self.gpadls.retain(|number, gpadl| {
            if gpadl.relid == relid {
                gpadl.share(machine, false);
                dropped.insert(*number);
            }
            gpadl.relid != relid
        });
    }
}
