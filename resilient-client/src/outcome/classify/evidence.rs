//! What a transport knows of an attempt's error besides what the error says.

use crate::error::BoxError;
use crate::outcome::FailureCause;
use crate::outcome::classify::classified::{Classified, Repeat};
use crate::reqwest_error::ReqwestError;
use std::fmt;

/// How much an error proves about the attempt's own request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing: the service below may have sent others before it, as one that follows redirects
    /// does. The error may be a hop's, and the request itself was processed then.
    #[default]
    Unknown,
    /// There was one request, and the error is its.
    Direct,
    /// Besides, it had become a stream of its own, or its content can't have reached the server
    /// whole: a `GOAWAY` that ended it excluded it.
    OwnStream,
}

/// See the [module docs](self).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) sent: Sent,
    /// The connection it went over, where that is shared and known.
    pub(crate) connection: Option<u64>,
    /// That connection had carried requests before, as far as is known. One that ends before it
    /// carries any is no housekeeping: it is a server that takes connections and drops them.
    pub(crate) reused: bool,
    /// The attempt had a connection to itself that it found in the pool, as far as is known.
    pub(crate) pooled: bool,
}

impl Evidence {
    pub(crate) const DIRECT: Self =
        Self { sent: Sent::Direct, connection: None, reused: false, pooled: false };

    /// What is left of a proof on this evidence, and whose failure it is.
    pub(crate) fn weigh(self, found: Classified) -> Classified {
        let repeat = match (self.sent, found.repeat) {
            (Sent::Unknown, Repeat::Unprocessed) => Repeat::IfSafe,
            (Sent::Unknown, Repeat::Futile) => Repeat::Never,
            (Sent::Unknown, Repeat::Unsent | Repeat::Refused) => Repeat::Doubtful,
            (_, repeat) => repeat,
        };
        let cause = match (found.cause, self.connection) {
            (FailureCause::Lost, Some(connection)) => FailureCause::Connection(connection),
            (cause, _) => cause,
        };
        Classified { cause, repeat, ..found }
    }
}

/// An error, with what its transport must remember of it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) error: BoxError,
    /// The attempt surely had a stream of its own.
    pub(crate) stream: bool,
    /// It may be another request's than the attempt's own, as far as is known.
    pub(crate) hopped: bool,
}

impl From<Fault> for BoxError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

/// An error after a redirect: the request itself was processed.
#[derive(Debug)]
pub(crate) struct AfterRedirect(pub(crate) ReqwestError);

impl fmt::Display for AfterRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed after a redirect")
    }
}

impl std::error::Error for AfterRedirect {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
