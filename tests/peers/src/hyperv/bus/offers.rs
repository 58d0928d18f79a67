//! Offers, and taking them back.

use super::State;
use crate::hyperv::bytes::message;
use crate::hyperv::offence::HvOffence;

impl State {
    pub(super) fn all_offers(&mut self) {
        for index in self.slots.devices() {
            if !self.slots[index].hidden {
                self.offer(index);
            }
            if self.offences.has(HvOffence::SubchannelsEarly) {
                let most = self.slots[index].device.most_subchannels();
                self.offer_further(index, (1..=most).collect());
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

    /// Offers further channels of a device, but for those that stand already.
    pub(super) fn offer_further(&mut self, owner: usize, numbers: Vec<u16>) {
        for number in numbers {
            let mut standing = self.slots.of(owner).into_iter();
            if !standing.any(|index| self.slots[index].number == number) {
                let index = self.slots.further(owner, number);
                self.offer(index);
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
        if self.slots[index].number > 0 {
            self.odd_subchannels(index, relid, connection);
        }
    }

    /// Offers of further channels that no host makes, if some are due.
    fn odd_subchannels(&self, index: usize, relid: u32, connection: u32) {
        if self.offences.take(HvOffence::SubchannelTwice) {
            self.send(self.offer_message(index, relid + 1000, connection));
        }
        if self.offences.take(HvOffence::SubchannelBeyond) {
            let mut offer = self.offer_message(index, relid + 500, connection);
            offer[180] = 77;
            self.send(offer);
        }
    }

    fn offer_message(&self, index: usize, relid: u32, connection: u32) -> Vec<u8> {
        let mut offer = message(1, &[0; 47]);
        offer[8..24].copy_from_slice(&self.slots[index].device.class());
        offer[24..40].copy_from_slice(&self.slots[index].device.instance());
        offer[180..182].copy_from_slice(&self.slots[index].number.to_le_bytes());
        offer[184..188].copy_from_slice(&relid.to_le_bytes());
        // The highest bits are in the last group.
        let bit = 127 - (relid % 128) as u8;
        let too_high = self.offences.take(HvOffence::MonitorTooHigh);
        offer[188] = if too_high { 128 } else { bit };
        offer[189] = u8::from(self.config.monitors || too_high);
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
            slot.device.closed(slot.number);
        }
        let relid = slot.relid;
        self.drop_memory_of(relid);
        self.answer(message(2, &[relid]), HvOffence::RescindsTwice);
        if self.offences.take(HvOffence::OffersTooEarly) {
            let connection = self.slots[index].connection;
            self.send(self.offer_message(index, relid, connection));
        }
        self.rescind_further(index);
    }

    /// The first channel is closed or taken back: so are the others.
    pub(super) fn rescind_further(&mut self, owner: usize) {
        if !self.offences.has(HvOffence::KeepsSubchannels) {
            let further = self.slots.of(owner).into_iter();
            further.for_each(|index| self.rescind(index));
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
