//! Packets to and from storvsp.

use super::offence::Offence;
use crate::wire::vstor::PACKET;
use crate::wire::vstor::{
    CreatePacket, Header, Operation, PropertiesPacket, QUEUE_FROZEN, QUEUE_TAG, REQUEST_COMPLETION,
    SENSE, SENSE_VALID, SIMPLE_TAG, SUPPORTS_MULTI_CHANNEL, ScsiPacket, SrbStatus, Status, Version,
    VersionPacket, direction, srb_flags,
};
use firn_scsi::{Cdb, Condition, Sense, SenseError};
use zerocopy::{FromBytes, FromZeros, transmute};

/// In seconds, as the host is told; it makes its own rules.
const HOST_TIMEOUT: u32 = 60;

/// Which way data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
    None,
}

/// A packet of an operation, without anything else.
pub(super) fn plain(operation: Operation) -> [u8; PACKET] {
    let mut packet = VersionPacket::new_zeroed();
    packet.header = header(operation);
    transmute!(packet)
}

/// A packet that proposes a version.
pub(super) fn propose(version: Version) -> [u8; PACKET] {
    let mut packet = VersionPacket::new_zeroed();
    packet.header = header(Operation::QUERY_PROTOCOL_VERSION);
    packet.version = version.0;
    transmute!(packet)
}

/// A packet that asks for further channels.
pub(super) fn create(count: u16) -> [u8; PACKET] {
    let mut packet = CreatePacket::new_zeroed();
    packet.header = header(Operation::CREATE_SUB_CHANNELS);
    packet.count = count;
    transmute!(packet)
}

const fn header(operation: Operation) -> Header {
    Header {
        operation: operation.0,
        flags: REQUEST_COMPLETION,
        status: 0,
    }
}

/// A packet with a SCSI command for a unit. What an older version does not have
/// is cut off when it is sent.
pub(super) fn scsi(
    version: Version,
    unit: u8,
    cdb: &Cdb,
    way: Direction,
    bytes: u32,
) -> [u8; PACKET] {
    let mut packet = ScsiPacket::new_zeroed();
    packet.header = header(Operation::EXECUTE_SRB);
    packet.length = version.request_bytes() as u16;
    packet.lun = unit;
    let cdb = cdb.as_bytes();
    packet.cdb_length = cdb.len() as u8;
    packet.cdb_or_sense[..cdb.len()].copy_from_slice(cdb);
    packet.sense_length = version.sense_bytes() as u8;
    let way_flag = match way {
        Direction::In => (direction::IN, srb_flags::DATA_IN),
        Direction::Out => (direction::OUT, srb_flags::DATA_OUT),
        Direction::None => (direction::NONE, 0),
    };
    packet.direction = way_flag.0;
    packet.transfer = bytes;
    packet.queue_tag = QUEUE_TAG;
    packet.queue_action = SIMPLE_TAG;
    packet.srb_flags = way_flag.1
        | srb_flags::QUEUE_ACTION_ENABLE
        | srb_flags::DISABLE_SYNCH_TRANSFER
        | srb_flags::NO_QUEUE_FREEZE;
    packet.time_out = HOST_TIMEOUT;
    transmute!(packet)
}

/// The answer to a packet of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) max_transfer: u32,
    /// Further channels that may be had.
    pub(super) subchannels: u16,
}

/// How a SCSI command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was carried out, with so many bytes.
    Good(u32),
    /// It was not, for a reason that has a name.
    Bad(Condition),
    /// It was not; what the host says about it makes no sense.
    Unexplained(SenseError),
    /// It was not, for want of a disk.
    NoUnit,
    /// It was not, and there is no more to say.
    Failed(SrbStatus, firn_scsi::Status),
}

/// Whole packets; what an old version's do not have is zero.
fn whole(data: &[u8], version: Option<Version>) -> Result<[u8; PACKET], Offence> {
    let least = version.map_or(super::EARLY_PACKET, Version::packet_bytes);
    let mut packet = [0; PACKET];
    if data.len() < least {
        return Err(Offence::TooShort(data.len()));
    }
    let bytes = data.len().min(PACKET);
    packet[..bytes].copy_from_slice(&data[..bytes]);
    Ok(packet)
}

/// What a completion is, if it is one.
fn completion(data: &[u8], version: Option<Version>) -> Result<[u8; PACKET], Offence> {
    let packet = whole(data, version)?;
    match operation(&packet) {
        Operation::COMPLETE_IO => Ok(packet),
        other => Err(Offence::WrongOperation(other)),
    }
}

/// The operation of a packet.
pub(super) fn operation(packet: &[u8]) -> Operation {
    let header = Header::read_from_prefix(packet);
    header.map_or(Operation(0), |(header, _)| Operation(header.operation))
}

/// Reads the answer to a packet of the handshake.
pub(super) fn answer(data: &[u8], version: Option<Version>) -> Result<Answer, Offence> {
    let packet: PropertiesPacket = transmute!(completion(data, version)?);
    Ok(Answer {
        status: Status(packet.header.status),
        max_transfer: packet.max_transfer,
        subchannels: match packet.flags & SUPPORTS_MULTI_CHANNEL {
            0 => 0,
            _ => packet.max_subchannels,
        },
    })
}

/// Reads how a SCSI command for `asked` bytes ended.
pub(super) fn ended(data: &[u8], version: Version, asked: u32) -> Result<Ended, Offence> {
    let packet: ScsiPacket = transmute!(completion(data, Some(version))?);
    let moved = packet.transfer;
    if moved > asked {
        return Err(Offence::MovedTooMuch { asked, moved });
    }
    let srb = SrbStatus(packet.srb_status & !(SENSE_VALID | QUEUE_FROZEN));
    let scsi = firn_scsi::Status(packet.scsi_status);
    let has_sense = packet.srb_status & SENSE_VALID != 0;
    if has_sense {
        let sense = sense(&packet, version)?;
        return Ok(match sense.map(Condition::of) {
            // Of a command that was carried out in the end.
            Ok(Condition::Done) => Ended::Good(moved),
            Ok(condition) => Ended::Bad(condition),
            Err(error) => Ended::Unexplained(error),
        });
    }
    match srb {
        SrbStatus::SUCCESS | SrbStatus::DATA_OVERRUN if scsi == firn_scsi::Status::GOOD => {
            Ok(Ended::Good(moved))
        }
        SrbStatus::INVALID_LUN | SrbStatus::NO_DEVICE => Ok(Ended::NoUnit),
        SrbStatus::ABORTED | SrbStatus::BUS_RESET | SrbStatus::BUSY => {
            Ok(Ended::Bad(Condition::Aborted))
        }
        SrbStatus::SUCCESS
        | SrbStatus::DATA_OVERRUN
        | SrbStatus::ERROR
        | SrbStatus::INVALID_REQUEST
        | SrbStatus::TIMEOUT => Ok(Ended::Failed(srb, scsi)),
        unknown => Err(Offence::UnknownSrbStatus(unknown)),
    }
}

/// The sense data of an answer, within what there is room for.
fn sense(packet: &ScsiPacket, version: Version) -> Result<Result<Sense, SenseError>, Offence> {
    let length = usize::from(packet.sense_length);
    if length > version.sense_bytes().min(SENSE) {
        return Err(Offence::SenseTooLong(packet.sense_length));
    }
    Ok(Sense::parse(&packet.cdb_or_sense[..length]))
}
