//! Versions, and the end of a connection.

use super::State;
use crate::hyperv::bytes::{message, u32_at, u64_at};
use crate::hyperv::offence::HvOffence;
use firn_hyperv::Hal;
use firn_hyperv::wire::vmbus::Version;

impl State {
    pub(super) fn contact(&mut self, connection: u32, request: &[u8]) {
        let version = Version(u32_at(request, 8));
        let new = version >= Version::V5_0;
        if connection != if new { 4 } else { 1 } {
            self.complain(format!("contact at {version} by connection {connection}"));
        }
        if self.version.is_some() || self.spent {
            return self.complain("contact while connected");
        }
        if u64_at(request, 24) == 0 || u64_at(request, 32) == 0 {
            self.complain("no monitor pages");
        }
        self.monitor = u64_at(request, 32) >> 12;
        if new && u64_at(request, 16) & 0xff != 2 {
            self.complain("messages by another source than 2");
        }
        if self.offences.has(HvOffence::NeverAnswersContact) {
            return;
        }
        let speaks = (self.config.oldest..=self.config.newest).contains(&version)
            && !self.offences.has(HvOffence::SpeaksNothing);
        let state = u8::from(self.offences.take(HvOffence::NotConnectable));
        let mut answer = message(15, &[]);
        answer.extend([u8::from(speaks), state]);
        if !self.config.short_answers || (new && speaks) {
            answer.extend([0, 0]);
            let connection = match new && speaks {
                true if self.offences.take(HvOffence::ZeroConnectionId) => 0,
                true => self.config.message_connection,
                false => 0,
            };
            answer.extend(connection.to_le_bytes());
        }
        if speaks && new {
            let mut ports = self.machine.ports.borrow_mut();
            ports.insert(self.config.message_connection);
            answer = self.cut(answer, HvOffence::NoConnectionId, 10);
        }
        if speaks && state == 0 {
            self.version = Some(version);
            self.generation += 1;
        }
        let answer = self.cut(answer, HvOffence::VersionTooShort, 9);
        self.answer(answer, HvOffence::VersionTwice);
    }

    pub(super) fn unload(&mut self, version: Version) {
        if version < Version::V3_0 {
            self.complain("unload at 2.4");
        }
        if self.slots.iter().any(|slot| slot.channel.is_some()) {
            self.complain("unload with open channels");
        }
        if !self.offences.has(HvOffence::NeverUnloads) {
            self.unloading = Some(self.machine.now() + self.config.unload);
        }
    }

    /// Comes nearer to the end of a connection.
    pub(super) fn unload_step(&mut self) -> bool {
        if self.unloading.is_none_or(|at| at > self.machine.now()) {
            return false;
        }
        self.unloading = None;
        for slot in self.slots.iter_mut() {
            slot.channel = None;
            slot.device.closed(slot.number);
            slot.relid = 0;
            slot.rescinded = false;
            slot.asked = false;
        }
        self.slots.forget_further();
        for (_, gpadl) in std::mem::take(&mut self.gpadls) {
            gpadl.share(&self.machine, false);
        }
        self.machine.bells.borrow_mut().clear();
        let port = self.config.message_connection;
        self.machine.ports.borrow_mut().remove(&port);
        self.machine.drop_messages();
        self.version = None;
        self.send(message(17, &[]));
        true
    }
}
