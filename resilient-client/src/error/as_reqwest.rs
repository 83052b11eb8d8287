//! What an error is, in the words that reqwest has for it.

use super::words::{NOT_UPGRADED, OWN_BODY_FAILED};
use super::{Error, ErrorKind};
use crate::outcome::report::CallReport;

impl Error {
    /// The request failed on its way, and no response came: no connection, one that broke, no time,
    /// or a body of its own that failed while it was sent. Not what was refused here
    /// ([`is_rejected`](Self::is_rejected)), and not what couldn't be built, which is
    /// [`ErrorKind::Request`], too, and which reqwest calls a builder's error.
    pub fn is_request(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::NoEndpoint | ErrorKind::Timeout => true,
            // A response had come.
            ErrorKind::Transport => !self.says_of_itself(NOT_UPGRADED),
            ErrorKind::Request => self.says_of_itself(OWN_BODY_FAILED),
            ErrorKind::Deadline => !self.is_of_body(),
            _ => false,
        }
    }

    /// The response's body failed: cut off, stalled, too large or out of time. reqwest has
    /// [`is_decode`](Self::is_decode) for these, and so has this, too.
    pub fn is_body(&self) -> bool {
        self.is_of_body()
    }

    /// The response's body couldn't be read, or isn't the JSON it should be. The latter alone is
    /// [`ErrorKind::Decode`].
    pub fn is_decode(&self) -> bool {
        self.0.kind == ErrorKind::Decode || self.is_of_body()
    }

    /// Whether a response had come, and its body didn't.
    fn is_of_body(&self) -> bool {
        match self.0.kind {
            ErrorKind::Body | ErrorKind::BodyIdle | ErrorKind::BodyTooLarge => true,
            ErrorKind::Deadline => {
                let attempts = self.0.report.as_ref().map_or(&[][..], CallReport::attempts);
                attempts.iter().any(|attempt| attempt.status().is_some())
            }
            _ => false,
        }
    }
}
