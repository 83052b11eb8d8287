//! The way back: what an attempt came to.
//!
//! An attempt is classified once, by [`classify`], and everything else (ledger, breaker, budget,
//! report, telemetry) reads that one answer. So a retry and a breaker can never disagree about
//! whether a response was a failure.

pub(crate) mod call_id;
pub mod classify;
pub(crate) mod rejection;
pub(crate) mod report;
pub mod retry_after;
mod verdict;

use std::fmt;

pub use verdict::Verdict;

/// What made an attempt fail, as far as it is shared: one cause counts once, however many attempts
/// tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCause {
    /// The attempt failed by itself: the server answered with a failure, or not in time. Each such
    /// failure counts.
    #[default]
    Own,
    /// The connection with this number failed. All attempts on it tell of one event.
    Connection(u64),
    /// A connection was lost or couldn't be made, and nobody knows which it was. Such failures
    /// count once an instant.
    Lost,
}

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The server answered, and the answer isn't its failure. A 404 is one of these.
    Success,
    /// It went wrong, at the place the kind names.
    Failure(FailureKind),
    /// The server asked for fewer requests (429).
    Throttled,
    /// It says nothing about the server: the request could not be built, say.
    Ignored,
    /// Nobody waited for the answer.
    Abandoned,
}

/// Where an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection: refused, unreachable, DNS, TLS or the connect timeout. The request was never
    /// sent.
    Connect,
    /// A connection was lost before the request was written to it, or none was waited for long
    /// enough. The request was never sent, and that says nothing about the server.
    Unsent,
    /// The server said it did not process the request: HTTP/2 `REFUSED_STREAM`, or `GOAWAY` below
    /// the request's stream.
    Refused,
    /// The connection broke after the request may have been read: reset, closed or garbled.
    Transport,
    /// No response head within the attempt timeout.
    Timeout,
    /// The response's status is a failure.
    Status,
    /// The response's body was cut off, reset or could not be decoded.
    Body,
    /// The response's body stopped coming for longer than the idle timeout.
    BodyIdle,
    /// Too many redirects, or one the policy forbids.
    Redirect,
}

impl FailureKind {
    /// The stable name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Unsent => "unsent",
            Self::Refused => "refused",
            Self::Transport => "transport",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Body => "body",
            Self::BodyIdle => "body_idle",
            Self::Redirect => "redirect",
        }
    }
}

impl Outcome {
    /// The stable name used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(kind) => kind.as_str(),
            Self::Throttled => "throttled",
            Self::Ignored => "ignored",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
