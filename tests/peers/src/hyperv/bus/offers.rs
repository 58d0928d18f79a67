//! Offers, and taking them back.

use super::State;
use crate::hyperv::bytes::message;
use crate::hyperv::offence::HvOffence;

impl State {
    pub(super) fn all_offers(&mut self) {
        for index in 0..self.slots.len() {
            if !self.slots[index].hidden {
                self.offer(index);
            }
        }
        self.odd_messages();
        if !self.offences.has(HvOffence::NeverDeliversOffers) {
            self.answer(message(4, &[]), HvOffence::AllOffersTwice);
        }
    }

    /// Messages that no host sends, if some are due.
    fn odd_messages(&mut self) {
        if self.offences.take(HvOffence::MessageTooLong) {
            self.machine.send(241, message(4, &[]));
        }
        if self.offences.take(HvOffence::MessageWithoutHead) {
            self.send(vec![1, 0, 0, 0]);
        }
        for (offence, kind, words) in [
            (HvOffence::UnknownMessage, 99, vec![]),
            (HvOffence::GuestMessage, 5, vec![0; 35]),
            (HvOffence::UnloadUnasked, 17, vec![]),
            (HvOffence::RescindsUnknown, 2, vec![1999]),
        ] {
            if self.offences.take(offence) {
                self.send(message(kind, &words));
            }
        }
    }

    /// Offers a device, under a number of this connection's.
    pub(super) fn offer(&mut self, index: usize) {
        let free = |relid: &u32| self.slots.iter().all(|slot| slot.relid != *relid);
        let first = self.config.first_relid + 17 * self.generation;
        let relid = (first..).find(free).unwrap_or(first);
        let connection = 0x2_0000 + 0x100 * self.generation + relid;
        self.machine.bells.borrow_mut().insert(connection);
        let slot = &mut self.slots[index];
        (slot.relid, slot.connection, slot.rescinded) = (relid, connection, false);
        let offer = self.offer_message(index, relid, connection);
        if self.offences.take(HvOffence::RelidZero) {
            return self.send(self.offer_message(index, 0, connection));
        }
        if self.offences.take(HvOffence::RelidTooHigh) {
            return self.send(self.offer_message(index, 2048, connection));
        }
        if self.offences.take(HvOffence::OfferWithoutConnection) {
            return self.send(self.offer_message(index, relid, 0));
        }
        let offer = self.cut(offer, HvOffence::OfferTooShort, 195);
        self.answer(offer, HvOffence::OffersTwice);
        if self.offences.take(HvOffence::InstanceTwice) {
            self.send(self.offer_message(index, relid + 1000, connection));
        }
    }

    fn offer_message(&self, index: usize, relid: u32, connection: u32) -> Vec<u8> {
        let mut offer = message(1, &[0; 47]);
        offer[8..24].copy_from_slice(&self.slots[index].device.class());
        offer[24..40].copy_from_slice(&self.slots[index].device.instance());
        offer[184..188].copy_from_slice(&relid.to_le_bytes());
        offer[190] = u8::from(self.config.dedicated);
        offer[192..196].copy_from_slice(&connection.to_le_bytes());
        offer
    }

    /// Takes a device's offer back; its channel is of no use from here on.
    pub(super) fn rescind(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if slot.relid == 0 || slot.rescinded {
            return;
        }
        slot.rescinded = true;
        slot.hidden = true;
        if slot.channel.take().is_some() {
            slot.device.closed();
        }
        let relid = slot.relid;
        self.drop_memory_of(relid);
        self.answer(message(2, &[relid]), HvOffence::RescindsTwice);
        if self.offences.take(HvOffence::OffersTooEarly) {
            let connection = self.slots[index].connection;
            self.send(self.offer_message(index, relid, connection));
        }
    }

    /// The guest gives a number back.
    pub(super) fn released(&mut self, relid: u32) {
        let Some(index) = self.slot_of(relid) else {
            return;
        };
        if !self.slots[index].rescinded {
            return self.complain(format!("relid {relid} was not rescinded"));
        }
        let connection = self.slots[index].connection;
        self.machine.bells.borrow_mut().remove(&connection);
        self.slots[index].relid = 0;
        self.slots[index].rescinded = false;
    }
}
