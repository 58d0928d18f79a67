//! Replies that somebody waits for.

use super::message::VersionReply;
use super::offence::Offence;
use crate::wire::vmbus::Kind;
use core::cell::RefCell;
use firn_task::Few;

/// What a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Version,
    AllOffers,
    /// By relid.
    Open(u32),
    /// By GPADL.
    Created(u32),
    /// By GPADL.
    Torndown(u32),
    /// By relid.
    Modified(u32),
    Unloaded,
}

impl Key {
    /// The message that is the reply.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Version => Kind::VERSION_RESPONSE,
            Self::AllOffers => Kind::ALL_OFFERS_DELIVERED,
            Self::Open(_) => Kind::OPEN_RESULT,
            Self::Created(_) => Kind::GPADL_CREATED,
            Self::Torndown(_) => Kind::GPADL_TORNDOWN,
            Self::Modified(_) => Kind::MODIFY_CHANNEL_RESPONSE,
            Self::Unloaded => Kind::UNLOAD_RESPONSE,
        }
    }
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Version(VersionReply),
    /// Success, or an error.
    Status(u32),
}

enum Wait {
    /// Somebody waits.
    Open,
    /// There it is.
    Answered(Reply),
    /// Nobody waits any more: a reply may still come, and is of no use.
    Late,
}

/// All of them.
#[derive(Default)]
pub(super) struct Waiting(RefCell<Few<Key, Wait>>);

impl Waiting {
    /// Expects a reply, for as long as the result lives.
    pub(super) fn expect(&self, key: Key) -> Expected<'_> {
        self.0.borrow_mut().insert(key, Wait::Open);
        let waiting = self;
        Expected { waiting, key }
    }

    /// A reply came.
    pub(super) fn answer(&self, key: Key, reply: Reply) -> Result<(), Offence> {
        let mut waits = self.0.borrow_mut();
        match waits.get_mut(&key) {
            Some(wait @ Wait::Open) => *wait = Wait::Answered(reply),
            Some(Wait::Late) => {
                waits.remove(&key);
            }
            Some(Wait::Answered(_)) | None => return Err(Offence::Unsolicited(key.kind())),
        }
        Ok(())
    }

    /// The connection has ended: no reply of it comes any more.
    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// A reply that somebody waits for.
pub(super) struct Expected<'a> {
    waiting: &'a Waiting,
    key: Key,
}

impl Expected<'_> {
    /// The reply, if it is there.
    pub(super) fn reply(&self) -> Option<Reply> {
        match self.waiting.0.borrow().get(&self.key) {
            Some(Wait::Answered(reply)) => Some(*reply),
            _ => None,
        }
    }

    /// The request was not even sent: no reply comes.
    pub(super) fn cancel(&self) {
        self.waiting.0.borrow_mut().remove(&self.key);
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut waits = self.waiting.0.borrow_mut();
        match waits.get_mut(&self.key) {
            Some(wait @ Wait::Open) => *wait = Wait::Late,
            Some(Wait::Answered(_)) => {
                waits.remove(&self.key);
            }
            Some(Wait::Late) | None => {}
        }
    }
}
