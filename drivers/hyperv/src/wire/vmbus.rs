//! VMBus channel messages, versions 2.4 to 6.0.

use super::{Guid, layout};
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes};

firn_block::open_enum! {
    /// What a message is.
    pub enum Kind: u32 {
        /// Host: a device, or a further channel of one.
        OFFER = 1 => "OFFER",
        /// Host: an offer is void.
        RESCIND = 2 => "RESCIND",
        /// Asks for all offers.
        REQUEST_OFFERS = 3 => "REQUEST_OFFERS",
        /// Host: those were all.
        ALL_OFFERS_DELIVERED = 4 => "ALL_OFFERS_DELIVERED",
        /// Opens a channel.
        OPEN = 5 => "OPEN",
        /// Host: how that went.
        OPEN_RESULT = 6 => "OPEN_RESULT",
        /// Closes a channel; not answered.
        CLOSE = 7 => "CLOSE",
        /// Describes memory.
        GPADL_HEADER = 8 => "GPADL_HEADER",
        /// More of it.
        GPADL_BODY = 9 => "GPADL_BODY",
        /// Host: how that went.
        GPADL_CREATED = 10 => "GPADL_CREATED",
        /// Takes memory back.
        GPADL_TEARDOWN = 11 => "GPADL_TEARDOWN",
        /// Host: it has let go.
        GPADL_TORNDOWN = 12 => "GPADL_TORNDOWN",
        /// A rescinded offer is not used any more.
        RELID_RELEASED = 13 => "RELID_RELEASED",
        /// Begins a connection.
        INITIATE_CONTACT = 14 => "INITIATE_CONTACT",
        /// Host: whether it speaks that version.
        VERSION_RESPONSE = 15 => "VERSION_RESPONSE",
        /// Ends the connection.
        UNLOAD = 16 => "UNLOAD",
        /// Host: it has ended.
        UNLOAD_RESPONSE = 17 => "UNLOAD_RESPONSE",
        /// Moves a channel's interrupt to another processor.
        MODIFY_CHANNEL = 22 => "MODIFY_CHANNEL",
        /// Host, from 5.3 on: how that went.
        MODIFY_CHANNEL_RESPONSE = 24 => "MODIFY_CHANNEL_RESPONSE",
    }
}

/// A version of the protocol: major in the upper half, minor in the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// Windows Server 2012.
    pub const V2_4: Self = Self::new(2, 4);
    /// Windows Server 2012 R2; the first that can be contacted again after an
    /// unload.
    pub const V3_0: Self = Self::new(3, 0);
    /// Windows 10.
    pub const V4_0: Self = Self::new(4, 0);
    /// Its third release; the first with MODIFY_CHANNEL.
    pub const V4_1: Self = Self::new(4, 1);
    /// The first whose messages have a connection of their own.
    pub const V5_0: Self = Self::new(5, 0);
    /// Its fourth release.
    pub const V5_1: Self = Self::new(5, 1);
    /// Its fifth release.
    pub const V5_2: Self = Self::new(5, 2);
    /// Windows Server 2022; answers MODIFY_CHANNEL.
    pub const V5_3: Self = Self::new(5, 3);
    /// The one after it.
    pub const V6_0: Self = Self::new(6, 0);

    /// Those that firn speaks, the newest first.
    pub const ALL: [Self; 9] = [
        Self::V6_0,
        Self::V5_3,
        Self::V5_2,
        Self::V5_1,
        Self::V5_0,
        Self::V4_1,
        Self::V4_0,
        Self::V3_0,
        Self::V2_4,
    ];

    const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where messages go before [`Version::V5_0`].
pub const OLD_MESSAGE_CONNECTION: u32 = 1;
/// Where contact is made from [`Version::V5_0`] on.
pub const MESSAGE_CONNECTION: u32 = 4;
/// As a channel's processor: the host sends no interrupts.
pub const NO_INTERRUPTS: u32 = u32::MAX;
/// Where the groups of triggers begin in a monitor page: 8 bytes each, of which the
/// first four are the pending bits.
pub const TRIGGER_GROUPS: usize = 8;
/// How many bits a monitor page has.
pub const MONITORS: u8 = 128;
/// A status that means success.
pub const SUCCESS: u32 = 0;

/// What a device is.
pub mod class {
    use super::Guid;

    /// A SCSI controller.
    pub const SCSI: Guid = Guid::new(0xba61_63d9, 0x04a1, 0x4d29, 0xb605_72e2_ffb1_dc7f);
    /// The fast channel of a disk on the emulated IDE controller.
    pub const IDE: Guid = Guid::new(0x3241_2632, 0x86cb, 0x44a2, 0x9b5c_50d1_4173_54f5);
    /// The service by which the host asks the guest to stop.
    pub const SHUTDOWN: Guid = Guid::new(0x0e0b_6031, 0x5213, 0x4934, 0x818b_38d9_0ced_39db);
    /// The service by which the host tells the time.
    pub const TIME_SYNC: Guid = Guid::new(0x9527_e630, 0xd0ae, 0x497b, 0xadce_e80a_b017_5caf);
    /// The service by which the host asks whether the guest lives.
    pub const HEARTBEAT: Guid = Guid::new(0x5716_4f39, 0x9115, 0x4e78, 0xab55_382f_3bd5_422d);
}

/// The head of every message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u32,
    /// Zero.
    pub pad: u32,
}
layout!(Header, 8, { kind @ 0 });

impl Header {
    /// The head of a message of some kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind: kind.0,
            pad: 0,
        }
    }
}

/// [`Kind::OFFER`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Offer {
    /// The head.
    pub header: Header,
    /// What kind of device.
    pub class: Guid,
    /// Which device; the same at every boot of the machine.
    pub instance: Guid,
    /// Reserved.
    pub reserved: [u32; 4],
    /// Flags.
    pub flags: u16,
    /// Device memory in MiB.
    pub mmio_mib: u16,
    /// The device's own.
    pub user: [u8; 120],
    /// Zero for a device's first channel.
    pub subchannel: u16,
    /// Reserved.
    pub reserved2: u16,
    /// The channel's number until it is rescinded.
    pub relid: u32,
    /// The channel's bit in the monitor pages.
    pub monitor: u8,
    /// Bit 0: there is such a bit.
    pub monitor_allocated: u8,
    /// Bit 0: events of this channel need no interrupt page.
    pub dedicated: u16,
    /// Where its events are signalled.
    pub connection: u32,
}
layout!(Offer, 196, {
    class @ 8, instance @ 24, reserved @ 40, flags @ 56, mmio_mib @ 58, user @ 60,
    subchannel @ 180, relid @ 184, monitor @ 188, monitor_allocated @ 189, dedicated @ 190,
    connection @ 192 });

/// [`Kind::RESCIND`], [`Kind::CLOSE`], [`Kind::RELID_RELEASED`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RelidOnly {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
}
layout!(RelidOnly, 12, { relid @ 8 });

/// [`Kind::OPEN`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Open {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// Comes back with the result.
    pub open_id: u32,
    /// Both rings.
    pub gpadl: u32,
    /// Who gets its interrupts, or [`NO_INTERRUPTS`].
    pub target_vp: u32,
    /// Where the host's ring begins, in pages.
    pub downstream_page: u32,
    /// The device's own.
    pub user: [u8; 120],
}
layout!(Open, 148, { relid @ 8, open_id @ 12, gpadl @ 16, target_vp @ 20, downstream_page @ 24, user @ 28 });

/// [`Kind::OPEN_RESULT`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct OpenResult {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// Of the [`Open`].
    pub open_id: u32,
    /// [`SUCCESS`] or an error.
    pub status: u32,
}
layout!(OpenResult, 20, { relid @ 8, open_id @ 12, status @ 16 });

/// [`Kind::GPADL_HEADER`]; frames of 64 bits follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct GpadlHeader {
    /// The head.
    pub header: Header,
    /// The channel that it is for.
    pub relid: u32,
    /// The number that the guest gives it.
    pub gpadl: u32,
    /// Bytes of all ranges as they stand in header and bodies.
    pub range_bytes: u16,
    /// How many ranges: 1.
    pub range_count: u16,
    /// Bytes in the range.
    pub bytes: u32,
    /// Where in the first frame it begins: 0.
    pub offset: u32,
}
layout!(GpadlHeader, 28, { relid @ 8, gpadl @ 12, range_bytes @ 16, range_count @ 18, bytes @ 20, offset @ 24 });

/// Frames that fit into a [`Kind::GPADL_HEADER`].
pub const HEADER_FRAMES: usize = 26;

/// [`Kind::GPADL_BODY`]; frames of 64 bits follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct GpadlBody {
    /// The head.
    pub header: Header,
    /// Counts the bodies.
    pub number: u32,
    /// The GPADL.
    pub gpadl: u32,
}
layout!(GpadlBody, 16, { number @ 8, gpadl @ 12 });

/// Frames that fit into a [`Kind::GPADL_BODY`].
pub const BODY_FRAMES: usize = 28;

/// [`Kind::GPADL_CREATED`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct GpadlCreated {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// The GPADL.
    pub gpadl: u32,
    /// [`SUCCESS`] or an error.
    pub status: u32,
}
layout!(GpadlCreated, 20, { relid @ 8, gpadl @ 12, status @ 16 });

/// [`Kind::GPADL_TEARDOWN`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct GpadlTeardown {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// The GPADL.
    pub gpadl: u32,
}
layout!(GpadlTeardown, 16, { relid @ 8, gpadl @ 12 });

/// [`Kind::GPADL_TORNDOWN`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct GpadlTorndown {
    /// The head.
    pub header: Header,
    /// The GPADL.
    pub gpadl: u32,
}
layout!(GpadlTorndown, 12, { gpadl @ 8 });

/// [`Kind::INITIATE_CONTACT`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct InitiateContact {
    /// The head.
    pub header: Header,
    /// The [`Version`] that is proposed.
    pub version: u32,
    /// The processor that gets messages.
    pub target_vp: u32,
    /// Before [`Version::V5_0`] the interrupt page's address; from then on
    /// the source that gets messages in the lowest byte, features in the upper half.
    pub target: u64,
    /// Address of the page by which the host would signal.
    pub monitor_in: u64,
    /// Address of the page by which the guest would signal.
    pub monitor_out: u64,
}
layout!(InitiateContact, 40, { version @ 8, target_vp @ 12, target @ 16, monitor_in @ 24, monitor_out @ 32 });

/// [`Kind::VERSION_RESPONSE`], as long as it is at most; some hosts end it after
/// `state`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct VersionResponse {
    /// The head.
    pub header: Header,
    /// Not zero: yes.
    pub supported: u8,
    /// Zero: connected.
    pub state: u8,
    /// Padding.
    pub pad: u16,
    /// Where messages go, from [`Version::V5_0`] on.
    pub connection: u32,
}
layout!(VersionResponse, 16, { supported @ 8, state @ 9, connection @ 12 });

/// The least of a [`VersionResponse`] that makes sense.
pub const SHORT_VERSION_RESPONSE: usize = 10;

/// [`Kind::MODIFY_CHANNEL`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ModifyChannel {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// Who gets its interrupts from now on.
    pub target_vp: u32,
}
layout!(ModifyChannel, 16, { relid @ 8, target_vp @ 12 });

/// [`Kind::MODIFY_CHANNEL_RESPONSE`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ModifyChannelResponse {
    /// The head.
    pub header: Header,
    /// The channel.
    pub relid: u32,
    /// [`SUCCESS`] or an error.
    pub status: u32,
}
layout!(ModifyChannelResponse, 16, { relid @ 8, status @ 12 });

const _: () = {
    assert!(size_of::<GpadlHeader>() + 8 * HEADER_FRAMES <= super::hypercall::PAYLOAD);
    assert!(size_of::<GpadlHeader>() + 8 * (HEADER_FRAMES + 1) > super::hypercall::PAYLOAD);
    assert!(size_of::<GpadlBody>() + 8 * BODY_FRAMES == super::hypercall::PAYLOAD);
};
