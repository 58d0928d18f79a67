//! What a broken or hostile backend does.

/// One way to misbehave. Those about single answers happen once, at the next
/// occasion; all others last until [`super::BlkBack::behave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlkOffence {
    /// Announces more answers than there are requests.
    ResponseIndexRunsAway,
    /// Takes back answers that it announced.
    ResponseIndexGoesBack,
    /// Answers with an id that was never used.
    UnknownId,
    /// Answers with the id of a request that is not on the way.
    IdleId,
    /// Answers the same request twice, and another one never.
    DoubledCompletion,
    /// Answers with another operation.
    WrongOperation,
    /// Answers with an operation that does not exist.
    UnknownOperation,
    /// Answers with a status that does not exist.
    UnknownStatus,
    /// Answers the next flush with "not supported".
    FlushUnsupported,
    /// Answers the next discard with "not supported".
    DiscardUnsupported,
    /// Answers the next request of any kind with "not supported".
    Unsupported,
    /// Fails the next request.
    Fails,
    /// Keeps the pages of the next request mapped after it answered, without
    /// a promise of persistent grants.
    KeepsRequestPages,
    /// Scribbles over the request's slot before it answers.
    ScribblesOverRequests,
    /// Overwrites the index that counts the guest's requests.
    OverwritesRequestIndex,
    /// Says that it never wants an event. Slow, as only it suffers.
    NeverWantsEvents,
    /// Takes requests and never answers.
    NeverAnswers,
    /// Does not even take requests.
    NeverTakes,
    /// Answers, but never sends an event.
    NeverNotifies,
    /// Sends events in every step, with or without work.
    EventStorm,
    /// Never reaches `InitWait`.
    NeverInitWait,
    /// Never reaches `Connected`.
    NeverConnects,
    /// Reacts to nothing that the frontend says from its ring on.
    Sleeps,
    /// Never reaches `Closed`.
    NeverCloses,
    /// Goes from nothing to `Connected`.
    ConnectedTooEarly,
    /// Says `Closed` where `Connected` is due.
    ClosedInsteadOfConnected,
    /// Says a state that does not exist where `Connected` is due.
    UnknownState,
    /// Says a state that is no number where `Connected` is due.
    GarbledState,
    /// Features differ at every look.
    FeaturesFlip,
    /// Keeps every grant mapped when it disconnects.
    KeepsGrants,
    /// Goes on answering on the ring after the frontend took it apart.
    AnswersAfterClosed,
}

impl BlkOffence {
    /// Whether it is over when it happened once.
    pub(super) const fn is_single(self) -> bool {
        matches!(
            self,
            Self::ResponseIndexRunsAway
                | Self::ResponseIndexGoesBack
                | Self::UnknownId
                | Self::IdleId
                | Self::DoubledCompletion
                | Self::WrongOperation
                | Self::UnknownOperation
                | Self::UnknownStatus
                | Self::FlushUnsupported
                | Self::DiscardUnsupported
                | Self::Unsupported
                | Self::Fails
                | Self::KeepsRequestPages
                | Self::ScribblesOverRequests
                | Self::OverwritesRequestIndex
        )
    }
}
