//! One service's channel, from the offer to its end.

use super::{Error, Offence, Service, Services, State, message};
use crate::hal::Hal;
use crate::vmbus::{Channel, ChannelConfig, Offer};
use crate::wire::ic::Version;
use crate::wire::ring::PacketType;
use core::time::Duration;
use firn_task::{race, timeout_at, yield_now};

/// The rings are small: one packet follows another. A request to stop has a text
/// of two thousand bytes.
const CHANNEL: ChannelConfig = ChannelConfig {
    ring_pages: 4,
    interrupts: true,
    longest: 4096,
};
/// Packets that are answered before others have their turn.
const BATCH: usize = 16;
/// How long the host may leave its ring full.
const PATIENCE: Duration = Duration::from_secs(10);

impl<H: Hal> Services<H> {
    /// Serves a service whenever it is offered, until the host breaks a rule.
    pub(super) async fn follow(&self, service: Service) {
        loop {
            let offer = self.wait_for_offer(service).await;
            self.set_state(service, State::Changing);
            match self.open_and_serve(service, offer.relid).await {
                Ok(()) => self.set_state(service, State::Closed),
                Err(error) => {
                    log::error!("{service}: {error}");
                    return self.set_state(service, State::Failed(error));
                }
            }
        }
    }

    async fn wait_for_offer(&self, service: Service) -> Offer {
        loop {
            let (seen, changed) = (self.bus.changed().seen(), self.changed.seen());
            let ours = |offer: &Offer| offer.class == service.class() && offer.subchannel == 0;
            let found = self.bus.offers().into_iter().find(ours);
            if let Some(offer) = found.filter(|_| !self.held.get()) {
                return offer;
            }
            let news = race(
                self.bus.changed().changed(seen),
                self.changed.changed(changed),
            );
            news.await;
        }
    }

    async fn open_and_serve(&self, service: Service, relid: u32) -> Result<(), Error> {
        let mut channel = Channel::open(&self.bus, relid, CHANNEL).await?;
        self.set_state(service, State::Open(None));
        let served = self.serve(service, &mut channel).await;
        self.set_state(service, State::Changing);
        let closed = channel.close().await;
        served.and(closed.map_err(Error::from))
    }

    /// Answers until the channel is to be closed.
    async fn serve(&self, service: Service, channel: &mut Channel<H>) -> Result<(), Error> {
        let events = channel.events();
        let mut version = None;
        loop {
            let (fired, seen) = (events.seen(), self.bus.changed().seen());
            let changed = self.changed.seen();
            if self.held.get() || channel.is_rescinded() {
                return Ok(());
            }
            self.bus.check()?;
            let _ = channel.take_event();
            if self.answer_some(service, channel, &mut version).await? {
                yield_now().await;
                continue;
            }
            let others = race(
                self.bus.changed().changed(seen),
                self.changed.changed(changed),
            );
            race(events.changed(fired), others).await;
        }
    }

    /// Answers what is there, up to a number; whether there may be more.
    async fn answer_some(
        &self,
        service: Service,
        channel: &mut Channel<H>,
        version: &mut Option<Version>,
    ) -> Result<bool, Error> {
        for _ in 0..BATCH {
            let Some(packet) = channel.ring.receive.take()? else {
                return Ok(false);
            };
            if packet.packet_type != PacketType::IN_BAND {
                return Err(Offence::UnknownPacket(packet.packet_type).into());
            }
            let (transaction, hibernates) = (packet.transaction, self.hibernates.get());
            let (news, reply) = message::answer(service, *version, hibernates, packet.data)?;
            if channel.ring.receive.commit() {
                wake(service, channel);
            }
            // The answer comes first: what follows may be the guest's end.
            self.send(service, channel, transaction, &reply).await?;
            if let message::News::Version(agreed) = news {
                *version = agreed;
            }
            self.note(service, news);
        }
        Ok(true)
    }

    async fn send(
        &self,
        service: Service,
        channel: &mut Channel<H>,
        transaction: u64,
        reply: &[u8],
    ) -> Result<(), Error> {
        let hv = &self.bus.hv;
        let (events, until) = (channel.events(), hv.hal.now() + PATIENCE);
        loop {
            let fired = events.seen();
            let ring = &mut channel.ring.send;
            if ring.push(PacketType::IN_BAND, 0, transaction, &[], reply)? {
                if ring.publish()? {
                    wake(service, channel);
                }
                return Ok(());
            }
            if hv.hal.now() >= until || channel.is_rescinded() {
                return Err(Offence::NoRoom.into());
            }
            // At the deadline, one more try.
            let _ = timeout_at(&**hv, until, events.changed(fired)).await;
        }
    }
}

fn wake<H: Hal>(service: Service, channel: &Channel<H>) {
    if let Err(status) = channel.signal() {
        log::warn!("{service}: the host takes no signal: {status}");
    }
}
