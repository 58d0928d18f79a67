//! Packets: the handshake, SCSI requests, and their answers.

use super::target::Outcome;
use super::{Lane, Phase, State};
use crate::blkback::Later;
use crate::hyperv::bytes::{u16_at, u32_at, u64_at};
use crate::hyperv::device::Link;
use crate::hyperv::machine::HvMachine;
use crate::hyperv::offence::HvOffence;
use crate::hyperv::ring::Raw;
use firn_block::PAGE;
use firn_hyperv::wire::vstor::Version;
use std::sync::mpsc::TryRecvError;

const IN_BAND: u16 = 6;
const GPA_DIRECT: u16 = 9;
const COMPLETION: u16 = 11;
const REVISION_MISMATCH: u32 = 0xc000_0059;
const UNSUCCESSFUL: u32 = 0xc000_0001;

/// An answer that is on its way.
pub(super) struct Pending {
    transaction: u64,
    packet: Vec<u8>,
    due: u64,
    /// What it waits for.
    later: Option<Wait>,
}

/// A disk is still at it.
struct Wait {
    end: Later,
    /// The answer if that ends badly.
    bad: Vec<u8>,
    /// Where what was read goes. Nobody else writes there.
    to: Option<Buffer>,
}

impl Pending {
    /// Whether what it waits for has ended.
    fn is_here(&mut self, machine: &HvMachine) -> bool {
        if let Some(wait) = &mut self.later {
            match wait.end.try_recv() {
                Err(TryRecvError::Empty) => return false,
                Ok(Ok(data)) => {
                    if let Some(to) = &wait.to {
                        to.fill(&data, machine);
                    }
                }
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => {
                    self.packet = std::mem::take(&mut wait.bad);
                }
            }
            self.later = None;
        }
        true
    }

    /// Waits until it is safe to say that nobody is at it any more; what came out
    /// of it is forgotten.
    pub(super) fn give_up(&mut self) {
        if let Some(wait) = self.later.take() {
            let _forgotten = wait.end.recv();
        }
    }
}

/// Guest memory that a packet lists.
struct Buffer {
    frames: Vec<u64>,
    offset: usize,
    bytes: usize,
}

impl Buffer {
    /// Reads the ranges after the descriptor.
    fn parse(head: &[u8]) -> Result<Self, String> {
        if head.len() < 16 || u32_at(head, 4) != 1 {
            return Err("not one range".to_owned());
        }
        let (bytes, offset) = (u32_at(head, 8) as usize, u32_at(head, 12) as usize);
        let mut frames: Vec<u64> = head[16..].chunks_exact(8).map(|f| u64_at(f, 0)).collect();
        let needed = (offset + bytes).div_ceil(PAGE);
        if offset >= PAGE || needed > frames.len() {
            return Err(format!("{bytes} bytes in {} frames", frames.len()));
        }
        // Linux sends lists of one length, of which a part is in use.
        frames.truncate(needed);
        Ok(Self {
            frames,
            offset,
            bytes,
        })
    }

    /// Walks over the pages: page, offset in it, range of the data.
    fn each(&self, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
        let (mut done, mut offset) = (0, self.offset);
        for frame in &self.frames {
            let now = (PAGE - offset).min(self.bytes - done);
            visit(*frame, offset, done..done + now);
            (done, offset) = (done + now, 0);
        }
    }

    /// Puts data there, as far as they reach.
    fn fill(&self, data: &[u8], machine: &HvMachine) {
        self.each(|frame, offset, range| {
            let part = data.get(range.start..range.end.min(data.len()));
            if let (Some(page), Some(part)) = (machine.page(frame), part) {
                page.copy_in(offset, part);
            }
        });
    }
}

impl State {
    fn lane(&mut self, link: &Link<'_>) -> &mut Lane {
        self.lanes.entry(link.number).or_default()
    }

    pub(super) fn serve(&mut self, link: &mut Link<'_>) -> bool {
        let lane = self.lane(link);
        lane.clock += 1;
        lane.blocked &= !link.channel.awake;
        let goes_back =
            self.phase == Phase::Ready && link.offences.take(HvOffence::WriteIndexGoesBack);
        if goes_back {
            // By one answer: 64 bytes, its head and its trailer.
            let ring = &link.channel.ring;
            let size = ring.outgoing_size();
            ring.pretend_write((ring.write_index() + size - 88) % size);
        }
        let mut any = self.take_packets(link) || goes_back;
        if link.number > 0 {
            self.exchange_answers(link);
        }
        any |= self.send_answers(link);
        any |= link.number == 0 && self.send_notices(link);
        if link.offences.has(HvOffence::EventStorm) && self.phase == Phase::Ready {
            link.signal();
            any = true;
        }
        if self.phase == Phase::Ready {
            link.spoil_indices();
        }
        any
    }

    fn take_packets(&mut self, link: &mut Link<'_>) -> bool {
        if !link.channel.awake {
            return false;
        }
        link.channel.ring.mask(true);
        loop {
            match link.channel.ring.next() {
                Ok(Some(packet)) => {
                    if let Err(why) = self.take(&packet, link) {
                        link.complaints.push(why);
                    }
                }
                Ok(None) => {
                    link.channel.ring.mask(false);
                    if link.channel.ring.is_empty() {
                        link.channel.awake = false;
                        return true;
                    }
                }
                Err(why) => {
                    link.complaints.push(why);
                    link.channel.awake = false;
                    return true;
                }
            }
        }
    }

    fn take(&mut self, raw: &Raw, link: &mut Link<'_>) -> Result<(), String> {
        let expected = self.version.map_or(48, Version::packet_bytes);
        let bytes = raw.data.len();
        if bytes != expected && !(self.version.is_none() && bytes == 64) {
            return Err(format!("a packet of {bytes} bytes"));
        }
        if raw.flags != 1 {
            return Err("no completion asked for".to_owned());
        }
        let operation = u32_at(&raw.data, 0);
        if operation == 3 {
            return self.scsi(raw, link);
        }
        if raw.packet_type != IN_BAND {
            return Err(format!("operation {operation} with data"));
        }
        if link.number > 0 {
            return Err(format!("operation {operation} on a subchannel"));
        }
        if operation == 6 && self.phase == Phase::Ready {
            self.reset(raw, link);
            return Ok(());
        }
        if let Some(answer) = self.handshake(operation, raw, link)? {
            self.answer(link, raw.transaction, answer, None);
        }
        Ok(())
    }

    fn handshake(
        &mut self,
        operation: u32,
        raw: &Raw,
        link: &mut Link<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        let mut answer = vec![0; raw.data.len()];
        answer[0] = 1;
        let offences = link.offences;
        let refused = |offence| match offences.has(offence) {
            true => UNSUCCESSFUL,
            false => 0,
        };
        let status = match (operation, self.phase) {
            (7, Phase::Opened) if offences.has(HvOffence::NeverBegins) => return Ok(None),
            (7, Phase::Opened) => {
                self.phase = Phase::Begun;
                refused(HvOffence::RefusesBegin)
            }
            (9, Phase::Begun) => {
                let version = Version(u16_at(&raw.data, 12));
                let known = (self.config.oldest..=self.config.newest).contains(&version)
                    && !offences.has(HvOffence::RefusesVersions);
                match known {
                    true => {
                        self.phase = Phase::Versioned;
                        self.version = Some(version);
                        0
                    }
                    false => REVISION_MISMATCH,
                }
            }
            (10, Phase::Versioned) => {
                self.phase = Phase::Described;
                let max = match offences.has(HvOffence::ZeroTransfer) {
                    true => 0,
                    false => self.config.max_transfer,
                };
                answer[24..28].copy_from_slice(&max.to_le_bytes());
                // Also where there are none in this version: the guest has to know.
                let most = self.config.subchannels;
                let flagged = most > 0 && !offences.has(HvOffence::SubchannelsUnflagged);
                answer[16..18].copy_from_slice(&most.to_le_bytes());
                answer[20] = flagged.into();
                refused(HvOffence::RefusesProperties)
            }
            (8, Phase::Described) => {
                self.phase = Phase::Ready;
                self.notices.clear();
                refused(HvOffence::RefusesEnd)
            }
            (13, Phase::Ready) => {
                let asked = u16_at(&raw.data, 12);
                let has = self.version.is_some_and(Version::has_subchannels);
                let flagged = !offences.has(HvOffence::SubchannelsUnflagged);
                if !has || !flagged || asked == 0 || asked > self.config.subchannels {
                    return Err(format!("{asked} subchannels asked for"));
                }
                if offences.has(HvOffence::NeverAnswersSubchannels) {
                    return Ok(None);
                }
                let status = refused(HvOffence::RefusesSubchannels);
                if status == 0 {
                    self.made = (1..=asked.min(self.config.makes)).collect();
                }
                status
            }
            (other, phase) => return Err(format!("operation {other} while {phase:?}")),
        };
        answer[8..12].copy_from_slice(&status.to_le_bytes());
        Ok(Some(answer))
    }

    fn scsi(&mut self, raw: &Raw, link: &mut Link<'_>) -> Result<(), String> {
        let (Phase::Ready, Some(version)) = (self.phase, self.version) else {
            return Err("a request before the handshake".to_owned());
        };
        let packet = &raw.data;
        let length = usize::from(u16_at(packet, 12));
        if length != version.request_bytes() || u32_at(packet, 4) != 1 {
            return Err(format!("a request of {length} bytes at {version}"));
        }
        let transfer = u32_at(packet, 24) as usize;
        let (cdb_bytes, direction) = (usize::from(packet[20]), packet[22]);
        if !(6..=16).contains(&cdb_bytes) || direction > 2 {
            return Err(format!(
                "{cdb_bytes} bytes of command, direction {direction}"
            ));
        }
        let buffer = match raw.packet_type {
            GPA_DIRECT => Some(Buffer::parse(&raw.head)?),
            IN_BAND => None,
            other => return Err(format!("packet of type {other}")),
        };
        let listed = buffer.as_ref().map_or(0, |buffer| buffer.bytes);
        if listed != transfer || (transfer == 0) != (direction == 2) {
            return Err(format!(
                "{transfer} bytes, {listed} listed, direction {direction}"
            ));
        }
        if transfer > self.config.max_transfer as usize {
            return Err(format!("{transfer} bytes at once"));
        }
        *self.served.entry(link.number).or_default() += 1;
        let mut data = vec![0; if direction == 0 { transfer } else { 0 }];
        if let Some(buffer) = buffer.as_ref().filter(|_| direction == 0) {
            buffer.each(|frame, offset, range| {
                if let Some(page) = link.machine.page(frame) {
                    page.copy_out(offset, &mut data[range]);
                }
            });
        }
        let cdb = &packet[28..28 + cdb_bytes];
        let exists = packet[17] == 0 && packet[18] == 0;
        let mut outcome = match exists {
            true => self.command(packet[19], cdb, &data, link.offences),
            false => None,
        };
        let begun = outcome.as_mut().and_then(|outcome| outcome.later.take());
        let begun = begun.map(|(end, sense)| {
            let bad = Some(Outcome::check(sense));
            let bad = result(packet, version, transfer, bad, buffer.as_ref(), link);
            (end, bad)
        });
        let answer = result(packet, version, transfer, outcome, buffer.as_ref(), link);
        let later = begun.map(|(end, bad)| {
            let to = buffer.filter(|_| direction == 1);
            Wait { end, bad, to }
        });
        if link.offences.has(HvOffence::NeverAnswersIo) {
            // The request is forgotten.
        } else if link.offences.has(HvOffence::AnswersAfterReset) && self.resets == 0 {
            let (transaction, packet, due) = (raw.transaction, answer, 0);
            self.lane(link).stuck.push_back(Pending {
                transaction,
                packet,
                due,
                later,
            });
        } else {
            self.answer(link, raw.transaction, answer, later);
        }
        Ok(())
    }

    /// Ends everything that is in flight, as aborted.
    fn reset(&mut self, raw: &Raw, link: &Link<'_>) {
        self.resets += 1;
        if link.offences.has(HvOffence::NeverAnswersIo) {
            return;
        }
        for lane in self.lanes.values_mut() {
            lane.pending.append(&mut lane.stuck);
            for pending in &mut lane.pending {
                pending.give_up();
                pending.packet[14] = 0x02;
                pending.packet[24..28].fill(0);
            }
        }
        let mut answer = vec![0; raw.data.len()];
        answer[0] = 1;
        self.answer(link, raw.transaction, answer, None);
    }

    fn answer(&mut self, link: &Link<'_>, transaction: u64, packet: Vec<u8>, later: Option<Wait>) {
        let (delay, reversed) = (self.config.delay, self.config.reversed);
        let lane = self.lane(link);
        let due = lane.clock + delay;
        let pending = Pending {
            transaction,
            packet,
            due,
            later,
        };
        match reversed {
            true => lane.pending.push_front(pending),
            false => lane.pending.push_back(pending),
        }
    }

    /// Has the first channel's answers be those of another, if that is due.
    fn exchange_answers(&mut self, link: &Link<'_>) {
        if !self.lane(link).pending.is_empty() && link.offences.take(HvOffence::CompletesElsewhere)
        {
            let taken = std::mem::take(&mut self.lane(link).pending);
            self.lanes.entry(0).or_default().pending.extend(taken);
        }
    }

    fn send_answers(&mut self, link: &mut Link<'_>) -> bool {
        let is_io = self.phase == Phase::Ready;
        let lane = self.lanes.entry(link.number).or_default();
        let mut any = false;
        if lane.blocked {
            return false;
        }
        let is_here = |pending: &mut Pending| pending.is_here(link.machine);
        while let Some(at) = lane.pending.iter_mut().position(is_here) {
            let next = &lane.pending[at];
            if next.due > lane.clock {
                return true;
            }
            if is_io && self.allowance == Some(0) {
                return any;
            }
            if !send_one(next, link, is_io) {
                lane.blocked = true;
                return any;
            }
            if let Some(left) = self.allowance.as_mut().filter(|_| is_io) {
                *left -= 1;
            }
            lane.pending.remove(at);
            any = true;
        }
        any
    }

    fn send_notices(&mut self, link: &mut Link<'_>) -> bool {
        if self.phase != Phase::Ready {
            return false;
        }
        if link.offences.take(HvOffence::UnknownNotice) {
            self.notices.push_back(77);
        }
        let Some(operation) = self.notices.pop_front() else {
            return false;
        };
        let mut packet = vec![0; self.version.map_or(64, Version::packet_bytes)];
        packet[..4].copy_from_slice(&operation.to_le_bytes());
        link.send(IN_BAND, 0, &packet)
    }
}

/// Sends an answer, as wrong as is due.
fn send_one(pending: &Pending, link: &mut Link<'_>, is_io: bool) -> bool {
    let offences = link.offences;
    let due = |offence| is_io && offences.take(offence);
    let mut packet = pending.packet.clone();
    let mut packet_type = COMPLETION;
    if due(HvOffence::CompletionTooShort) {
        packet.truncate(32);
    }
    if due(HvOffence::PacketTooLong) {
        packet.resize(2048, 0);
    }
    if due(HvOffence::WrongOperation) {
        packet[0] = 9;
    }
    if due(HvOffence::TransferPages) {
        packet_type = 7;
    }
    if due(HvOffence::UnknownPacket) {
        packet_type = 200;
    }
    let transaction = match due(HvOffence::UnknownTransaction) {
        true => 0xdead_beef,
        false => pending.transaction,
    };
    let twice = due(HvOffence::DoubledCompletion);
    let sent = link.send(packet_type, transaction, &packet);
    if sent && twice {
        link.send(packet_type, transaction, &packet);
    }
    sent
}

/// The answer to a request; moves its data.
fn result(
    request: &[u8],
    version: Version,
    transfer: usize,
    outcome: Option<Outcome>,
    buffer: Option<&Buffer>,
    link: &mut Link<'_>,
) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer[..12].fill(0);
    answer[0] = 1;
    answer[28..48].fill(0);
    let Some(outcome) = outcome else {
        answer[14] = 0x20;
        answer[21] = 0;
        answer[24..28].fill(0);
        return answer;
    };
    let mut moved = outcome.taken;
    if let Some(buffer) = buffer.filter(|_| request[22] == 1 && !outcome.data.is_empty()) {
        moved = outcome.data.len().min(transfer);
        buffer.fill(&outcome.data[..moved], link.machine);
    }
    let offences = link.offences;
    if transfer > 0 && offences.take(HvOffence::MovesTooMuch) {
        moved = transfer + 1;
    }
    if request[22] == 0 && transfer > 0 && offences.take(HvOffence::MovesTooLittle) {
        moved = transfer - 1;
    }
    let mut sense = outcome.sense;
    if !sense.is_empty() {
        if offences.take(HvOffence::SenseUnknown) {
            sense[0] = 0x55;
        }
        if offences.take(HvOffence::SenseTooShort) {
            sense.truncate(1);
        }
    }
    let room = version.sense_bytes().min(sense.len());
    answer[28..28 + room].copy_from_slice(&sense[..room]);
    answer[14] = match (outcome.status, sense.is_empty()) {
        (0, _) => 0x01,
        (_, false) => 0x84,
        (_, true) => 0x04,
    };
    if offences.has(HvOffence::SaysFailed) && answer[14] == 0x01 {
        answer[14] = 0x04;
    }
    if offences.take(HvOffence::UnknownSrbStatus) {
        answer[14] = 0x3b;
    }
    answer[15] = outcome.status;
    answer[21] = room as u8;
    if offences.take(HvOffence::SenseTooLong) {
        (answer[14], answer[15], answer[21]) = (0x84, 2, 0x3f);
    }
    answer[24..28].copy_from_slice(&(moved as u32).to_le_bytes());
    answer
}
