//! What comes back on a controller's channels, and asking for events.

use super::link::{EVENT_CREDIT, InFlight, Link, Own, Waiter};
use super::offence::Offence;
use super::packet;
use super::port::Port;
use crate::hal::Hal;
use crate::wire::ring::PacketType;
use crate::wire::vstor::Operation;

impl<H: Hal> Link<H> {
    /// Takes up to `budget` packets and puts what they say into the boxes; how
    /// many there were.
    pub(super) fn reap(&mut self, budget: usize) -> Result<usize, Offence> {
        self.mask();
        let mut taken = 0;
        loop {
            // Another one first each time, for the sake of small budgets.
            self.first = (self.first + 1) % self.ports.len();
            for step in 0..self.ports.len() {
                let at = (self.first + step) % self.ports.len();
                taken += self.reap_port(at, budget - taken)?;
            }
            if !self.watch_if_idle()? || taken >= budget {
                break;
            }
        }
        let earned = u32::try_from(taken).unwrap_or(u32::MAX);
        self.event_credit = self.event_credit.saturating_add(earned).min(EVENT_CREDIT);
        Ok(taken)
    }

    /// The same of one channel. Only the first has something to take when nothing
    /// is in flight on it.
    fn reap_port(&mut self, at: usize, budget: usize) -> Result<usize, Offence> {
        if at > 0 && self.ports[at].in_flight == 0 {
            return Ok(0);
        }
        let mut taken = 0;
        while taken < budget && self.take_packet(at)? {
            taken += 1;
        }
        self.ports[at].commit();
        Ok(taken)
    }

    fn take_packet(&mut self, at: usize) -> Result<bool, Offence> {
        let number = self.ports[at].number();
        let Some(packet) = self.ports[at].channel.ring.receive.take()? else {
            return Ok(false);
        };
        match packet.packet_type {
            PacketType::COMPLETION => {}
            PacketType::IN_BAND => {
                match packet::operation(packet.data) {
                    Operation::ENUMERATE_BUS
                    | Operation::REMOVE_DEVICE
                    | Operation::EVENT_NOTIFICATION => self.look_again = true,
                    other => return Err(Offence::UnknownNotice(other)),
                }
                return Ok(true);
            }
            other => return Err(Offence::UnknownPacket(other)),
        }
        let slot = self.slots.resolve(packet.transaction)?;
        let Some(waits) = self.slots.waits_for(slot).copied() else {
            return Err(Offence::StaleId(packet.transaction));
        };
        let InFlight { waiter, asked, .. } = waits;
        if waits.port != number {
            return Err(Offence::WrongChannel(number));
        }
        match (waiter, self.version) {
            (
                Waiter::Own {
                    ticket,
                    scsi: false,
                },
                version,
            ) => {
                let answer = packet::answer(packet.data, version)?;
                self.own.insert(ticket, Own::Answer(answer));
            }
            (Waiter::Own { ticket, .. }, Some(version)) => {
                let ended = packet::ended(packet.data, version, asked)?;
                self.own.insert(ticket, Own::Ended(ended));
            }
            (Waiter::Disk { inbox, piece }, Some(version)) => {
                let ended = packet::ended(packet.data, version, asked)?;
                self.pieces = self.pieces.saturating_sub(1);
                if let Some(inbox) = self.inboxes.get_mut(inbox) {
                    inbox.push_back((piece, ended));
                }
            }
            (Waiter::Nobody, version) => drop(packet::answer(packet.data, version)?),
            (_, None) => return Err(Offence::StaleId(packet.transaction)),
        }
        self.slots.finish(slot);
        let port = &mut self.ports[at];
        port.in_flight = port.in_flight.saturating_sub(1);
        Ok(true)
    }

    /// Asks for an event where nothing of a disk is in flight: the host has news of
    /// its own, or the control path waits. Whether there is some already.
    fn watch_if_idle(&mut self) -> Result<bool, Offence> {
        Ok(self.interrupts && self.pieces == 0 && self.ports[0].arm()?)
    }

    pub(super) fn mask(&mut self) {
        self.ports.iter_mut().for_each(Port::mask);
    }

    /// Asks for an event at the next packet; whether there is one already. A
    /// controller without interrupts has always something to look at.
    pub(super) fn arm(&mut self) -> Result<bool, Offence> {
        let mut any = !self.interrupts;
        for (at, port) in self.ports.iter_mut().enumerate() {
            // On the others comes only what was asked for.
            if self.interrupts && (at == 0 || port.in_flight > 0) {
                any |= port.arm()?;
            }
        }
        Ok(any)
    }

    /// Whether a channel's flag was set, which costs something if there is no
    /// packet.
    pub(super) fn take_event(&mut self) -> Result<Option<bool>, Offence> {
        let mut found = None;
        for port in &mut self.ports {
            if !port.channel.take_event() {
                continue;
            }
            let empty = !port.channel.ring.receive.has_packets()?;
            if empty {
                let left = self.event_credit.checked_sub(1);
                self.event_credit = left.ok_or(Offence::EventStorm)?;
            }
            found = Some(empty && found.unwrap_or(true));
        }
        if found == Some(false) && self.pieces == 0 {
            // News of the host's own, or the control path's: nobody polls for it.
            self.reap(usize::MAX)?;
        }
        Ok(found)
    }
}
