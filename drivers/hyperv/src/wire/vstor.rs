//! Packets of storvsc and storvsp, versions 6.2 to 2.0.

use super::layout;
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes};

firn_block::open_enum! {
    /// What a packet asks for or says.
    pub enum Operation: u32 {
        /// Host: the answer to a packet.
        COMPLETE_IO = 1 => "COMPLETE_IO",
        /// Host: a disk went.
        REMOVE_DEVICE = 2 => "REMOVE_DEVICE",
        /// A SCSI command.
        EXECUTE_SRB = 3 => "EXECUTE_SRB",
        /// Ends every command of one disk.
        RESET_LUN = 4 => "RESET_LUN",
        /// Ends every command.
        RESET_BUS = 6 => "RESET_BUS",
        /// The first packet.
        BEGIN_INITIALIZATION = 7 => "BEGIN_INITIALIZATION",
        /// The last one of the handshake.
        END_INITIALIZATION = 8 => "END_INITIALIZATION",
        /// Proposes a version.
        QUERY_PROTOCOL_VERSION = 9 => "QUERY_PROTOCOL_VERSION",
        /// Asks for limits.
        QUERY_PROPERTIES = 10 => "QUERY_PROPERTIES",
        /// Host: disks came or went.
        ENUMERATE_BUS = 11 => "ENUMERATE_BUS",
        /// Asks for further channels, after the handshake.
        CREATE_SUB_CHANNELS = 13 => "CREATE_SUB_CHANNELS",
        /// Host: something about a disk changed.
        EVENT_NOTIFICATION = 14 => "EVENT_NOTIFICATION",
    }
}

firn_block::open_enum! {
    /// How a packet ended.
    pub enum Status: u32 {
        /// Well.
        SUCCESS = 0 => "success",
        /// It failed.
        UNSUCCESSFUL = 0xc000_0001 => "unsuccessful",
        /// The version is not spoken.
        REVISION_MISMATCH = 0xc000_0059 => "revision mismatch",
    }
}

/// A version of the protocol: major in the upper byte, minor in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// Windows Vista.
    pub const V2_0: Self = Self(0x0200);
    /// Windows 7.
    pub const V4_2: Self = Self(0x0402);
    /// Windows 8; the first with the long request.
    pub const V5_1: Self = Self(0x0501);
    /// Windows 8.1.
    pub const V6_0: Self = Self(0x0600);
    /// Windows 10.
    pub const V6_2: Self = Self(0x0602);

    /// Those that firn speaks, the newest first.
    pub const ALL: [Self; 5] = [Self::V6_2, Self::V6_0, Self::V5_1, Self::V4_2, Self::V2_0];

    /// Bytes of a packet in this version.
    #[must_use]
    pub const fn packet_bytes(self) -> usize {
        if self.0 >= Self::V5_1.0 {
            PACKET
        } else {
            SHORT_PACKET
        }
    }

    /// Bytes of a SCSI request in this version.
    #[must_use]
    pub const fn request_bytes(self) -> usize {
        self.packet_bytes() - REQUEST_AT
    }

    /// Whether a controller may have several channels in this version.
    #[must_use]
    pub const fn has_subchannels(self) -> bool {
        self.0 >= Self::V5_1.0
    }

    /// Room for sense data in this version.
    #[must_use]
    pub const fn sense_bytes(self) -> usize {
        if self.0 >= Self::V5_1.0 { SENSE } else { 0x12 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 8, self.0 & 0xff)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes of a packet.
pub const PACKET: usize = 64;
/// Bytes of a packet before [`Version::V5_1`].
pub const SHORT_PACKET: usize = 48;
/// Where a packet's own part begins.
pub const REQUEST_AT: usize = 12;
/// Room for a command or for sense data.
pub const SENSE: usize = 0x14;
/// Flag of a packet: its sender wants an answer.
pub const REQUEST_COMPLETION: u32 = 1;

/// The head of every packet.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    /// An [`Operation`].
    pub operation: u32,
    /// [`REQUEST_COMPLETION`].
    pub flags: u32,
    /// A [`Status`], in answers.
    pub status: u32,
}
layout!(Header, 12, { operation @ 0, flags @ 4, status @ 8 });

/// A packet with [`Operation::EXECUTE_SRB`], and the answer to it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ScsiPacket {
    /// The head.
    pub header: Header,
    /// Bytes from here on: [`Version::request_bytes`].
    pub length: u16,
    /// An [`SrbStatus`] and its flags, in answers.
    pub srb_status: u8,
    /// A SCSI status, in answers.
    pub scsi_status: u8,
    /// Zero.
    pub port: u8,
    /// The bus.
    pub path: u8,
    /// The target on it.
    pub target: u8,
    /// The unit of the target.
    pub lun: u8,
    /// Bytes of the command.
    pub cdb_length: u8,
    /// Room for sense data; how many there are, in answers.
    pub sense_length: u8,
    /// A [`direction`].
    pub direction: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes of data; how many were moved, in answers.
    pub transfer: u32,
    /// The command; in answers, sense data.
    pub cdb_or_sense: [u8; SENSE],
    /// Zero. From here on not before [`Version::V5_1`].
    pub reserved2: u16,
    /// [`QUEUE_TAG`].
    pub queue_tag: u8,
    /// [`SIMPLE_TAG`].
    pub queue_action: u8,
    /// [`srb_flags`].
    pub srb_flags: u32,
    /// In seconds.
    pub time_out: u32,
    /// Zero.
    pub queue_sort_key: u32,
}
layout!(ScsiPacket, 64, {
    length @ 12, srb_status @ 14, scsi_status @ 15, port @ 16, path @ 17, target @ 18, lun @ 19,
    cdb_length @ 20, sense_length @ 21, direction @ 22, transfer @ 24, cdb_or_sense @ 28,
    reserved2 @ 48, queue_tag @ 50, queue_action @ 51, srb_flags @ 52, time_out @ 56,
    queue_sort_key @ 60 });

/// Which way data go.
pub mod direction {
    /// To the disk.
    pub const OUT: u8 = 0;
    /// From the disk.
    pub const IN: u8 = 1;
    /// There are none.
    pub const NONE: u8 = 2;
}

/// `SRB_SIMPLE_TAG_REQUEST`.
pub const SIMPLE_TAG: u8 = 0x20;
/// No tag.
pub const QUEUE_TAG: u8 = 0xff;

/// Bits of [`ScsiPacket::srb_flags`].
pub mod srb_flags {
    /// `SRB_FLAGS_QUEUE_ACTION_ENABLE`.
    pub const QUEUE_ACTION_ENABLE: u32 = 0x2;
    /// `SRB_FLAGS_DISABLE_SYNCH_TRANSFER`.
    pub const DISABLE_SYNCH_TRANSFER: u32 = 0x8;
    /// `SRB_FLAGS_DATA_IN`.
    pub const DATA_IN: u32 = 0x40;
    /// `SRB_FLAGS_DATA_OUT`.
    pub const DATA_OUT: u32 = 0x80;
    /// `SRB_FLAGS_NO_QUEUE_FREEZE`.
    pub const NO_QUEUE_FREEZE: u32 = 0x100;
}

firn_block::open_enum! {
    /// How a SCSI request ended, without [`SENSE_VALID`] and [`QUEUE_FROZEN`].
    pub enum SrbStatus: u8 {
        /// Well.
        SUCCESS = 0x01 => "success",
        /// It was aborted.
        ABORTED = 0x02 => "aborted",
        /// It failed; the SCSI status and sense data say how.
        ERROR = 0x04 => "error",
        /// The host is busy.
        BUSY = 0x05 => "busy",
        /// Nobody knows such a request.
        INVALID_REQUEST = 0x06 => "invalid request",
        /// There is no such target.
        NO_DEVICE = 0x08 => "no device",
        /// It took too long.
        TIMEOUT = 0x09 => "timeout",
        /// The bus was reset.
        BUS_RESET = 0x0e => "bus reset",
        /// More or fewer data than were asked for; common for inquiries.
        DATA_OVERRUN = 0x12 => "data overrun",
        /// There is no such unit.
        INVALID_LUN = 0x20 => "invalid LUN",
    }
}

/// Flag of an [`SrbStatus`]: there are sense data.
pub const SENSE_VALID: u8 = 0x80;
/// Flag of an [`SrbStatus`]: the queue is frozen.
pub const QUEUE_FROZEN: u8 = 0x40;

/// A packet with [`Operation::QUERY_PROTOCOL_VERSION`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VersionPacket {
    /// The head.
    pub header: Header,
    /// A [`Version`].
    pub version: u16,
    /// Zero.
    pub revision: u16,
    /// Up to a packet's length.
    pub pad: [u8; 48],
}
layout!(VersionPacket, 64, { version @ 12, revision @ 14 });

/// A packet with [`Operation::CREATE_SUB_CHANNELS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct CreatePacket {
    /// The head.
    pub header: Header,
    /// How many; their offers are numbered from 1 on.
    pub count: u16,
    /// Up to a packet's length.
    pub pad: [u8; 50],
}
layout!(CreatePacket, 64, { count @ 12 });

/// Flag of [`PropertiesPacket::flags`]: there may be several channels.
pub const SUPPORTS_MULTI_CHANNEL: u32 = 1;

/// The answer to [`Operation::QUERY_PROPERTIES`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct PropertiesPacket {
    /// The head.
    pub header: Header,
    /// Reserved.
    pub reserved: u32,
    /// Further channels that may be had.
    pub max_subchannels: u16,
    /// Reserved.
    pub reserved2: u16,
    /// [`SUPPORTS_MULTI_CHANNEL`].
    pub flags: u32,
    /// Most bytes of a request.
    pub max_transfer: u32,
    /// Up to a packet's length.
    pub pad: [u8; 36],
}
layout!(PropertiesPacket, 64, { max_subchannels @ 16, flags @ 20, max_transfer @ 24 });
