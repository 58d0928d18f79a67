//! Tokens: the receipt of an accepted request.

use crate::Completion;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

static LOST: AtomicU64 = AtomicU64::new(0);

/// How many tokens were dropped unsettled since the program started.
///
/// Zero in a correct program: a request whose token is lost still completes,
/// but nobody looks at the result. Tests assert it.
#[must_use]
pub fn lost_tokens() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Names an accepted request for as long as its queue lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The receipt of an accepted request: exactly one [`Completion`] with its id
/// will come, and [`Token::settle`] ends it.
///
/// Dropping one unsettled is a mistake that [`lost_tokens`] counts; whoever
/// really does not want to know says so with [`Token::abandon`].
#[must_use = "a request that was accepted must be completed"]
#[derive(Debug)]
pub struct Token {
    id: TokenId,
    settled: bool,
}

impl Token {
    /// A token for a queue to give out.
    pub const fn new(id: TokenId) -> Self {
        Self { id, settled: false }
    }

    /// Which completion to wait for.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// Ends the token with its completion.
    ///
    /// # Errors
    /// The token itself, when the completion is another request's.
    pub fn settle(mut self, completion: &Completion) -> Result<(), Self> {
        if completion.token != self.id {
            return Err(self);
        }
        self.settled = true;
        Ok(())
    }

    /// Gives up on the result. The request still completes.
    pub fn abandon(mut self) {
        self.settled = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.settled {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    fn completion(id: u64) -> Completion {
        Completion {
            token: TokenId(id),
            request: Request::flush(),
            result: Ok(()),
        }
    }

    #[test]
    fn only_its_own_completion_settles_a_token_and_a_dropped_one_is_counted() {
        let before = lost_tokens();
        let token = Token::new(TokenId(4));
        let token = token
            .settle(&completion(5))
            .expect_err("not its completion");
        token.settle(&completion(4)).expect("its completion");
        Token::new(TokenId(6)).abandon();
        assert_eq!(lost_tokens(), before);
        drop(Token::new(TokenId(7)));
        assert_eq!(lost_tokens(), before + 1);
    }
}
