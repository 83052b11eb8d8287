//! What an error says in words of its own, by which it is known again.

use super::Error;

/// Of a connection that didn't change its protocol.
pub(super) const NOT_UPGRADED: &str = "the connection wasn't upgraded";

/// Of a request whose body, a stream or a file, failed.
pub(crate) const OWN_BODY_FAILED: &str = "its own body failed while it was sent";

/// Of a request that a client of this kind, below a layer of this kind, didn't send.
pub(crate) const REFUSED_BELOW: &str = "the client below refused it";

impl Error {
    pub(super) fn says_of_itself(&self, words: &str) -> bool {
        self.0.detail.as_deref() == Some(words)
    }

    /// Of the kind [`ErrorKind::Request`](super::ErrorKind::Request): whether nothing was wrong
    /// with how it was built.
    pub(super) fn was_built(&self) -> bool {
        self.says_of_itself(OWN_BODY_FAILED) || self.says_of_itself(REFUSED_BELOW)
    }
}
