//! Messages and signals to the host.

use crate::hal::Hal;
use crate::hypercall::Hypercall;
use crate::machine::HyperV;
use crate::wire::hypercall::{CHANNEL_MESSAGE, PAYLOAD, PostMessage, Status};
use core::fmt;
use core::time::Duration;
use firn_task::{Instant, sleep_until};

/// How long to wait after the first refusal; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_micros(1);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The host had no room for it until the deadline.
    NoRoom {
        /// What it said last.
        status: Status,
        /// How often it was asked.
        tries: u32,
    },
    /// The host does not take it at all.
    Refused(Status),
    /// It is longer than messages are.
    TooLong(usize),
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { status, tries } => write!(
                f,
                "the host took no message until the deadline ({status}, {tries} tries)"
            ),
            Self::Refused(status) => write!(f, "the host refuses the message: {status}"),
            Self::TooLong(bytes) => write!(f, "a message of {bytes} bytes cannot be sent"),
        }
    }
}

impl core::error::Error for PostError {}

impl<H: Hal> HyperV<H> {
    /// Sends one message, once.
    fn try_post(&self, connection: u32, message: &[u8]) -> Result<Status, PostError> {
        let mut payload = [0; PAYLOAD];
        let Some(room) = payload.get_mut(..message.len()) else {
            return Err(PostError::TooLong(message.len()));
        };
        room.copy_from_slice(message);
        let input = PostMessage {
            connection,
            reserved: 0,
            message_type: CHANNEL_MESSAGE,
            size: message.len() as u32,
            payload,
        };
        self.synic.outgoing.write(0, &input);
        let frame = self.hal.gfn(&self.synic.outgoing, 0);
        Ok(self.hal.hypercall(Hypercall::PostMessage(frame)))
    }

    /// Sends a message, and tries again while the host has no room for it, with
    /// pauses that double, until the deadline.
    ///
    /// # Errors
    /// [`PostError`]; the host has not got the message.
    pub async fn post(
        &self,
        connection: u32,
        message: &[u8],
        until: Instant,
    ) -> Result<(), PostError> {
        let (mut pause, mut tries) = (FIRST_PAUSE, 0u32);
        loop {
            tries = tries.saturating_add(1);
            let status = self.try_post(connection, message)?;
            match status {
                Status::SUCCESS => return Ok(()),
                Status::INSUFFICIENT_BUFFERS | Status::INSUFFICIENT_MEMORY => {}
                refusal => return Err(PostError::Refused(refusal)),
            }
            let now = self.hal.now();
            if now >= until {
                return Err(PostError::NoRoom { status, tries });
            }
            sleep_until(self, (now + pause).min(until)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Signals a channel's event. One that is lost for want of room would stop
    /// the channel, so it is tried again, a fixed number of times.
    ///
    /// # Errors
    /// What the host said last.
    pub fn signal(&self, connection: u32) -> Result<(), Status> {
        let call = Hypercall::SignalEvent {
            connection,
            flag: 0,
        };
        let mut status = Status::SUCCESS;
        for _ in 0..SIGNAL_TRIES {
            status = self.hal.hypercall(call);
            match status {
                Status::SUCCESS => return Ok(()),
                Status::INSUFFICIENT_BUFFERS | Status::INSUFFICIENT_MEMORY => {}
                _ => break,
            }
        }
        Err(status)
    }
}

const SIGNAL_TRIES: u32 = 16;
