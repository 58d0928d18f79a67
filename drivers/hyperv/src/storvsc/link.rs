//! A controller's channels with what is in flight on them. Its disks share them: each
//! has a box for the ends of its own requests.

use super::offence::Offence;
use super::packet::{self, Answer, Direction, Ended};
use super::port::{self, Port};
use crate::hal::Hal;
use crate::machine::HyperV;
use crate::vmbus::Channel;
use crate::wire::ring::{COMPLETION_REQUESTED, GpaDirect, PacketType, Range};
use crate::wire::vstor::{PACKET, Version};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use firn_block::PAGE;
use firn_block::shm::Region;
use firn_block::slots::Slots;
use firn_scsi::{Cdb, Condition, UNMAP_BYTES};
use firn_task::{Few, Instant, Signal};

/// Events without work that are forgiven at once, and the most that can be saved
/// up: every completion may come with one.
pub(super) const EVENT_CREDIT: u32 = 1024;

/// Whose a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A disk's, by its box: a piece of an accepted request.
    Disk { inbox: usize, piece: Piece },
    /// The controller's own, by its ticket; a SCSI command or not.
    Own { ticket: u64, scsi: bool },
    /// Nobody's any more: of the handshake, and given up.
    Nobody,
}

/// A part of an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) parent: u16,
    /// Its first sector, counted from the request's.
    pub(super) first: u64,
    pub(super) sectors: u64,
    /// How often it was sent before.
    pub(super) tries: u8,
}

/// What a slot waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) waiter: Waiter,
    /// The channel that it went on, by its number.
    pub(super) port: u16,
    pub(super) asked: u32,
    since: Instant,
}

/// What came back to the controller itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Own {
    Answer(Answer),
    Ended(Ended),
}

/// A SCSI command to be sent.
pub(super) struct Command<'a> {
    pub(super) unit: u8,
    pub(super) cdb: Cdb,
    pub(super) way: Direction,
    /// Memory and range in it; `None` for no data.
    pub(super) data: Option<(&'a Region, usize, u32)>,
}

pub(super) struct Link<H: Hal> {
    hv: Rc<HyperV<H>>,
    /// The first channel, which alone has the handshake, the control path's packets
    /// and news of the host; then others for requests of disks.
    pub(super) ports: Vec<Port<H>>,
    /// The one that the last request of a disk went on.
    last: usize,
    /// The one that was looked at first the last time.
    pub(super) first: usize,
    pub(super) slots: Slots<InFlight>,
    /// Of those in flight, the ones that are disks': whoever waits for them polls,
    /// or asks for an event.
    pub(super) pieces: usize,
    /// `None` until it is agreed on.
    pub(super) version: Option<Version>,
    /// Ends of each disk's pieces.
    pub(super) inboxes: Vec<VecDeque<(Piece, Ended)>>,
    pub(super) own: Few<u64, Own>,
    next_ticket: u64,
    /// Words between a packet's descriptor and its data.
    head: Vec<u64>,
    /// Where lists of ranges for UNMAP lie, one for each slot.
    lists: Region,
    /// Disks came or went.
    pub(super) look_again: bool,
    pub(super) interrupts: bool,
    pub(super) event_credit: u32,
    pub(super) signals: u64,
}

impl<H: Hal> Link<H> {
    /// A link over an open channel, with `depth` packets in flight at most.
    /// `lists` is zeroed, and has room for that many lists.
    pub(super) fn new(
        hv: &Rc<HyperV<H>>,
        channel: Channel<H>,
        depth: u32,
        lists: Region,
        interrupts: bool,
    ) -> Self {
        let mut ports = Vec::with_capacity(1 + usize::from(super::MOST_SUBCHANNELS));
        ports.push(Port::new(channel));
        Self {
            hv: hv.clone(),
            ports,
            last: 0,
            first: 0,
            slots: Slots::new(depth, || ()),
            pieces: 0,
            version: None,
            inboxes: Vec::new(),
            own: Few::new(),
            next_ticket: 1,
            head: Vec::new(),
            lists,
            look_again: false,
            interrupts,
            event_credit: EVENT_CREDIT,
            signals: 0,
        }
    }

    /// Pages of lists that so many slots need; the last one stays zero.
    pub(super) const fn list_pages(depth: u32) -> usize {
        (depth as usize).div_ceil(PAGE / LIST) + 1
    }

    /// A box for one more disk, with room for everything that can be in flight,
    /// of requests of so many pages.
    pub(super) fn add_inbox(&mut self, depth: u32, pages: usize) -> usize {
        self.inboxes.push(VecDeque::with_capacity(depth as usize));
        self.head.reserve(pages + 2);
        self.inboxes.len() - 1
    }

    /// The next end of a disk's piece.
    pub(super) fn next_end(&mut self, inbox: usize) -> Option<(Piece, Ended)> {
        self.inboxes.get_mut(inbox)?.pop_front()
    }

    pub(super) fn has_ends(&self, inbox: usize) -> bool {
        self.inboxes.get(inbox).is_some_and(|ends| !ends.is_empty())
    }

    /// What came back for a ticket.
    pub(super) fn take_own(&mut self, ticket: u64) -> Option<Own> {
        self.own.remove(&ticket)
    }

    /// How much there is for the control path, which somebody else may have taken
    /// off the ring.
    pub(super) fn news(&self) -> usize {
        usize::from(self.look_again) + self.own.len()
    }

    pub(super) fn new_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    /// Bytes of a packet as the host knows them now.
    fn packet_bytes(&self) -> usize {
        self.version
            .map_or(super::EARLY_PACKET, Version::packet_bytes)
    }

    /// Sends a packet of the handshake; whether there was room.
    pub(super) fn send_plain(
        &mut self,
        packet: &[u8; PACKET],
        waiter: Waiter,
    ) -> Result<bool, Offence> {
        self.head.clear();
        self.push(PacketType::IN_BAND, packet, waiter, 0)
    }

    /// Sends a SCSI command; whether there was room.
    pub(super) fn send(&mut self, command: &Command<'_>, waiter: Waiter) -> Result<bool, Offence> {
        let Some(version) = self.version else {
            return Ok(false);
        };
        self.head.clear();
        let Some((region, offset, bytes)) = command.data else {
            let packet = packet::scsi(version, command.unit, &command.cdb, Direction::None, 0);
            return self.push(PacketType::IN_BAND, &packet, waiter, 0);
        };
        self.describe(region, offset, bytes);
        let packet = packet::scsi(version, command.unit, &command.cdb, command.way, bytes);
        self.push(PacketType::GPA_DIRECT, &packet, waiter, bytes)
    }

    /// Sends an UNMAP of one range; whether there was room.
    pub(super) fn send_unmap(
        &mut self,
        unit: u8,
        list: [u8; UNMAP_BYTES],
        waiter: Waiter,
    ) -> Result<bool, Offence> {
        let Some(version) = self.version else {
            return Ok(false);
        };
        let Some(slot) = self.slots.take() else {
            return Ok(false);
        };
        // The next one to be taken is this one.
        self.slots.put_back(slot);
        let at = usize::from(slot) * LIST;
        let lists = self.lists.alias();
        lists.copy_in(at, &list);
        self.head.clear();
        let bytes = UNMAP_BYTES as u32;
        self.describe(&lists, at, bytes);
        let cdb = Cdb::unmap(UNMAP_BYTES as u16);
        let packet = packet::scsi(version, unit, &cdb, Direction::Out, bytes);
        self.push(PacketType::GPA_DIRECT, &packet, waiter, bytes)
    }

    /// Sends a WRITE SAME of a block of zeros, of `bytes` bytes: a page at most.
    /// Whether there was room.
    pub(super) fn send_write_same(
        &mut self,
        unit: u8,
        cdb: Cdb,
        bytes: u32,
        waiter: Waiter,
    ) -> Result<bool, Offence> {
        let lists = self.lists.alias();
        let zeros = lists.len() - PAGE;
        let command = Command {
            unit,
            cdb,
            way: Direction::Out,
            data: Some((&lists, zeros, bytes)),
        };
        self.send(&command, waiter)
    }

    /// Lists the frames of some bytes.
    fn describe(&mut self, region: &Region, offset: usize, bytes: u32) {
        let direct = GpaDirect {
            reserved: 0,
            range_count: 1,
        };
        let range = Range {
            bytes,
            offset: (offset % PAGE) as u32,
        };
        self.head.push(zerocopy::transmute!(direct));
        self.head.push(zerocopy::transmute!(range));
        let end = offset + bytes as usize;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            self.head.push(self.hv.hal.gfn(region, page).0);
        }
    }

    fn push(
        &mut self,
        packet_type: PacketType,
        packet: &[u8; PACKET],
        waiter: Waiter,
        asked: u32,
    ) -> Result<bool, Offence> {
        let Some(slot) = self.slots.take() else {
            return Ok(false);
        };
        let since = self.hv.hal.now();
        let of_disk = matches!(waiter, Waiter::Disk { .. });
        if of_disk {
            self.last = port::next(&self.ports, self.last);
        }
        let packet = &packet[..self.packet_bytes()];
        let at = if of_disk { self.last } else { 0 };
        let port = &mut self.ports[at];
        let in_flight = InFlight {
            waiter,
            port: port.number(),
            asked,
            since,
        };
        let id = self.slots.start(slot, in_flight);
        let ring = &mut port.channel.ring.send;
        let pushed = ring.push(packet_type, COMPLETION_REQUESTED, id, &self.head, packet);
        if let Ok(true) = pushed {
            port.in_flight += 1;
            self.pieces += usize::from(of_disk);
        } else {
            self.slots.finish(slot);
        }
        Ok(pushed?)
    }

    /// Shows the host what was pushed, and signals if it asks for that. Whoever
    /// wants an event for what comes back of a disk asks for it.
    pub(super) fn kick(&mut self) -> Result<(), Offence> {
        if self.pieces > 0 {
            self.mask();
        }
        for port in &mut self.ports {
            self.signals += u64::from(port.publish()?);
        }
        Ok(())
    }

    /// Notified when the host signals by any of the channels.
    pub(super) fn events(&self) -> Rc<Signal> {
        self.ports[0].channel.events()
    }

    /// Whether the host has taken the controller back, or forgot the bus.
    pub(super) fn is_rescinded(&self) -> bool {
        self.ports[0].channel.is_rescinded()
    }

    /// How many channels there are.
    pub(super) const fn channels(&self) -> usize {
        self.ports.len()
    }

    /// Takes up a further channel, for requests of disks.
    pub(super) fn add_channel(&mut self, channel: Channel<H>) {
        channel.share_events(self.events());
        self.ports.push(Port::new(channel));
    }

    /// A further channel that the host has taken back, if there is one. What was in
    /// flight on it was aborted, as far as anybody can tell: its disks send it again.
    pub(super) fn take_lost(&mut self) -> Option<Channel<H>> {
        let is_lost = |port: &Port<H>| port.number() != 0 && port.channel.is_rescinded();
        let at = self.ports.iter().position(is_lost)?;
        let port = self.ports.remove(at);
        self.last = 0;
        for slot in self.slots.waiting() {
            let on_it = |waits: &&InFlight| waits.port == port.number();
            let Some(waits) = self.slots.waits_for(slot).filter(on_it).copied() else {
                continue;
            };
            self.slots.finish(slot);
            if let Waiter::Disk { inbox, piece } = waits.waiter {
                self.pieces = self.pieces.saturating_sub(1);
                if let Some(inbox) = self.inboxes.get_mut(inbox) {
                    inbox.push_back((piece, Ended::Bad(Condition::Aborted)));
                }
            }
        }
        Some(port.channel)
    }

    /// Nobody waits for the answer to a ticket any more.
    pub(super) fn forget(&mut self, ticket: u64) {
        for slot in self.slots.waiting() {
            if let Some(InFlight { waiter, .. }) = self.slots.waits_for_mut(slot)
                && matches!(waiter, Waiter::Own { ticket: of, .. } if *of == ticket)
            {
                *waiter = Waiter::Nobody;
            }
        }
    }

    /// Packets whose answer somebody waits for.
    pub(super) fn outstanding(&self) -> usize {
        let all = self.slots.iter().map(|(_, waits)| waits.waiter);
        all.filter(|waiter| *waiter != Waiter::Nobody).count()
    }

    /// Of the disks' pieces without an answer, when the oldest was sent, and how
    /// many there are.
    pub(super) fn late(&self) -> Option<(Instant, usize)> {
        let of_disks = |waits: &&InFlight| matches!(waits.waiter, Waiter::Disk { .. });
        let all = self.slots.iter().map(|(_, waits)| waits);
        let late = all.filter(of_disks).map(|waits| (waits.since, 1));
        late.reduce(|(one, count), (other, _)| (one.min(other), count + 1))
    }

    /// The pieces of a disk that have no answer.
    pub(super) fn pieces_of(&self, inbox: usize) -> Vec<Piece> {
        let of_disk = |(_, waits): (u16, &InFlight)| match waits.waiter {
            Waiter::Disk { inbox: of, piece } if of == inbox => Some(piece),
            _ => None,
        };
        self.slots.iter().filter_map(of_disk).collect()
    }

    /// Gives up its parts: the channels, the first one first, and the memory of
    /// lists.
    pub(super) fn into_parts(self) -> (Vec<Channel<H>>, Region) {
        let channels = self.ports.into_iter().map(|port| port.channel);
        (channels.collect(), self.lists)
    }
}

/// Room for a list of ranges; it lies within a page.
const LIST: usize = 32;
const _: () = assert!(UNMAP_BYTES <= LIST && PAGE.is_multiple_of(LIST));
