//! Counters of one queue.

/// What a queue did since it was made. Plain counts that wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests accepted.
    pub submitted: u64,
    /// Requests completed, whatever the result.
    pub completed: u64,
    /// Of those, the ones with an error.
    pub errors: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Requests put on the ring; more than accepted ones where some were split.
    pub ring_requests: u64,
    /// Responses taken from the ring.
    pub ring_responses: u64,
    /// Submissions refused because there was no room.
    pub full: u64,
    /// Notifications sent to the host.
    pub notifications: u64,
    /// Events received from the host.
    pub events: u64,
    /// Events that brought no work.
    pub empty_events: u64,
    /// Grants made and ended because the host keeps no persistent grants.
    pub grant_operations: u64,
}
