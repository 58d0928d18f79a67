//! One of a controller's channels, and what is in flight on it.

use super::offence::Offence;
use crate::hal::Hal;
use crate::vmbus::Channel;

/// So many more packets than on the least busy channel may be in flight on the one
/// that was used last, before another is taken: a few at a time, so that a batch
/// costs a signal for each channel and not one for each packet.
const RUN: usize = 4;

/// A channel with its end of the rings.
pub(super) struct Port<H: Hal> {
    pub(super) channel: Channel<H>,
    /// Packets on it without an answer.
    pub(super) in_flight: usize,
    masked: bool,
    /// A signal that the host did not take.
    owes_signal: bool,
}

impl<H: Hal> Port<H> {
    /// Over an open channel; the host is asked for no events.
    pub(super) fn new(channel: Channel<H>) -> Self {
        channel.ring.receive.mask();
        Self {
            channel,
            in_flight: 0,
            masked: true,
            owes_signal: false,
        }
    }

    /// Which of the controller's channels it is; zero is the first.
    pub(super) const fn number(&self) -> u16 {
        self.channel.offer().subchannel
    }

    /// Asks the host for no events.
    pub(super) fn mask(&mut self) {
        if !core::mem::replace(&mut self.masked, true) {
            self.channel.ring.receive.mask();
        }
    }

    /// Asks for an event at the next packet; whether there is one already.
    pub(super) fn arm(&mut self) -> Result<bool, Offence> {
        self.masked = false;
        Ok(self.channel.ring.receive.unmask()?)
    }

    /// Shows the host what was pushed; whether it was to be signalled.
    pub(super) fn publish(&mut self) -> Result<bool, Offence> {
        let due = self.channel.ring.send.publish()? || self.owes_signal;
        if due {
            self.signal();
        }
        Ok(due)
    }

    /// Gives the room of what was taken back to the host.
    pub(super) fn commit(&mut self) {
        if self.channel.ring.receive.commit() || self.owes_signal {
            self.signal();
        }
    }

    fn signal(&mut self) {
        self.owes_signal = self.channel.signal().is_err();
    }
}

/// Which channel the next packet goes on, after one on `last`: the one with the
/// fewest in flight, as soon as that is worth a change.
pub(super) fn next<H: Hal>(ports: &[Port<H>], last: usize) -> usize {
    let busy = |at: usize| ports.get(at).map_or(usize::MAX, |port| port.in_flight);
    let least = (0..ports.len()).min_by_key(|at| busy(*at)).unwrap_or(0);
    if busy(last) >= busy(least).saturating_add(RUN) {
        least
    } else {
        last
    }
}
