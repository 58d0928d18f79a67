//! What a device's server needs of its channel and of the machine.

use super::ic::IcHost;
use super::machine::HvMachine;
use super::offence::HvOffence;
use super::ring::HostRing;
use super::storvsp::Storvsp;
use std::cell::RefCell;
use std::rc::Rc;

/// What is behind a channel; clones are the same device.
#[derive(Clone)]
pub(super) enum Device {
    Storvsp(Storvsp),
    Service(IcHost),
}

impl Device {
    /// What kind of device it is.
    pub(super) fn class(&self) -> [u8; 16] {
        match self {
            Self::Storvsp(_) => SCSI,
            Self::Service(service) => service.class(),
        }
    }

    /// What tells it from others.
    pub(super) fn instance(&self) -> [u8; 16] {
        match self {
            Self::Storvsp(storvsp) => storvsp.instance(),
            Self::Service(service) => service.instance(),
        }
    }

    pub(super) fn opened(&self, number: u16) {
        match self {
            Self::Storvsp(storvsp) => storvsp.opened(number),
            Self::Service(service) => service.opened(),
        }
    }

    pub(super) fn closed(&self, number: u16) {
        match self {
            Self::Storvsp(storvsp) => storvsp.closed(number),
            Self::Service(service) => service.closed(),
        }
    }

    pub(super) fn serve(&self, link: &mut Link<'_>) -> bool {
        match self {
            Self::Storvsp(storvsp) => storvsp.serve(link),
            Self::Service(service) => service.serve(link),
        }
    }

    /// Most further channels that it says there may be.
    pub(super) fn most_subchannels(&self) -> u16 {
        match self {
            Self::Storvsp(storvsp) => storvsp.most_subchannels(),
            Self::Service(_) => 0,
        }
    }

    /// Further channels that it has made since this was last asked.
    pub(super) fn take_made(&self, offences: &Offences) -> Vec<u16> {
        match self {
            Self::Storvsp(storvsp) if !offences.has(HvOffence::LateSubchannels) => {
                storvsp.take_made()
            }
            _ => Vec::new(),
        }
    }
}

const SCSI: [u8; 16] = [
    0xd9, 0x63, 0x61, 0xba, 0xa1, 0x04, 0x29, 0x4d, 0xb6, 0x05, 0x72, 0xe2, 0xff, 0xb1, 0xdc, 0x7f,
];

/// What the host does wrong; shared by all of its parts.
#[derive(Clone, Default)]
pub(super) struct Offences(Rc<RefCell<Vec<HvOffence>>>);

impl Offences {
    pub(super) fn add(&self, offence: HvOffence) {
        self.0.borrow_mut().push(offence);
    }

    pub(super) fn remove(&self, offence: HvOffence) {
        self.0.borrow_mut().retain(|other| *other != offence);
    }

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    pub(super) fn has(&self, offence: HvOffence) -> bool {
        self.0.borrow().contains(&offence)
    }

    /// Whether it is to be done now; then it is not done again.
    pub(super) fn take(&self, offence: HvOffence) -> bool {
        let mut all = self.0.borrow_mut();
        let at = all.iter().position(|other| *other == offence);
        at.map(|at| all.remove(at)).is_some()
    }
}

/// An open channel.
pub(super) struct HostChannel {
    pub(super) gpadl: u32,
    pub(super) ring: HostRing,
    /// Whether the guest wants interrupts at all.
    pub(super) interrupts: bool,
    /// The guest signalled, and its ring was not found empty since.
    pub(super) awake: bool,
}

/// A server's way to its guest.
pub(super) struct Link<'a> {
    pub(super) machine: &'a HvMachine,
    pub(super) channel: &'a mut HostChannel,
    /// Which of the device's channels it is; zero is the first.
    pub(super) number: u16,
    pub(super) relid: u32,
    pub(super) offences: &'a Offences,
    pub(super) complaints: &'a mut Vec<String>,
}

impl Link<'_> {
    /// Sends a packet and signals if the guest asks for that. Whether there was
    /// room.
    pub(super) fn send(&mut self, packet_type: u16, transaction: u64, data: &[u8]) -> bool {
        let noise = &self.machine.noise;
        let mut shape = self.shape(data.len());
        if noise.strikes(20) {
            shape = Some([noise.below(20) as u16, noise.below(300) as u16]);
        }
        let mut data = data.to_vec();
        noise.spoil(&mut data);
        let mut head = [0; 10];
        head[..8].copy_from_slice(&transaction.to_le_bytes());
        head[8..].copy_from_slice(&packet_type.to_le_bytes());
        noise.spoil(&mut head);
        let (id, kind) = head.split_at(8);
        let transaction = super::bytes::u64_at(id, 0);
        let packet_type = super::bytes::u16_at(kind, 0);
        let data = data.as_slice();
        let sent = self
            .channel
            .ring
            .send(packet_type, transaction, data, shape);
        if sent == Some(true) {
            self.signal();
        }
        sent.is_some()
    }

    pub(super) fn signal(&self) {
        if self.channel.interrupts {
            self.machine.ring(self.relid);
        }
    }

    /// A descriptor that lies, if one is due.
    fn shape(&self, bytes: usize) -> Option<[u16; 2]> {
        let len8 = 2 + bytes.div_ceil(8) as u16;
        let shapes = [
            (HvOffence::PacketHeadShort, [1, len8]),
            (HvOffence::PacketHeadLong, [len8 + 1, len8]),
            (HvOffence::PacketTorn, [2, len8 + 40]),
        ];
        let due = shapes.into_iter().find(|(o, _)| self.offences.take(*o));
        due.map(|(_, shape)| shape)
    }

    /// Indices that cannot be, if some are due.
    pub(super) fn spoil_indices(&self) {
        let ring = &self.channel.ring;
        let (write, read) = (ring.write_index(), ring.read_index());
        let (outgoing, incoming) = (ring.outgoing_size(), ring.incoming_size());
        let noise = &self.machine.noise;
        if noise.strikes(40) {
            ring.pretend_write(noise.below(2 * outgoing as usize) as u32);
        }
        if noise.strikes(40) {
            ring.pretend_read(noise.below(2 * incoming as usize) as u32);
        }
        if self.offences.has(HvOffence::WriteIndexOutside) {
            ring.pretend_write(outgoing);
        }
        if self.offences.has(HvOffence::WriteIndexOdd) {
            ring.pretend_write(write + 4);
        }
        for (offence, index) in [
            (HvOffence::ReadIndexOutside, incoming),
            (HvOffence::ReadIndexOdd, read + 1),
            (HvOffence::ReadIndexRunsAway, (read + 4096) % incoming),
        ] {
            if self.offences.has(offence) {
                ring.pretend_read(index);
            }
        }
    }
}
