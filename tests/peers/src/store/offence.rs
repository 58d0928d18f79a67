//! What a broken or hostile store daemon does.

/// One way to misbehave. Unless said otherwise it happens at the next occasion
/// and once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOffence {
    /// Announces more bytes of replies than the ring holds.
    ReplyIndexRunsAway,
    /// Takes back bytes of replies that it announced.
    ReplyIndexGoesBack,
    /// Claims to have read more than was written.
    RequestIndexRunsAway,
    /// Claims not to have read what it had read.
    RequestIndexGoesBack,
    /// A header with a length just above the limit.
    OversizedReply,
    /// A header with the largest length there is.
    EndlessReply,
    /// A reply to a request that was never made, instead of the reply.
    UnknownRequestId,
    /// A reply in another transaction.
    WrongTransaction,
    /// A reply of another type.
    WrongType,
    /// A reply of a type that does not exist.
    UnknownType,
    /// The same reply twice.
    DuplicatedReply,
    /// A reply, as the next event comes, although nothing was asked.
    UnsolicitedReply,
    /// An error reply with a name that no system knows.
    UnknownErrorName,
    /// An error reply without a name.
    EmptyError,
    /// An error reply of bytes that are no text.
    GarbledError,
    /// A value that is no text.
    GarbledValue,
    /// A directory whose last name is not ended.
    UnendedDirectory,
    /// A transaction number that is none.
    GarbledTransaction,
    /// A watch event without a token.
    WatchWithoutToken,
    /// A watch event of bytes that are no text.
    GarbledWatch,
    /// A watch event for a token that nobody registered.
    UnknownToken,
    /// From now on every commit loses against somebody else.
    CommitNeverSucceeds,
    /// From now on directory parts end nowhere.
    DirectoryNeverEnds,
    /// From now on the directory changes between any two parts.
    DirectoryKeepsChanging,
    /// From now on requests are read and never answered.
    Silence,
    /// From now on requests are not even read.
    Deaf,
    /// From now on one byte per step goes each way. Slow, but no offence.
    OneBytePerStep,
    /// From now on an event in every step, with or without work.
    EventStorm,
    /// From now on a request to reconnect is not answered.
    NeverReconnects,
}

impl StoreOffence {
    /// Whether it goes on until [`super::XenStored::behave`].
    pub(super) const fn lasts(self) -> bool {
        matches!(
            self,
            Self::CommitNeverSucceeds
                | Self::DirectoryNeverEnds
                | Self::DirectoryKeepsChanging
                | Self::Silence
                | Self::Deaf
                | Self::OneBytePerStep
                | Self::EventStorm
                | Self::NeverReconnects
        )
    }
}
