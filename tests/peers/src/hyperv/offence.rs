//! What a broken or hostile host does.

/// One way to misbehave. Each is done at the next occasion, as long as the host
/// has it on its list; those named `Once…` only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HvOffence {
    /// Says that a message is longer than its slot.
    MessageTooLong,
    /// Sends a message of four bytes.
    MessageWithoutHead,
    /// Sends an offer that ends too early.
    OfferTooShort,
    /// Answers an open with less than an answer.
    OpenResultTooShort,
    /// Answers a GPADL with less than an answer.
    GpadlCreatedTooShort,
    /// Answers a version with less than an answer.
    VersionTooShort,
    /// Sends a message of a kind that nobody knows.
    UnknownMessage,
    /// Sends a message that only guests send.
    GuestMessage,
    /// Answers each version twice.
    VersionTwice,
    /// Says twice that all is offered.
    AllOffersTwice,
    /// Answers each open twice.
    OpenResultTwice,
    /// Answers each GPADL twice.
    GpadlCreatedTwice,
    /// Says that another GPADL was created.
    GpadlCreatedForeign,
    /// Says that another GPADL was torn down.
    TorndownForeign,
    /// Says that another channel was opened.
    OpenResultOfOther,
    /// Answers an open with another's id.
    OpenIdForeign,
    /// Says that it was unloaded, unasked.
    UnloadUnasked,
    /// Accepts a new version without a word of the connection.
    NoConnectionId,
    /// Accepts a new version with connection 0.
    ZeroConnectionId,
    /// Speaks a version and connects nobody.
    NotConnectable,
    /// Speaks no version.
    SpeaksNothing,
    /// Never answers a version.
    NeverAnswersContact,
    /// Never says that all is offered.
    NeverDeliversOffers,
    /// Offers channel 0.
    RelidZero,
    /// Offers a channel beyond the last.
    RelidTooHigh,
    /// Offers a channel twice.
    OffersTwice,
    /// Offers a device twice, by two channels.
    InstanceTwice,
    /// Offers a channel whose events go nowhere.
    OfferWithoutConnection,
    /// Offers a channel with a bit that monitor pages do not have.
    MonitorTooHigh,
    /// Rescinds a channel that was not offered.
    RescindsUnknown,
    /// Rescinds a channel twice.
    RescindsTwice,
    /// Offers a channel again before its number was given back.
    OffersTooEarly,
    /// Rescinds a channel when it is to be opened.
    RescindsAtOpen,
    /// Rescinds a channel when its memory is described.
    RescindsAtGpadl,
    /// Refuses memory.
    RefusesGpadl,
    /// Never answers to memory.
    NeverCreatesGpadl,
    /// Refuses to open.
    RefusesOpen,
    /// Never opens.
    NeverOpens,
    /// Never lets go of memory.
    NeverTearsDown,
    /// Never answers an unload.
    NeverUnloads,

    /// Reads where there is no ring.
    ReadIndexOutside,
    /// Reads in the middle of a packet.
    ReadIndexOdd,
    /// Reads what was not written.
    ReadIndexRunsAway,
    /// Writes where there is no ring.
    WriteIndexOutside,
    /// Writes half a word.
    WriteIndexOdd,
    /// Takes back what it wrote, while it is read.
    WriteIndexGoesBack,
    /// Sends a packet whose head is too short.
    PacketHeadShort,
    /// Sends a packet whose head is longer than itself.
    PacketHeadLong,
    /// Sends a packet of which a part is not written.
    PacketTorn,
    /// Sends a packet longer than any.
    PacketTooLong,
    /// Sends a packet of transfer pages.
    TransferPages,
    /// Sends a packet of a kind that nobody knows.
    UnknownPacket,

    /// Completes what was never asked for.
    UnknownTransaction,
    /// Completes each request twice.
    DoubledCompletion,
    /// Sends a completion that ends too early.
    CompletionTooShort,
    /// Completes with another operation.
    WrongOperation,
    /// Says that more was moved than was asked for.
    MovesTooMuch,
    /// Says that a write was done, and that less was moved.
    MovesTooLittle,
    /// Says that there are more sense data than there is room for.
    SenseTooLong,
    /// Sends sense data of a format that nobody knows.
    SenseUnknown,
    /// Sends sense data of one byte.
    SenseTooShort,
    /// Ends requests in a way that nobody knows.
    UnknownSrbStatus,
    /// Does what is asked for, and says that it failed.
    SaysFailed,
    /// Sends an operation of its own that nobody knows.
    UnknownNotice,
    /// Answers SCSI requests only after a reset.
    AnswersAfterReset,
    /// Never answers a SCSI request.
    NeverAnswersIo,
    /// Never answers the first packet.
    NeverBegins,
    /// Refuses the first packet.
    RefusesBegin,
    /// Refuses every version of storvsc.
    RefusesVersions,
    /// Refuses to tell its limits.
    RefusesProperties,
    /// Says that nothing can be moved.
    ZeroTransfer,
    /// Refuses the last packet of the handshake.
    RefusesEnd,
    /// Says that its list of units is of an odd length.
    OddLuns,
    /// Says that blocks have no bytes.
    ZeroBlock,
    /// Says that a disk is larger than can be.
    HugeDisk,
    /// Tells of a capacity in too few bytes.
    CapacityTooShort,
    /// Tells of modes in too few bytes.
    ModesTooShort,
    /// Sends another page of product data than was asked for.
    WrongPage,
    /// Answers events without work.
    EventStorm,

    /// Says how many further channels there may be, and not that there may be any.
    SubchannelsUnflagged,
    /// Refuses to make further channels.
    RefusesSubchannels,
    /// Never says whether it makes further channels.
    NeverAnswersSubchannels,
    /// Offers further channels only once it is forgiven.
    LateSubchannels,
    /// Offers further channels that nobody has asked for yet.
    SubchannelsEarly,
    /// Offers a further channel twice, under two numbers.
    SubchannelTwice,
    /// Offers a further channel beyond those that were asked for.
    SubchannelBeyond,
    /// Rescinds a further channel when it is to be opened.
    RescindsSubchannelAtOpen,
    /// Refuses to open a further channel.
    RefusesSubchannelOpen,
    /// Never opens a further channel.
    NeverOpensSubchannel,
    /// Leaves further channels offered when the first one goes.
    KeepsSubchannels,
    /// Completes by the first channel what came by another.
    CompletesElsewhere,
}
