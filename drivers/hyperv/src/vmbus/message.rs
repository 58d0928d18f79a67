//! From a message slot to a message: copied out once, checked by its length.

use super::offence::Offence;
use crate::wire::hypercall::PAYLOAD;
use crate::wire::synic::Message;
use crate::wire::vmbus::{
    GpadlCreated, GpadlTorndown, Header, Kind, ModifyChannelResponse, Offer, OpenResult, RelidOnly,
    SHORT_VERSION_RESPONSE, VersionResponse,
};
use zerocopy::FromBytes;

/// A message from the host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Incoming {
    Offer(Offer),
    Rescind(u32),
    AllOffersDelivered,
    Version(VersionReply),
    OpenResult(OpenResult),
    GpadlCreated(GpadlCreated),
    GpadlTorndown(u32),
    Modified(ModifyChannelResponse),
    Unloaded,
}

/// What a host says to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VersionReply {
    pub(super) supported: bool,
    /// Zero: connected.
    pub(super) state: u8,
    /// Where messages go; old hosts' answers end before it.
    pub(super) connection: Option<u32>,
}

impl Incoming {
    /// Checks a message that was copied out of its slot.
    pub(super) fn parse(message: &Message) -> Result<Self, Offence> {
        let bytes = message.payload.get(..usize::from(message.size));
        let bytes = bytes.ok_or(Offence::MessageTooLong(message.size))?;
        let (header, _) = Header::read_from_prefix(bytes)
            .map_err(|_| Offence::MessageWithoutHead(message.size))?;
        let kind = Kind(header.kind);
        Ok(match kind {
            Kind::OFFER => Self::Offer(body(kind, bytes)?),
            Kind::RESCIND => Self::Rescind(body::<RelidOnly>(kind, bytes)?.relid),
            Kind::ALL_OFFERS_DELIVERED => Self::AllOffersDelivered,
            Kind::VERSION_RESPONSE => Self::Version(version_reply(bytes)?),
            Kind::OPEN_RESULT => Self::OpenResult(body(kind, bytes)?),
            Kind::GPADL_CREATED => Self::GpadlCreated(body(kind, bytes)?),
            Kind::GPADL_TORNDOWN => Self::GpadlTorndown(body::<GpadlTorndown>(kind, bytes)?.gpadl),
            Kind::MODIFY_CHANNEL_RESPONSE => Self::Modified(body(kind, bytes)?),
            Kind::UNLOAD_RESPONSE => Self::Unloaded,
            other => return Err(Offence::MessageUnknown(other)),
        })
    }
}

fn body<T: FromBytes>(kind: Kind, bytes: &[u8]) -> Result<T, Offence> {
    let read = T::read_from_prefix(bytes);
    read.map(|(body, _)| body)
        .map_err(|_| Offence::MessageTooShort(kind))
}

/// A short answer is legal: what is missing is not there.
fn version_reply(bytes: &[u8]) -> Result<VersionReply, Offence> {
    if bytes.len() < SHORT_VERSION_RESPONSE {
        return Err(Offence::MessageTooShort(Kind::VERSION_RESPONSE));
    }
    let mut whole = [0; PAYLOAD];
    whole[..bytes.len()].copy_from_slice(bytes);
    let response: VersionResponse = body(Kind::VERSION_RESPONSE, &whole)?;
    let is_whole = bytes.len() >= size_of::<VersionResponse>();
    Ok(VersionReply {
        supported: response.supported != 0,
        state: response.state,
        connection: is_whole.then_some(response.connection),
    })
}
